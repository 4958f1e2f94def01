"""What every optimizer with a YAML has to hold to, alone and under every iterate."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from drive import LAYOUT, RuleEntry, defaults, largest, noisy, registry, run, start
from optsweep.optim.adam import Adam
from optsweep.optim.iterate import Iterate, Last, Past
from optsweep.optim.layout import Layout, Role, ShapeGroup
from optsweep.optim.muon import Orthogonalized
from optsweep.optim.partition import Partition
from optsweep.optim.rule import Domain, Rule
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import try_out

ENTRIES = registry()
ITERATES: dict[str, type[Iterate]] = {"last": Last, "schedule_free": ScheduleFree}
LANES = 4
MULTIPLIERS = Schedule("cosine", {"final": 0.1}, "linear", 10).multipliers(200, 200)

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=str)
every_iterate = pytest.mark.parametrize("iterate", ITERATES)


def update_of(
    entry: RuleEntry, iterate: str = "last", decay: Decay = Decay.DECOUPLED, clip_norm: float | None = 1.0
) -> Update:
    return Update(entry.rule(), LAYOUT, decay=decay, clip_norm=clip_norm, iterate=ITERATES[iterate]())


def different_hypers(update: Update) -> list[dict[str, float]]:
    """One setting per lane, every float different; towards the default's inside, so that all are valid."""
    hypers = []
    for k in range(LANES):
        shares = {
            name: 1 - (1 - d.default) * (1 + 0.1 * k) if d.default > 0.5 else d.default * (1 + 0.1 * k)
            for name, d in update.floats.items()
        }
        hypers.append(defaults(update.floats, lr=1e-3 * (1 + k), weight_decay=0.1 * k, **shares))
    return hypers


@every_entry
def test_yaml_names_every_float_with_its_default(entry: RuleEntry) -> None:
    assert {name: domain.default for name, domain in entry.cls.floats.items()} == dict(entry.floats)


@every_entry
@every_iterate
def test_lanes_equal_single_runs(entry: RuleEntry, iterate: str) -> None:
    update = update_of(entry, iterate)
    hypers = different_hypers(update)
    for num_steps, tolerance in ((1, 1e-12), (200, 1e-10)):
        lanes, _, _ = run(update, hypers, num_steps=num_steps, multipliers=MULTIPLIERS[:num_steps])
        for k, hyper in list(enumerate(hypers))[:: LANES - 1]:
            single, _, _ = run(
                update_of(entry, iterate), [hyper], num_steps=num_steps, multipliers=MULTIPLIERS[:num_steps]
            )
            assert largest(lanes[k : k + 1], single) <= tolerance


@every_entry
@every_iterate
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_lanes_nan_stays_there(entry: RuleEntry, iterate: str, value: float) -> None:
    hypers = different_hypers(update_of(entry, iterate))
    plain = noisy(LAYOUT)

    def poisoned(step: int, params: Tensor) -> Tensor:
        grads = plain(step, params)
        if step == 7:
            grads[1, 3] = value
        return grads

    healthy, healthy_state, _ = run(
        update_of(entry, iterate), hypers, num_steps=25, gradient=plain, multipliers=MULTIPLIERS[:25]
    )
    hurt, hurt_state, _ = run(
        update_of(entry, iterate), hypers, num_steps=25, gradient=poisoned, multipliers=MULTIPLIERS[:25]
    )
    others = [0, 2, 3]
    assert torch.equal(healthy[others], hurt[others])
    for name, tensor in healthy_state.items():
        assert torch.equal(tensor[others], hurt_state[name][others]), name


@every_entry
@every_iterate
def test_dropping_and_permuting_lanes_changes_nothing(entry: RuleEntry, iterate: str) -> None:
    hypers = different_hypers(update_of(entry, iterate))
    whole, _, _ = run(update_of(entry, iterate), hypers, num_steps=40, multipliers=MULTIPLIERS[:40])
    order = [2, 0]
    update = update_of(entry, iterate)
    tables = [update.coefficients(hyper, MULTIPLIERS[:40]) for hyper in hypers]
    params, gradient, lanes = start(LAYOUT, LANES), noisy(LAYOUT), list(range(LANES))
    state = update.init(params)
    for step in range(40):
        if step == 20:
            params, lanes = params[order], order
            state = {name: tensor[order] for name, tensor in state.items()}
        c = {name: torch.tensor([[tables[k][name][step]] for k in lanes], dtype=torch.float64) for name in tables[0]}
        update.step(params, gradient(step, params), state, c, step)
    assert torch.equal(params, whole[order])


@every_entry
@every_iterate
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_and_parameters_keep_their_type_and_lanes(entry: RuleEntry, iterate: str, dtype: torch.dtype) -> None:
    update = update_of(entry, iterate)
    hypers = different_hypers(update)
    params, state, c = run(
        update, hypers, num_steps=11, params=start(LAYOUT, LANES, dtype=dtype), multipliers=MULTIPLIERS[:11]
    )
    assert params.dtype == dtype
    assert torch.isfinite(params).all()
    assert all(tensor.shape[0] == LANES and tensor.dtype == dtype for tensor in state.values())
    weights = update.weights(params, state, c)
    assert weights.shape == params.shape


