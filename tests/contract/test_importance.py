"""Shares of explained variance: known functions, and what can't be said."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

from optsweep.report import importance as importance_module
from optsweep.report.importance import importance

RNG = np.random.default_rng(0)
LR, DECAY, NOTHING = RNG.uniform(-4, -1, 40).tolist(), RNG.uniform(-3, 0, 40).tolist(), RNG.uniform(0, 1, 40).tolist()


def test_the_one_that_matters_has_the_share() -> None:
    losses = [(lr + 2) ** 2 + 0.1 * decay for lr, decay in zip(LR, DECAY, strict=True)]
    found = importance({"lr": LR, "weight_decay": DECAY, "nothing": NOTHING, "fixed": [1.0] * 40}, losses)
    assert list(found) == ["lr", "weight_decay", "nothing", "fixed"]
    assert found["lr"] > 0.8
    assert found["nothing"] < 0.1
    assert found["fixed"] == 0
    assert sum(found.values()) <= 1 + 1e-9
    assert importance({"lr": LR, "weight_decay": DECAY, "nothing": NOTHING, "fixed": [1.0] * 40}, losses) == found


@pytest.mark.parametrize("count", [8, 40, 150])
def test_shares_are_those_of_optuna(count: int) -> None:
    rng = np.random.default_rng(count)
    columns = {name: rng.uniform(-4, 1, count).tolist() for name in ("lr", "weight_decay", "beta1")}
    lr, decay, _ = (np.array(column) for column in columns.values())
    losses = ((lr + 2) ** 2 + 0.3 * lr * decay + 0.1 * rng.normal(size=count)).tolist()
    study = optuna.create_study()
    ranges = {name: FloatDistribution(min(column), max(column)) for name, column in columns.items()}
    for place, loss in enumerate(losses):
        params = {name: column[place] for name, column in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=dict(ranges), value=loss))
    theirs = FanovaImportanceEvaluator(seed=importance_module._SEED).evaluate(study, params=list(columns))
    assert importance(columns, losses) == pytest.approx(theirs, rel=1e-9)


def test_two_that_matter_alike_have_like_shares() -> None:
    grid = [(x, y) for x in np.linspace(0, 1, 8) for y in np.linspace(0, 1, 8)]
    found = importance({"x": [x for x, _ in grid], "y": [y for _, y in grid]}, [x + y for x, y in grid])
    assert found["x"] == pytest.approx(found["y"], abs=0.1)  # the truth is one half each
    assert found["x"] == pytest.approx(0.5, abs=0.1)


def test_diverged_counts_as_the_worst() -> None:
    losses = [(lr + 2) ** 2 if lr < -1.5 else math.inf for lr in LR]
    worst = max(loss for loss in losses if math.isfinite(loss))
    capped = [min(loss, worst) for loss in losses]
    params = {"lr": LR, "weight_decay": DECAY}
    assert importance(params, losses) == importance(params, capped)


def test_nothing_is_said_of_nothing() -> None:
    assert importance({"lr": LR[:7]}, LR[:7]) == {}
    assert importance({"lr": LR}, [math.inf] * 40) == {}
    assert importance({"lr": LR}, [1.0] * 40) == {}
    assert importance({}, LR) == {}
    with pytest.raises(ValueError, match="lr has 40 values"):
        importance({"lr": LR}, LR[:39])
    with pytest.raises(ValueError, match="not finite"):
        importance({"lr": [-math.inf, *LR[1:]]}, LR)
