"""Every optimizer × schedule × decay mode lowers a convex loss, and stays finite."""

import numpy as np
import pytest
import torch

from drive import defaults, registry, run
from optsweep.optim.averaging import EMA, LAWA
from optsweep.optim.iterate import Last
from optsweep.optim.layout import Layout, Role
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule, schedule_names
from optsweep.optim.update import Decay, Update

LAYOUT = Layout.build(
    {"hidden": (4, 4), "head": (2, 4), "bias": (4,)}, {"hidden": Role.HIDDEN, "head": Role.HEAD, "bias": Role.VECTOR}
)
STEPS = 80
SCALES = torch.linspace(0.3, 3.0, LAYOUT.size, dtype=torch.float64)
START = torch.full((1, LAYOUT.size), 0.5, dtype=torch.float64)
START[:, [*range(24, 32)]] = -0.5
LEARNING_RATES = {"sgd": 0.1, "momentum": 0.02, "nesterov": 0.02, "adadelta": 1.0, "adagrad": 0.1, "muon": 0.02}

ENTRIES = registry()


def loss(params):
    """½ Σ sθ²."""
    return float((0.5 * SCALES * params**2).sum())


def options(name):
    return {"time_scale": 10} if name == "inverse_sqrt" else {}


def train(entry, iterate, decay, schedule):
    update = Update(entry.rule(), LAYOUT, decay=decay, iterate=iterate)
    hyper = defaults(update.floats, lr=LEARNING_RATES.get(entry.name, 0.01), weight_decay=1e-3)
    multipliers = schedule.multipliers(STEPS, STEPS)
    params, state, c = run(
        update, [hyper], num_steps=STEPS, params=START, gradient=lambda step, p: SCALES * p, multipliers=multipliers
    )
    return update.weights(params, state, c)


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
@pytest.mark.parametrize("decay", list(Decay))
@pytest.mark.parametrize("name", schedule_names())
def test_the_cross_product_lowers_a_convex_loss(entry, decay, name):
    warmup = ("none", 0) if name == "one_cycle" else ("linear", 5)
    iterate = ScheduleFree() if name == "schedule_free" else Last()
    end = train(entry, iterate, decay, Schedule(name, options(name), *warmup))
    assert np.isfinite(loss(end))
    assert loss(end) < (0.97 if entry.name == "adadelta" else 0.7) * loss(START)  # AdaDelta's first steps are √ε long


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
@pytest.mark.parametrize("iterate", [EMA(), LAWA()], ids=["ema", "lawa"])
def test_averages_lower_it_too(entry, iterate):
    end = train(entry, iterate, Decay.DECOUPLED, Schedule("cosine"))
    assert loss(end) < (0.97 if entry.name == "adadelta" else 0.9) * loss(START)
