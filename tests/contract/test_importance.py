"""Shares of explained variance: known functions, and what can't be said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optsweep.inference.importance import importance

RNG = np.random.default_rng(0)
LR, DECAY, NOTHING = RNG.uniform(-4, -1, 60).tolist(), RNG.uniform(-3, 0, 60).tolist(), RNG.uniform(0, 1, 60).tolist()


def test_the_one_that_matters_has_the_share() -> None:
    losses = [(lr + 2) ** 2 + 0.1 * decay for lr, decay in zip(LR, DECAY, strict=True)]
    found = importance({"lr": LR, "weight_decay": DECAY, "nothing": NOTHING, "fixed": [1.0] * 60}, losses)
    assert list(found) == ["lr", "weight_decay", "nothing", "fixed"]
    assert found["lr"] > 0.8
    assert found["nothing"] < 0.1
    assert found["fixed"] == 0
    assert sum(found.values()) <= 1 + 1e-9
    assert importance({"lr": LR, "weight_decay": DECAY, "nothing": NOTHING, "fixed": [1.0] * 60}, losses) == found


@pytest.mark.parametrize("count", [100, 300])
def test_shares_of_a_sum_are_those_of_its_terms_variances(count: int) -> None:
    rng = np.random.default_rng(count)
    lr, decay = rng.uniform(0, 1, count), rng.uniform(0, 1, count)
    found = importance({"lr": lr.tolist(), "decay": decay.tolist()}, (2 * lr + decay).tolist())
    assert found == pytest.approx({"lr": 0.8, "decay": 0.2}, abs=0.06)  # 2² : 1²


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
    assert importance({"lr": LR[:49]}, LR[:49]) == {}
    assert importance({"lr": LR}, [math.inf] * 60) == {}
    assert importance({"lr": LR}, [1.0] * 60) == {}
    assert importance({}, LR) == {}
    flat = [0.5 + 1e-9 * (lr + 2) ** 2 for lr in LR]  # too close for a tree to split
    assert importance({"lr": LR, "weight_decay": DECAY}, flat) == {"lr": 0, "weight_decay": 0}
    with pytest.raises(ValueError, match="lr has 60 values"):
        importance({"lr": LR}, LR[:59])
    with pytest.raises(ValueError, match="not finite"):
        importance({"lr": [-math.inf, *LR[1:]]}, LR)
