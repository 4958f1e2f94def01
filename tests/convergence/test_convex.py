"""Every optimizer × schedule lowers a convex loss, and stays finite: at the level of an update, in float64, 80 steps.

The modes of decay go round over the table, so that each meets every optimizer and every schedule; the whole product is
in tests/convergence/test_cross_product.py, through the door and the training loop.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from drive import RuleEntry, defaults, registry, run
from optsweep.optim.averaging import EMA, LAWA
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import Layout, Role
from optsweep.optim.schedules import Option, Schedule, schedule_names, traits_of
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
MODES = list(Decay)
COVERING = [
    (entry, name, MODES[(i + j) % len(MODES)])
    for i, entry in enumerate(ENTRIES)
    for j, name in enumerate(schedule_names())
]


def loss(params: Tensor) -> float:
    """½ Σ sθ²."""
    return float((0.5 * SCALES * params**2).sum())


def options(name: str) -> dict[str, Option]:
    return {"time_scale": 10} if name == "inverse_sqrt" else {}


def train(entry: RuleEntry, iterate: Iterate, decay: Decay, schedule: Schedule) -> Tensor:
    update = Update(entry.rule(), LAYOUT, decay=decay, iterate=iterate)
    hyper = defaults(update.floats, lr=LEARNING_RATES.get(entry.name, 0.01), weight_decay=1e-3)
    multipliers = schedule.multipliers(STEPS, STEPS)
    params, state, c = run(
        update, [hyper], num_steps=STEPS, params=START, gradient=lambda step, p: SCALES * p, multipliers=multipliers
    )
    return update.weights(params, state, c)


def test_every_decay_mode_meets_every_optimizer_and_every_schedule() -> None:
    assert {(entry.name, decay) for entry, _, decay in COVERING} == {(e.name, d) for e in ENTRIES for d in MODES}
    assert {(name, decay) for _, name, decay in COVERING} == {(n, d) for n in schedule_names() for d in MODES}


@pytest.mark.parametrize(("entry", "name", "decay"), COVERING, ids=str)
def test_every_optimizer_under_every_schedule_lowers_a_convex_loss(entry: RuleEntry, name: str, decay: Decay) -> None:
    traits = traits_of(name)
    warmup = ("none", 0) if traits.own_warmup else ("linear", 5)
    end = train(entry, (traits.iterate or Last)(), decay, Schedule(name, options(name), *warmup))
    assert np.isfinite(loss(end))
    assert loss(end) < (0.97 if entry.name == "adadelta" else 0.7) * loss(START)  # AdaDelta's first steps are √ε long


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
@pytest.mark.parametrize("iterate", [EMA(), LAWA()], ids=["ema", "lawa"])
def test_averages_lower_it_too(entry: RuleEntry, iterate: Iterate) -> None:
    end = train(entry, iterate, Decay.DECOUPLED, Schedule("cosine"))
    assert loss(end) < (0.97 if entry.name == "adadelta" else 0.9) * loss(START)
