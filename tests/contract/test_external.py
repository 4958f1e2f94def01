"""Optimizers of other packages as they are: torch.optim.Adagrad, pytorch_optimizer's Lion, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import pytorch_optimizer
import torch
from torch import Tensor

from drive import LAYOUT, LAYOUT_DECAY_ALL, largest, noisy, run_oracle, start
from optsweep.optim.external import ExternalUpdate
from optsweep.optim.update import Decay
from optsweep.optim.updater import try_out

STEPS = 60
MULTIPLIERS = np.linspace(1.0, 0.1, STEPS)
CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "adagrad": (torch.optim.Adagrad, {"eps": 1e-6}),
    "lion": (pytorch_optimizer.Lion, {"betas": [0.9, 0.95]}),
}

every_class = pytest.mark.parametrize("name", CLASSES)


def drive(
    update: ExternalUpdate,
    hypers: Sequence[Mapping[str, float]],
    *,
    drop_at: int | None = None,
    order: Sequence[int] = (),
) -> Tensor:
    tables = [update.coefficients(hyper, MULTIPLIERS) for hyper in hypers]
    params, gradient, lanes = start(update.layout, len(hypers)), noisy(update.layout), list(range(len(hypers)))
    state = update.init(params)
    assert state == {}
    for step in range(STEPS):
        if step == drop_at:
            params, lanes = params[list(order)], list(order)
            update.keep(order)
        c: dict[str, float | Tensor | Sequence[float]]
        if len(lanes) == 1:
            c = {name: float(values[step]) for name, values in tables[lanes[0]].items()}
        else:
            c = {name: [float(tables[k][name][step]) for k in lanes] for name in tables[0]}
        update.step(params, gradient(step, params), state, c, step)
    return params


@every_class
@pytest.mark.parametrize("decay", list(Decay))
def test_lanes_equal_single_runs_equal_the_optimizer_itself(name: str, decay: Decay) -> None:
    cls, kwargs = CLASSES[name]
    hypers = [{"lr": 1e-2 * (k + 1), "weight_decay": 0.1 * k} for k in range(3)]
    lanes = drive(ExternalUpdate(cls, kwargs, LAYOUT, decay=decay, clip_norm=1.0), hypers)
    for k, hyper in enumerate(hypers):
        single = drive(ExternalUpdate(cls, kwargs, LAYOUT, decay=decay, clip_norm=1.0), [hyper])
        assert largest(lanes[k : k + 1], single) <= 1e-14
    if decay is Decay.NONE:
        plain = drive(ExternalUpdate(cls, kwargs, LAYOUT), hypers[:1])
        own, _, _ = run_oracle(lambda p: cls(p, **kwargs), layout=LAYOUT, multipliers=MULTIPLIERS)
        assert largest(plain, own) <= 1e-14


def test_decay_outside_is_that_of_the_class() -> None:
    ours = drive(
        ExternalUpdate(torch.optim.AdamW, {}, LAYOUT_DECAY_ALL, decay=Decay.DECOUPLED),
        [{"lr": 1e-2, "weight_decay": 0.3}],
    )
    theirs, _, _ = run_oracle(
        lambda p: torch.optim.AdamW(p, weight_decay=0.3), layout=LAYOUT_DECAY_ALL, multipliers=MULTIPLIERS
    )
    assert largest(ours, theirs) <= 1e-14


@every_class
def test_dropping_permuting_and_doubling_lanes_changes_nothing(name: str) -> None:
    cls, kwargs = CLASSES[name]
    hypers = [{"lr": 1e-2 * (k + 1), "weight_decay": 0.0} for k in range(3)]
    whole = drive(ExternalUpdate(cls, kwargs, LAYOUT), hypers)
    dropped = drive(ExternalUpdate(cls, kwargs, LAYOUT), hypers, drop_at=20, order=(2, 0, 2))
    assert torch.equal(dropped, whole[[2, 0, 2]])


def test_bytes_of_state_are_counted() -> None:
    update = ExternalUpdate(torch.optim.Adam, {}, LAYOUT)
    drive(update, [{"lr": 1e-2}])
    numbers = 2 * LAYOUT.num_parameters * 8
    steps = 4 * len(LAYOUT.slots)  # Adam of torch keeps its step as a float32 tensor, per parameter
    assert update.state_bytes({}) == numbers + steps


def test_state_travels() -> None:
    first, second = (ExternalUpdate(torch.optim.Adam, {}, LAYOUT) for _ in range(2))
    params = drive(first, [{"lr": 1e-2}])
    other = params.clone()
    second.init(other)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for update, row in ((first, params), (second, other)):
        update.step(row, noisy(LAYOUT)(STEPS, row), {}, {"lr": 1e-2, "keep": 1.0, "l2": 0.0}, STEPS)
    assert torch.equal(params, other)


@pytest.mark.parametrize(
    ("cls", "kwargs", "decay", "match"),
    [
        (torch.nn.Linear, {}, Decay.NONE, "not a torch.optim.Optimizer class"),
        (len, {}, Decay.NONE, "not a torch.optim.Optimizer class"),
        (torch.optim.LBFGS, {}, Decay.NONE, "needs a closure"),
        (torch.optim.SparseAdam, {}, Decay.NONE, "can't take a plain step"),
        (torch.optim.Adagrad, {"epsilon": 1e-8}, Decay.NONE, "optimizer.epsilon is no argument"),
        (pytorch_optimizer.Lion, {"beta": 0.9}, Decay.NONE, "optimizer.beta is no argument"),
        (torch.optim.Adam, {"eps": -1.0}, Decay.NONE, "refuses its arguments"),
        (torch.optim.Adam, {"weight_decay": 0.1}, Decay.L2, "two decays"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(cls: Any, kwargs: Mapping[str, Any], decay: Decay, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        ExternalUpdate(cls, kwargs, LAYOUT, decay=decay)
    assert "\n" not in str(caught.value)


def test_a_model_that_the_class_refuses_is_one_line_too() -> None:
    update = ExternalUpdate(torch.optim.Muon, {}, LAYOUT)
    with pytest.raises(ValueError, match=r"optimizer: torch.*Muon refuses this model: .*only supports 2D") as caught:
        try_out(update, dtype=torch.float32, device=torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_that_takes_the_model_is_tried_out_without_a_word(dtype: torch.dtype) -> None:
    try_out(ExternalUpdate(torch.optim.NAdam, {}, LAYOUT, decay=Decay.L2), dtype=dtype, device=torch.device("cpu"))


def test_arguments_tell_external_optimizers_apart() -> None:
    keys = [
        ExternalUpdate(cls, kwargs, LAYOUT).identity
        for cls, kwargs in ((torch.optim.Adam, {}), (torch.optim.Adam, {"eps": 1e-6}), (torch.optim.NAdam, {}))
    ]
    assert keys[0] == ExternalUpdate(torch.optim.Adam, {}, LAYOUT).identity
    assert all(a != b for a, b in ((keys[0], keys[1]), (keys[0], keys[2]), (keys[1], keys[2])))
