"""Tests of runs that share no seeds, against scipy."""

import numpy as np
import pytest
from scipy import stats

from optsweep.inference.unpaired import pooled_sd, welch_t, z_test

OURS, THEIRS = [3.2, 3.25, 3.19, 3.22], [3.3, 3.1, 3.4, 3.28, 3.35, 3.31, 3.29]


@pytest.mark.parametrize("one_sided", [False, True])
def test_welch_is_scipy_s(one_sided: bool) -> None:
    known = stats.ttest_ind(OURS, THEIRS, equal_var=False, alternative="less" if one_sided else "two-sided")
    both = stats.ttest_ind(OURS, THEIRS, equal_var=False).confidence_interval(0.95)
    found = welch_t(OURS, THEIRS, one_sided=one_sided)
    assert found.p == pytest.approx(known.pvalue, rel=1e-12)
    assert found.df == pytest.approx(known.df, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((both.low, both.high), rel=1e-10)
    assert found.n == (4, 7)


def test_welch_says_nothing_without_a_spread() -> None:
    assert welch_t([1.0], THEIRS).p is None
    equal = welch_t([1.0, 1.0], [2.0, 2.0])
    assert equal.p is None
    assert equal.zero_variance
    assert not welch_t([1.0, 1.0], [2.0, 2.1]).zero_variance  # one spread is enough
    with pytest.raises(ValueError, match="finite"):
        welch_t([np.inf, 1.0], THEIRS)


@pytest.mark.parametrize(  # modded-nanogpt's optimization track: means, runs, steps; 0.0045 of loss per 100 steps
    ("ours", "theirs", "p"),
    [
        ((3.2785, 16, 3225), (3.2771, 8, 3250), 0.69),
        ((3.2785, 10, 3210), (3.2785, 16, 3225), 0.099),
        ((3.2785, 10, 3210), (3.2778, 10, 3250), 0.029),
        ((3.2784, 8, 3125), (3.2776, 4, 3150), 0.34),
    ],
)
def test_z_gives_the_published_p_values(ours: tuple[float, int, int], theirs: tuple[float, int, int], p: float) -> None:
    mean = ours[0] - theirs[0] + 0.0045 / 100 * (ours[2] - theirs[2])
    found = z_test(mean, (ours[1], theirs[1]), 0.0013, one_sided=True)
    assert found.p == pytest.approx(p, rel=0.02)


def test_z_is_the_normal_distribution_s() -> None:
    error = 0.5 * np.sqrt(1 / 4 + 1 / 7)
    found = z_test(-0.4, (4, 7), 0.5)
    assert found.p == pytest.approx(2 * stats.norm.cdf(-0.4 / error))
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.95, -0.4, error))
    with pytest.raises(ValueError, match="sigma"):
        z_test(1.0, (2, 2), 0.0)


def test_pooled_sd_leaves_out_what_arms_differ_by() -> None:
    sd, df = pooled_sd([[1.0, 3.0], [11.0, 13.0], [5.0]])
    assert (sd, df) == (np.sqrt(2), 2)
    assert pooled_sd([[1.0], [2.0]]) == (None, 0)


def test_welch_keeps_its_rate_where_the_smaller_arm_spreads_more() -> None:
    rng = np.random.default_rng(11)
    pairs = [(rng.normal(0, 3, 4), rng.normal(0, 1, 16)) for _ in range(3000)]
    welch = np.mean([(welch_t(ours, theirs).p or 1) < 0.05 for ours, theirs in pairs])
    student = np.mean([stats.ttest_ind(ours, theirs).pvalue < 0.05 for ours, theirs in pairs])
    assert 0.035 < welch < 0.065
    assert student > 0.2
