"""What every optimizer with a YAML has to hold to, alone and under every iterate."""

import math

import numpy as np
import pytest
import torch

from drive import LAYOUT, defaults, largest, noisy, registry, run, start
from optsweep.optim.iterate import Last
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.update import Decay, Update

ENTRIES = registry()
ITERATES = {"last": Last, "schedule_free": ScheduleFree}
LANES = 4
MULTIPLIERS = Schedule("cosine", {"final": 0.1}, "linear", 10).multipliers(200, 200)

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=str)
every_iterate = pytest.mark.parametrize("iterate", ITERATES)


def update_of(entry, iterate="last", decay=Decay.DECOUPLED, clip_norm=1.0):
    return Update(entry.rule(), LAYOUT, decay=decay, clip_norm=clip_norm, iterate=ITERATES[iterate]())


def different_hypers(update):
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
def test_yaml_names_every_float_with_its_default(entry):
    assert {name: domain.default for name, domain in entry.cls.floats.items()} == dict(entry.floats)


@every_entry
@every_iterate
def test_lanes_equal_single_runs(entry, iterate):
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
def test_a_lanes_nan_stays_there(entry, iterate, value):
    hypers = different_hypers(update_of(entry, iterate))
    plain = noisy(LAYOUT)

    def poisoned(step, params):
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
def test_dropping_and_permuting_lanes_changes_nothing(entry, iterate):
    hypers = different_hypers(update_of(entry, iterate))
    whole, _, _ = run(update_of(entry, iterate), hypers, num_steps=40, multipliers=MULTIPLIERS[:40])
    order = [2, 0]
    update = update_of(entry, iterate)
    tables = [update.coefficients(hyper, MULTIPLIERS[:40], 0) for hyper in hypers]
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
def test_state_and_parameters_keep_their_type_and_lanes(entry, iterate, dtype):
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
def test_every_decay_mode_shrinks_weights(entry, iterate, decay):
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
def test_undecayed_parameters_ignore_weight_decay(entry):
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
def test_coefficients_of_a_rung_are_those_of_the_whole_run(entry, iterate):
    update = update_of(entry, iterate)
    hyper = defaults(update.floats, weight_decay=0.1)
    whole = update.coefficients(hyper, MULTIPLIERS, 0)
    part = update.coefficients(hyper, MULTIPLIERS[:150], 100)
    for name, values in part.items():
        assert np.array_equal(values, whole[name][100:150]), name


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.rule().has_momentum], ids=str)
def test_without_momentum_stores_no_first_moment(entry):
    rule = entry.rule()
    params = start(LAYOUT)
    sizes = [sum(t.numel() for t in r.init(params, LAYOUT).values()) for r in (rule, rule.without_momentum())]
    assert sizes[1] < sizes[0]