@every_entry
@every_iterate
@pytest.mark.parametrize("decay", list(Decay))
def test_every_decay_mode_shrinks_weights(entry: RuleEntry, iterate: str, decay: Decay) -> None:
    """With the same gradients, more decay ends at smaller weights; none at the same."""
    norms = []
    for weight_decay in (0.0, 0.05):
        update = update_of(entry, iterate, decay)
        params, state, c = run(
            update,
            [defaults(update.floats, weight_decay=weight_decay)],
            num_steps=20,
            gradient=lambda step, p: noisy(LAYOUT, pull=0.0)(step, p),
        )
        norms.append(float(update.weights(params, state, c)[:, : LAYOUT.decayed].norm()))
    assert norms[1] == norms[0] if decay is Decay.NONE else norms[1] < norms[0]


@every_entry
def test_undecayed_parameters_ignore_weight_decay(entry: RuleEntry) -> None:
    """Vectors and embeddings come behind `decayed`. Clipping is off: it would couple them through the norm."""
    ends = []
    for weight_decay in (0.0, 0.1):
        update = update_of(entry, clip_norm=None)
        params, _, _ = run(
            update, [defaults(update.floats, weight_decay=weight_decay)], num_steps=5, gradient=noisy(LAYOUT, pull=0.0)
        )
        ends.append(params[:, LAYOUT.decayed :])
    assert torch.equal(*ends)


@every_entry
@every_iterate
def test_coefficients_of_a_rung_are_those_of_the_whole_run(entry: RuleEntry, iterate: str) -> None:
    update = update_of(entry, iterate)
    hyper = defaults(update.floats, weight_decay=0.1)
    whole = update.coefficients(hyper, MULTIPLIERS)
    part = update.coefficients(hyper, MULTIPLIERS[100:150], Past().after(MULTIPLIERS[:100]))
    for name, values in part.items():
        assert np.array_equal(values, whole[name][100:150]), name


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.rule().has_momentum], ids=str)
def test_without_momentum_stores_no_first_moment(entry: RuleEntry) -> None:
    rule = entry.rule()
    params = start(LAYOUT)
    sizes = [sum(t.numel() for t in r.init(params, LAYOUT).values()) for r in (rule, rule.without_momentum())]
    assert sizes[1] < sizes[0]


# -- a rule keeps nothing ----------------------------------------------------------------------------------------------

OTHER = Layout.build(
    {"tall": (9, 2), "small": (2, 2), "kernel": (3, 2, 2, 1), "head": (2, 3), "bias": (3,)},
    {"tall": Role.HIDDEN, "small": Role.HIDDEN, "kernel": Role.CONV, "head": Role.HEAD, "bias": Role.VECTOR},
)


class Halves(Partition):
    """SOAP for hidden matrices, Adam for the rest."""

    floats: ClassVar[Mapping[str, Domain]] = {
        **SOAP.floats,
        "rest_lr_factor": Domain(0.0, 10.0, 0.5),
        **{f"rest_{name}": domain for name, domain in Adam.floats.items()},
    }

    def __init__(self) -> None:
        super().__init__({"main": SOAP(refresh=3), "rest": Adam()})

    def label(self, group: ShapeGroup) -> str:
        return "main" if group.role is Role.HIDDEN else "rest"


def alternately(first: Update, second: Update, lanes: int) -> list[Tensor]:
    """The ends of two trainings whose steps alternate."""
    updates, starts = (first, second), [start(u.layout, lanes) for u in (first, second)]
    hyper = [defaults(u.floats, weight_decay=0.1) for u in updates]
    tables = [u.coefficients(h, MULTIPLIERS[:15]) for u, h in zip(updates, hyper, strict=True)]
    states = [u.init(params) for u, params in zip(updates, starts, strict=True)]
    for step in range(15):
        for i, update in enumerate(updates):
            c = {name: float(values[step]) for name, values in tables[i].items()}
            update.step(starts[i], noisy(update.layout)(step, starts[i]), states[i], c, step)
    return starts


@pytest.mark.parametrize("rule", [*(entry.rule() for entry in ENTRIES), Halves()], ids=lambda rule: type(rule).__name__)
@every_iterate
def test_one_rule_object_serves_two_models_at_once(rule: Rule, iterate: str) -> None:
    before = pickle.dumps(rule)

    def update(layout: Layout, rule: Rule) -> Update:
        return Update(rule, layout, decay=Decay.DECOUPLED, iterate=ITERATES[iterate]())

    shared = alternately(update(LAYOUT, rule), update(OTHER, rule), lanes=2)
    assert pickle.dumps(rule) == before
    alone = alternately(update(LAYOUT, pickle.loads(before)), update(OTHER, pickle.loads(before)), lanes=2)
    for ours, theirs in zip(shared, alone, strict=True):
        assert torch.equal(ours, theirs)


def test_a_partition_s_rungs_suit_its_parts() -> None:
    assert Halves().period == 3


def test_a_rule_for_matrices_refuses_vectors() -> None:
    vectors = Layout.build({"bias": (3,)}, {"bias": Role.VECTOR})
    rule = Orthogonalized(True, 5, "match_adam", False)
    with pytest.raises(ValueError, match="no matrices"):
        rule.update(
            torch.ones(1, 16), rule.init(torch.ones(1, 16), vectors), torch.ones(1, 16), {"1-momentum": 0.1}, 0, vectors
        )


@every_entry
@every_iterate
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trying_out_leaves_nothing_behind(entry: RuleEntry, iterate: str, dtype: torch.dtype) -> None:
    update = update_of(entry, iterate)
    before = pickle.dumps(update)
    try_out(update, dtype=dtype, device=torch.device("cpu"))
    assert pickle.dumps(update) == before
