"""Averages of weights: EMA against torch.optim.swa_utils, LAWA against its definition, float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from drive import LAYOUT, coefficients, defaults, largest, noisy, run, start
from optsweep.optim.adam import Adam
from optsweep.optim.averaging import EMA, LAWA
from optsweep.optim.iterate import Iterate
from optsweep.optim.rule import Rule, State
from optsweep.optim.sgd import Momentum
from optsweep.optim.update import Decay, Update

STEPS = 60


def path_of(rule: Rule) -> list[Tensor]:
    """Parameters after every step of the plain descent."""
    path: list[Tensor] = []
    update = Update(rule, LAYOUT, decay=Decay.DECOUPLED)
    run(
        update,
        [defaults(update.floats, weight_decay=0.1)],
        each=lambda step, params, state: path.append(params.clone()),
    )
    return path


def averages_of(iterate: Iterate, rule: Rule, **hyper: float) -> tuple[list[Tensor], Tensor]:
    """What one would ship after every step, and the last parameters."""
    update = Update(rule, LAYOUT, decay=Decay.DECOUPLED, iterate=iterate)
    hypers = defaults(update.floats, weight_decay=0.1, **hyper)
    table = update.coefficients(hypers, np.ones(STEPS))
    averages: list[Tensor] = []

    def record(step: int, params: Tensor, state: State) -> None:
        averages.append(update.weights(params, state, coefficients([table], step, params.dtype)).clone())

    params, _, _ = run(update, [hypers], each=record)
    return averages, params


@pytest.mark.parametrize("rule", [Momentum, Adam])
def test_ema_equals_torch(rule: type[Rule]) -> None:
    path = path_of(rule())
    averages, params = averages_of(EMA(debias=False), rule(), ema_decay=0.9)
    module = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    module.weight = torch.nn.Parameter(path[0].clone())
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for theirs, ours in zip(path, averages, strict=True):
        module.weight.data.copy_(theirs)
        averaged.update_parameters(module)
        assert largest(next(averaged.parameters()), ours) <= 1e-14
    assert torch.equal(params, path[-1])


def test_debiased_ema_is_the_weighted_mean() -> None:
    path = path_of(Adam())
    averages, _ = averages_of(EMA(), Adam(), ema_decay=0.9)
    weights = 0.9 ** np.arange(STEPS)[::-1]
    mean = sum(w * p for w, p in zip(weights, path, strict=True)) / weights.sum()
    assert largest(averages[-1], mean) <= 1e-13
    assert torch.equal(averages[0], path[0])


def test_lawa_is_the_mean_of_the_latest_checkpoints() -> None:
    path = path_of(Adam())
    averages, params = averages_of(LAWA(window=3, every=7), Adam())
    assert torch.equal(params, path[-1])
    for step, average in enumerate(averages):
        taken = [path[s] for s in range(6, step + 1, 7)][-3:] or [path[step]]
        assert largest(average, torch.stack(taken).mean(0)) <= 1e-14


@pytest.mark.parametrize("iterate", [EMA(), LAWA(window=2, every=5)], ids=["ema", "lawa"])
def test_lanes_equal_single_runs_and_dropping_changes_nothing(iterate: Iterate) -> None:
    hypers = [defaults({**Adam.floats, **iterate.floats}, lr=1e-3 * (k + 1)) for k in range(3)]
    update = Update(Adam(), LAYOUT, iterate=iterate)
    whole = update.weights(*run(update, hypers))
    single = update.weights(*run(update, [hypers[2]]))
    assert largest(whole[2:], single) <= 1e-12
    tables = [update.coefficients(hyper, np.ones(STEPS)) for hyper in hypers]
    params, lanes, gradient = start(LAYOUT, 3), [0, 1, 2], noisy(LAYOUT)
    state = update.init(params)
    for step in range(STEPS):
        if step == 20:
            params, lanes = params[[2, 0]], [2, 0]
            state = {name: tensor[[2, 0]] for name, tensor in state.items()}
        c = coefficients([tables[k] for k in lanes], step, params.dtype)
        update.step(params, gradient(step, params), state, c, step)
    assert torch.equal(update.weights(params, state, c), whole[[2, 0]])


def test_lanes_start_where_the_ring_of_checkpoints_does() -> None:
    """So the ring of checkpoints is summed up in the same order in all."""
    assert Update(Adam(), LAYOUT, iterate=LAWA(window=4, every=6)).period == 24


@pytest.mark.parametrize("options", [{"window": 0}, {"every": 0}, {"every": 0.5}])
def test_lawa_refuses_what_is_no_count(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="whole number"):
        LAWA(**options)
