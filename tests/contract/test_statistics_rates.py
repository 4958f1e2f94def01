"""Coverage and false positives by simulation, where the truth is known: a short form of docs/statistics.md's tables."""

from __future__ import annotations

import math
from collections.abc import Callable

import error_rates
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from optsweep.inference import statistics
from optsweep.inference.looks import LOOKS, nominal_level

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

NOISES: dict[str, Draw] = {  # of mean 0 and variance 1
    "normal": lambda rng, size: rng.standard_normal(size),
    "t3": lambda rng, size: rng.standard_t(3, size) / math.sqrt(3),
    "skewed": lambda rng, size: (rng.lognormal(0, 0.5, size) - math.exp(0.125)) / 0.6039,
}


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_what_it_says(noise: str) -> None:
    values = NOISES[noise](np.random.default_rng(0), (400_000,))
    assert (values.mean(), values.std()) == pytest.approx((0, 1), abs=0.03)


@pytest.mark.parametrize(("noise", "least"), [("normal", 0.935), ("t3", 0.935), ("skewed", 0.90)])
@pytest.mark.parametrize("n", [5, 8, 20])
def test_the_t_interval_covers(noise: str, n: int, least: float) -> None:
    """Skewed differences cost up to four points, which docs/statistics.md says."""
    rows = NOISES[noise](np.random.default_rng([1, n]), (2_000, n))
    found = [statistics.mean_interval(row) for row in rows]
    assert least <= np.mean([r.low <= 0 <= r.high for r in found if r.low is not None and r.high is not None]) <= 0.985


@pytest.mark.parametrize("noise", ["normal", "t3"])
@pytest.mark.parametrize("n", [8, 10])
def test_the_sign_flip_test_is_exact_for_symmetric_differences(noise: str, n: int) -> None:
    rows = NOISES[noise](np.random.default_rng([2, n]), (1_000, n))
    assert 0.03 <= np.mean([statistics.sign_flip(row) <= 0.05 for row in rows]) <= 0.065


@pytest.mark.parametrize("noise", NOISES)
def test_equal_is_rarely_said_at_the_boundary(noise: str) -> None:
    rows = 2 + NOISES[noise](np.random.default_rng(3), (1_000, 8))
    said = [
        r.low is not None and r.high is not None and r.low > -2 and r.high < 2
        for r in map(statistics.mean_interval, rows)
    ]
    p = [statistics.equivalence(row, 2.0) for row in rows]
    if noise != "skewed":
        assert np.mean(said) <= 0.04
        assert np.mean([value is not None and value < 0.05 for value in p]) <= 0.065
    assert all(value is not None and value < 0.05 for value, equal in zip(p, said, strict=True) if equal)


@pytest.mark.parametrize("noise", NOISES)
def test_holm_over_three_keeps_the_family_wise_error(noise: str) -> None:
    seeds = NOISES[noise](np.random.default_rng(4), (1_000, 4, 8))
    found = [[statistics.paired_t(candidate - arms[0]).p for candidate in arms[1:]] for arms in seeds]
    assert np.mean([min(statistics.holm([p for p in row if p is not None])) < 0.05 for row in found]) <= 0.065


@pytest.mark.parametrize("noise", ["normal", "t3"])
def test_planned_looks_keep_the_level_and_naive_ones_do_not(noise: str) -> None:
    rows = NOISES[noise](np.random.default_rng(5), (10_000, LOOKS[-1]))
    p = {n: np.asarray(stats.ttest_1samp(rows[:, :n], 0.0, axis=1).pvalue) for n in range(LOOKS[0], LOOKS[-1] + 1)}
    planned = np.mean(np.any([p[n] < nominal_level() for n in LOOKS], axis=0))
    naive = np.mean(np.any([found < 0.05 for found in p.values()], axis=0))
    assert planned <= 0.065
    assert naive >= 0.12


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_the_probability_of_being_better_covers(n: int, shift: int) -> None:
    """Independent normal runs; with pairs the interval is wide, never too bold."""
    rng = np.random.default_rng([6, n, shift])
    truth = stats.norm.cdf(shift / math.sqrt(2))
    found = [statistics.probability_better(*rng.standard_normal((2, n)) - [[shift], [0]]) for _ in range(1_000)]
    assert np.mean([r.low <= truth <= r.high for r in found if r.low is not None and r.high is not None]) >= 0.925
    wide = []
    for _ in range(300):
        shared = rng.standard_normal(n)
        a, b = ((shared + rng.standard_normal(n)) / math.sqrt(2) for _ in range(2))
        r = statistics.probability_better(a, b + shift)
        wide.append(r.low is not None and r.high is not None and r.low <= truth <= r.high)
    assert np.mean(wide) >= 0.95


def test_the_probability_of_winning_every_time_has_an_interval() -> None:
    found = statistics.probability_better([1, 1, 1, 1, 1], [2, 2, 2, 2, 2])
    lost = statistics.probability_better([2, 2, 2, 2, 2], [1, 1, 1, 1, 1])
    assert (found.estimate, found.high) == (1, 1)
    assert (lost.estimate, lost.low) == (0, 0)
    assert found.low is not None
    assert lost.high == pytest.approx(1 - found.low)
    assert 0.4 < found.low < 0.8
    n, z, low = 5, 1.959964, found.low
    variance = low * (1 - low) / n**2 * (1 + (n - 1) * ((1 - low) / (2 - low) + low / (1 + low)))
    assert 1 - low == pytest.approx(z * math.sqrt(variance), rel=1e-5)
    assert statistics.probability_better([1.0], [2.0]) == statistics.Interval(1.0, None, None, 1)


def test_seconds_are_steps_times_milliseconds() -> None:
    steps = statistics.median_interval([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, math.inf, math.inf])
    found = statistics.seconds_ratio(steps, 2.0)
    assert (found.estimate, found.low, found.high, found.n) == pytest.approx((1.7, 1.0, math.inf, 8))
    assert statistics.seconds_ratio(statistics.Interval(math.inf, None, None, 3), 0.5) == statistics.Interval(
        math.inf, None, None, 3
    )
    with pytest.raises(ValueError, match="> 0"):
        statistics.seconds_ratio(steps, 0.0)


def test_the_page_states_the_real_runs_that_are_kept() -> None:
    assert not error_rates.stale(), "run `python docs/error_rates.py --runs`"


@pytest.mark.parametrize("noise", ["normal", "t3", "skewed", "very skewed"])
def test_the_pages_noise_is_what_it_says(noise: str) -> None:
    values = error_rates.NOISES[noise](np.random.default_rng(0), (1_000_000,))
    assert (values.mean(), values.std()) == pytest.approx((0, 1), abs=0.03)
