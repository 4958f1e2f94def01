"""The report's statistics against known answers, other implementations, and simulation where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from optsweep.inference import statistics
from optsweep.inference.tuning import best_of
from optsweep.report import wording

SLEEP = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]  # Student 1908, first drug
OTHER = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]  # second drug


def test_paired_t_is_students_own_example() -> None:
    found = statistics.paired_t(np.subtract(SLEEP, OTHER))
    # R: t.test(extra ~ group, data = sleep, paired = TRUE)
    assert found.mean == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert found.p == pytest.approx(0.00283289, abs=1e-8)
    assert found.n == 10
    assert found.p == pytest.approx(stats.ttest_rel(SLEEP, OTHER).pvalue)


@pytest.mark.parametrize("same", [[0.0, 0.0, 0.0], [0.25] * 5, [0.3 - 0.1, 0.2, 0.4 - 0.2]])
def test_without_variance_there_is_a_difference_but_no_interval(same: list[float]) -> None:
    found = statistics.paired_t(same)
    assert found.zero_variance
    assert found.mean == pytest.approx(same[0])
    assert found.low is found.high is found.p is None


def test_tiny_losses_have_a_variance_and_large_ones_a_rounding() -> None:
    tiny = [1e-17, 3e-17, 2e-17, 5e-17]
    assert statistics.paired_t(tiny, scale=1e-16).p == pytest.approx(statistics.paired_t([1.0, 3.0, 2.0, 5.0]).p)
    assert statistics.mean_interval(tiny).low is not None
    assert statistics.equivalence(tiny, 1e-16) is not None
    assert statistics.paired_t(tiny, scale=1.0).zero_variance
    assert statistics.equivalence(tiny, 1e-16, scale=1.0) is None
    assert statistics.bca_interval(tiny * 5).low is not None
    assert statistics.bca_interval(tiny * 5, scale=1.0).low is None


def test_tiny_numbers_are_written_as_powers_of_ten() -> None:
    assert wording.plus_minus(statistics.Interval(2.8e-17, 0.5e-17, 5.1e-17, 4)) == "2.8×10⁻¹⁷ ± 2.3×10⁻¹⁷"
    assert (
        wording.plus_minus_difference(statistics.PairedT(-2e-12, -3e-12, -1e-12, 0.01, 4, False))
        == "−2.0×10⁻¹² ± 1.0×10⁻¹²"
    )
    assert wording.plus_minus(statistics.Interval(2.0513, 2.0421, 2.0605, 8)) == "2.0513 ± 0.0092"


def test_no_difference_is_a_rounded_zero_with_a_sign() -> None:
    def told(mean: float) -> str:
        return wording.plus_minus_difference(statistics.PairedT(mean, mean - 0.12, mean + 0.12, 0.7, 2, False))

    assert [told(mean) for mean in (-0.0047, 0.03, -0.0002)] == ["−0.005 ± 0.12", "+0.03 ± 0.12", "0.00 ± 0.12"]


def test_an_uncertainty_of_float32_s_rounding_leaves_no_ten_digits() -> None:
    assert wording.plus_minus(statistics.Interval(0.97771587746, 0.97771587711, 0.97771587781, 2)) == "0.9777 ± 0.0000"


def test_one_pair_has_no_interval_and_is_not_called_without_variance() -> None:
    found = statistics.paired_t([0.1])
    assert (found.low, found.p, found.zero_variance) == (None, None, False)


def test_diverged_values_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        statistics.paired_t([0.1, math.inf])


def test_holm_known_answer() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([]) == []


def test_sign_flip_is_darwins_maize() -> None:
    # Fisher 1935, The Design of Experiments, section 21: 1726 of 32768 at least as extreme
    maize = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert statistics.sign_flip(maize) == pytest.approx(1726 / 32768)


def test_sign_flip_smallest_p_and_drawn_patterns() -> None:
    assert statistics.sign_flip([0.1] * 8) == pytest.approx(2 / 2**8)
    many = np.random.default_rng(0).normal(0.5, 1, 30)
    assert statistics.sign_flip(many) == pytest.approx(statistics.paired_t(many).p, abs=0.01)
    assert statistics.sign_flip(many) == statistics.sign_flip(many)


def test_equivalence_matches_two_one_sided_tests() -> None:
    values = np.random.default_rng(1).normal(0.01, 0.05, 12)
    upper = stats.ttest_1samp(values, 0.1, alternative="less").pvalue
    lower = stats.ttest_1samp(values, -0.1, alternative="greater").pvalue
    assert statistics.equivalence(values, 0.1) == pytest.approx(max(upper, lower))
    assert statistics.equivalence([0.0, 0.0], 0.1) is None
    with pytest.raises(ValueError, match="delta"):
        statistics.equivalence(values, 0.0)


def test_bca_only_from_twenty_values() -> None:
    values = np.random.default_rng(2).normal(1, 1, 40)
    assert statistics.bca_interval(values[:19]).low is None
    found, t = statistics.bca_interval(values), statistics.mean_interval(values)
    assert found.low is not None
    assert t.low is not None
    assert found.low == pytest.approx(t.low, abs=0.06)
    assert found == statistics.bca_interval(values)


@pytest.mark.parametrize(("n", "place"), [(5, None), (6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (30, 10)])
def test_median_interval_has_the_ranks_of_the_table(n: int, place: int | None) -> None:
    # Conover 1999, table A3: the order statistics of a 95 % interval of the median
    found = statistics.median_interval(np.arange(1, n + 1))
    assert found.estimate == pytest.approx((n + 1) / 2)
    assert (found.low, found.high) == ((None, None) if place is None else (place, n + 1 - place))


def test_median_interval_with_censored_values() -> None:
    found = statistics.median_interval([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, math.inf, math.inf])
    assert found.estimate == pytest.approx(0.85)
    assert (found.low, found.high) == (0.5, math.inf)
    assert statistics.median_interval([0.5, math.inf]).estimate == math.inf
    assert statistics.median_interval([math.inf] * 6) == statistics.Interval(math.inf, math.inf, math.inf, 6)


def test_ratios_that_are_all_known_have_the_t_interval_of_their_logarithms() -> None:
    ratios = [0.5, 0.6, 0.7]
    logs = statistics.mean_interval(np.log(ratios))
    found = statistics.ratio_interval(ratios)
    assert logs.low is not None
    assert (found.estimate, found.low) == (math.exp(logs.estimate), math.exp(logs.low))
    assert statistics.ratio_interval([0.5, math.inf, 0.7]) == statistics.median_interval([0.5, math.inf, 0.7])
    assert statistics.ratio_interval([0.5] * 6).low is None  # without variance


def test_steps_to_target_needs_two_rungs() -> None:
    steps = [10, 20, 30, 40, 50]
    assert statistics.steps_to_target(steps, [3, 2, 1, 1, 1], 1.0) == 30
    assert statistics.steps_to_target(steps, [3, 1, 2, 1, 1], 1.0) == 40  # one lucky rung is no crossing
    assert statistics.steps_to_target(steps, [3, 3, 3, 3, 1], 1.0) == 50  # nothing after the end contradicts it
    assert statistics.steps_to_target(steps, [3, 1, 3, 3, 3], 1.0) == math.inf
    assert statistics.steps_to_target(steps, [3, math.nan, 1, 1, 1], 1.0) == 30
    assert statistics.steps_to_target(steps, [3, 2, 1, 1, 1], 1.25) == 27.5  # linear between rungs
    assert statistics.steps_to_target(steps, [1, 1, 1, 1, 1], 1.25) == 10  # nothing to interpolate from
    assert statistics.steps_to_target(steps, [3, 1, 2, 1, 1], 1.0, hold=1) == 20


def test_ratios_keep_misses_and_leave_out_what_has_no_meaning() -> None:
    assert statistics.ratios([50, math.inf, 20, math.nan], [100, 100, math.inf, 10]).tolist() == [0.5, math.inf]


def test_probability_better() -> None:
    assert statistics.probability_better([1, 1, 1, 1, 1], [2, 2, 2, 2, 2]).estimate == 1
    assert statistics.probability_better([math.inf, 1], [2, 2]).estimate == 0.5
    a, b = np.random.default_rng(3).normal(0, 1, (2, 30))
    expected = stats.mannwhitneyu(b, a).statistic / 900
    assert statistics.probability_better(a, b).estimate == pytest.approx(expected)


def test_performance_profile_is_algoperfs() -> None:
    times = np.array([[10, 20], [30, 15], [math.inf, 5], [math.inf, math.inf]])  # tasks × arms
    found = statistics.performance_profile(times, [1.0, 2.0, 10.0])
    assert found.tolist() == [[0.25, 0.5, 0.5], [0.5, 0.75, 0.75]]


def test_the_best_of_k_trials_is_a_quantile_with_an_exact_interval() -> None:
    losses = np.arange(1.0, 41.0)
    one = best_of(losses, 1)
    assert (one.estimate, one.low, one.high) == (20, 14, 27)  # ranks of a median of 40
    assert best_of([3.0, 1.0, 2.0], 100) == statistics.Interval(1.0, -math.inf, 1.0, 3)  # nothing bounds it below
    assert best_of([1.0, math.inf, math.inf], 1).estimate == math.inf
    rng = np.random.default_rng(5)
    for trials in (2, 5, 30):
        truth = 1 - 0.5 ** (1 / trials)  # of uniform losses
        found = [best_of(row, trials) for row in rng.uniform(size=(1_000, 24))]
        assert np.mean([held.low <= truth <= held.high for held in found]) >= 0.94


def test_basin_of_a_parabola() -> None:
    lrs = np.logspace(-5, -1, 81)
    losses = 2 + (np.log10(lrs) + 3) ** 2
    found = statistics.basin(lrs, losses, 0.25)
    assert found is not None
    assert found.decades == pytest.approx(1.0, abs=0.02)
    assert (found.cut_low, found.cut_high) == (False, False)


def test_basin_cut_by_its_range_and_by_divergence() -> None:
    found = statistics.basin([1e-4, 1e-3, 1e-2, 1e-1], [1.0, 1.1, 2.0, math.inf], 0.5)
    assert found is not None
    assert found.cut_low
    assert not found.cut_high
    cliff = statistics.basin([1e-3, 1e-2, 1e-1], [2.0, 1.0, math.inf], 0.5)
    assert cliff is not None
    assert cliff.high == pytest.approx(1e-2)
    assert statistics.basin([1e-3, 1e-2], [1.0, 2.0], 0.5) is None


@pytest.mark.parametrize("noise", ["normal", "heavy"])
@pytest.mark.parametrize("n", [5, 8, 20])
def test_paired_t_holds_its_coverage(noise: str, n: int) -> None:
    """The truth is 0; t with 3 degrees of freedom has heavy tails. 2,000 repetitions: ± 1 % is two standard errors."""
    rng = np.random.default_rng([8, n])
    values = rng.normal(size=(2_000, n)) if noise == "normal" else rng.standard_t(3, (2_000, n))
    found = [statistics.paired_t(row) for row in values]
    covered = np.mean([r.low <= 0 <= r.high for r in found if r.low is not None and r.high is not None])
    assert 0.935 <= covered <= 0.985  # heavy tails make it conservative, never too bold


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(9)
    false = 0
    for _ in range(1_000):
        baseline = rng.normal(size=8)
        p = [statistics.paired_t(rng.normal(size=8) - baseline).p for _ in range(4)]
        false += min(statistics.holm([value for value in p if value is not None])) < 0.05
    assert false / 1_000 <= 0.065


def test_median_interval_holds_its_coverage_with_censoring() -> None:
    rng = np.random.default_rng(10)
    values = rng.lognormal(0, 1, (2_000, 9))  # true median 1
    values[values > 3] = math.inf
    found = [statistics.median_interval(row) for row in values]
    assert np.mean([r.low <= 1 <= r.high for r in found if r.low is not None and r.high is not None]) >= 0.95
