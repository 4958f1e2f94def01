"""Memory of every rule against its formula: numbers of state per parameter."""

from __future__ import annotations

import pytest

from drive import RuleEntry, registry, start
from optsweep.optim.iterate import Last
from optsweep.optim.layout import Layout, Role
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.update import Update

M, N = 16, 32
LAYOUT = Layout.build({"w": (M, N)}, {"w": Role.HIDDEN})
MATRIX = M * N

FORMULAS = {  # (as it is, without its momentum)
    "sgd": (0, 0),
    "momentum": (MATRIX, 0),
    "nesterov": (MATRIX, 0),
    "adagrad": (MATRIX, MATRIX),
    "rmsprop": (MATRIX, MATRIX),
    "adadelta": (2 * MATRIX, 2 * MATRIX),
    "adam": (2 * MATRIX, MATRIX),
    "adamw": (2 * MATRIX, MATRIX),
    "lion": (MATRIX, 0),
    "lamb": (2 * MATRIX, MATRIX),
    "soap": (2 * M * M + 2 * N * N + 2 * MATRIX, 2 * M * M + 2 * N * N + MATRIX),
    "muon": (MATRIX, 0),
}


@pytest.mark.parametrize("entry", registry(), ids=str)
@pytest.mark.parametrize("averaged", [False, True], ids=["last", "schedule_free"])
def test_state_is_what_the_formula_says(entry: RuleEntry, averaged: bool) -> None:
    update = Update(entry.rule(), LAYOUT, iterate=ScheduleFree() if averaged else Last())
    numbers = sum(tensor.numel() for tensor in update.init(start(LAYOUT)).values())
    own, without_momentum = FORMULAS[entry.name]
    assert numbers == (without_momentum + MATRIX if averaged else own)
