"""Outlying seeds and skew: found where they are, in 1 % of even differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from optsweep.inference.comparison import Conclusion, judge
from optsweep.inference.looks import LOOKS, Level
from optsweep.inference.steadiness import outlying, skewed, steady

EVEN = [-0.11, -0.09, -0.105, -0.095, -0.1, -0.102, -0.098, -0.103]


def held(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_seed_that_lies_apart_is_named() -> None:
    assert outlying(held(*EVEN)) == ()
    assert outlying(held(*EVEN[:7], 0.4)) == (7,)
    assert outlying(held(0.4, *EVEN[1:7], 0.4)) == (0, 7)  # they hide each other from the mean, not from the median
    assert outlying(held(*EVEN[:4], 0.4)) == (4,)
    assert outlying(held(*EVEN[:3], 0.4)) == ()
    assert outlying(held(*[0.1] * 8)) == ()


@pytest.mark.parametrize("n", [5, 8, 20])
def test_even_differences_are_rarely_called_uneven(n: int) -> None:
    rng = np.random.default_rng(n)
    rows = [held(*row) for row in rng.normal(size=(1_000, n))]
    assert np.mean([bool(outlying(row)) for row in rows]) < 0.03
    assert np.mean([skewed(row) for row in rows]) < 0.03


@pytest.mark.parametrize(("n", "share"), [(5, 0.48), (8, 0.98)])
def test_a_difference_ten_standard_deviations_out_is_seen_as_often_as_the_page_says(n: int, share: float) -> None:
    away = np.eye(1, n)[0] * 10
    rows = [held(*(row + away)) for row in np.random.default_rng(n).normal(size=(1_000, n))]
    assert np.mean([0 in outlying(row) for row in rows]) == pytest.approx(share, abs=0.04)


def test_auto_goes_on_where_a_seed_decides() -> None:
    class Seeds:
        diverged_seeds = 0
        test_blocks: Mapping[int, Sequence[float]] = {}

        def __init__(self, losses: dict[int, float]) -> None:
            self.test_losses = losses

    def found(*values: float) -> tuple[Conclusion, bool]:
        baseline = Seeds(dict.fromkeys(range(len(values)), 2.0))
        (one,) = judge([Seeds({k: 2 + v for k, v in enumerate(values)})], baseline, Level.of(LOOKS), None)
        return one.outcome, one.decided

    assert found(*EVEN[:5]) == (Conclusion.BETTER, True)
    uneven = (*EVEN[:4], -0.25)
    assert not steady(held(*uneven))
    assert found(*uneven) == (Conclusion.BETTER, False)
