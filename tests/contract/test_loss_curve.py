"""The curve over run lengths and its speed-up: known answers, and simulation where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from optsweep.inference.loss_curve import fit, speed_ups

LENGTHS = [100, 200, 400, 800, 1600]
ALPHA, BETA, GAMMA = 6.0, 0.4, 1.2


def truth(steps: object, factor: float = 1.0) -> NDArray[np.float64]:
    """The curve, run `factor` times faster."""
    return ALPHA * (factor * np.asarray(steps, dtype=np.float64)) ** -BETA + GAMMA


def test_a_curve_without_noise_is_recovered() -> None:
    found = fit(LENGTHS, truth(LENGTHS))
    assert found is not None
    assert (found.alpha, found.beta, found.gamma) == pytest.approx((ALPHA, BETA, GAMMA), rel=1e-3)
    assert found.rmse < 1e-5
    assert (found.shortest, found.longest) == (100, 1600)
    assert found.loss([100, 400]) == pytest.approx(truth([100, 400]), rel=1e-5)
    assert found.steps(float(truth(300))) == pytest.approx(300, rel=1e-3)
    assert found.steps(1.19) == math.inf


@pytest.mark.parametrize("beta", [0.1, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("gamma", [0.0, 0.05, 2.0])
def test_any_curve_within_the_bounds_is_recovered(beta: float, gamma: float) -> None:
    at = np.array([50, 150, 500, 2000, 8000, 20000])
    losses = 3.0 * (at / 50.0) ** -beta + gamma
    found = fit(at.tolist(), losses)
    assert found is not None
    assert found.loss(at) == pytest.approx(losses, abs=1e-4)
    assert found.beta == pytest.approx(beta, rel=0.01)
    assert found.gamma == pytest.approx(gamma, abs=0.01)


def test_the_fit_is_least_squares() -> None:
    from scipy.optimize import least_squares

    rng = np.random.default_rng(0)
    at = np.array(LENGTHS, dtype=np.float64)
    for _ in range(5):
        losses = truth(LENGTHS) + rng.normal(0, 0.02, 5)
        found = fit(LENGTHS, losses)
        assert found is not None

        def residuals(p: NDArray[np.float64], losses: NDArray[np.float64] = losses) -> NDArray[np.float64]:
            return np.asarray(p[0] * (at / 400) ** -p[1] + p[2] - losses)

        other = least_squares(residuals, [1.0, 0.5, 1.0], bounds=([0, 0.02, 0], [np.inf, 4, np.inf]), xtol=1e-14)
        assert found.rmse <= math.sqrt(2 * other.cost / 5) * (1 + 1e-4)


def test_gamma_is_not_below_what_is_possible() -> None:
    straight = 3 - 0.3 * np.log(LENGTHS)  # falls by the same with every doubling: no γ of its own
    found = fit(LENGTHS, straight)
    assert found is not None
    assert found.gamma == 0.0
    lower = fit(LENGTHS, straight - 2, floor=-5.0)
    assert lower is not None
    assert lower.gamma >= -5.0
    with pytest.raises(ValueError, match="at least 0"):
        fit(LENGTHS, straight - 2)


def test_no_curve_without_four_lengths_or_without_a_fall() -> None:
    assert fit(LENGTHS[:3], truth(LENGTHS[:3])) is None
    assert fit([100, 100, 200, 400], truth([100, 100, 200, 400])) is None
    assert fit(LENGTHS, [2.0] * 5) is None
    assert fit(LENGTHS, [1.0, 1.1, 1.2, 1.3, 1.4]) is None
    with pytest.raises(ValueError, match="diverged"):
        fit(LENGTHS, [1.0, 1.0, math.inf, 1.0, 1.0])
    with pytest.raises(ValueError, match="> 0"):
        fit([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="one loss per length"):
        fit(LENGTHS, [4.0, 3.0, 2.0, 1.0])


def test_the_speed_up_of_a_curve_run_faster_is_its_factor() -> None:
    seeds = np.zeros((3, 1))
    found = speed_ups(LENGTHS, truth(LENGTHS) + seeds, truth(LENGTHS, 1.5) + seeds)
    assert found is not None
    for one in found:
        assert one.ratio.estimate == pytest.approx(1.5, rel=1e-3)
        assert one.baseline_steps == pytest.approx(1.5 * one.steps, rel=1e-3)
        assert (one.ratio.low, one.ratio.high, one.ratio.n) == (None, None, 3)  # seeds without spread: no interval
    assert [one.extrapolated for one in found] == [False, False, False, False, True]
    slower = speed_ups(LENGTHS, truth(LENGTHS) + seeds, truth([100, 400], 0.8) + seeds, candidate_lengths=[100, 400])
    assert slower is not None
    assert [(one.steps, one.extrapolated) for one in slower] == [(100, True), (400, False)]
    assert slower[1].ratio.estimate == pytest.approx(0.8, rel=1e-3)


def test_a_loss_below_gamma_is_censored() -> None:
    seeds = np.random.default_rng(1).normal(0, 0.001, (6, 5))
    candidate = np.array([1.6, 1.4, 1.3, 1.15, 1.1])
    found = speed_ups(LENGTHS, truth(LENGTHS) + seeds, candidate + seeds[:, ::-1])
    assert found is not None
    assert (found[-1].ratio.estimate, found[-1].ratio.low, found[-1].ratio.high) == (math.inf,) * 3
    assert found[-1].extrapolated
    assert math.isfinite(found[0].ratio.estimate)


def test_seeds_that_diverged_are_left_out_whole() -> None:
    rng = np.random.default_rng(2)
    baseline = truth(LENGTHS) + rng.normal(0, 0.01, (8, 5))
    candidate = truth(LENGTHS, 1.3) + rng.normal(0, 0.01, (8, 5))
    without = speed_ups(LENGTHS, baseline[2:], candidate[2:])
    baseline[0, 3], candidate[1, 0] = math.inf, math.nan
    assert speed_ups(LENGTHS, baseline, candidate) == without
    assert without is not None
    assert without[0].ratio.n == 6
    assert speed_ups(LENGTHS, np.full((3, 5), math.inf), candidate[:3]) is None
    with pytest.raises(ValueError, match="same seeds"):
        speed_ups(LENGTHS, baseline, candidate[:4])


def test_an_interval_needs_three_seeds_and_is_open_near_gamma() -> None:
    rng = np.random.default_rng(4)
    baseline = truth(LENGTHS) + rng.normal(0, 0.02, (6, 5))
    near = GAMMA + 0.02 + rng.normal(0, 0.02, (6, 1))
    found = speed_ups(LENGTHS, baseline, near, candidate_lengths=[1600])
    assert found is not None
    assert found[0].ratio.high == math.inf
    assert found[0].ratio.low is not None
    assert found[0].ratio.low > 2
    two = speed_ups(LENGTHS, baseline[:2], near[:2], candidate_lengths=[1600])
    assert two is not None
    assert (two[0].ratio.low, two[0].ratio.high) == (None, None)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_the_interval_of_the_speed_up_covers(n: int) -> None:
    """Noise shared by the runs of a seed and noise of each; 300 repetitions: ± 2.5 % is two standard errors."""
    rng = np.random.default_rng([3, n])
    covered = []
    for _ in range(300):
        shared = rng.normal(0, 0.02, (n, 1))
        baseline = truth(LENGTHS) + shared + rng.normal(0, 0.01, (n, 5))
        candidate = truth([400], 1.5) + shared + rng.normal(0, 0.01, (n, 1))
        found = speed_ups(LENGTHS, baseline, candidate, candidate_lengths=[400])
        assert found is not None
        ratio = found[0].ratio
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low <= ratio.estimate <= ratio.high
        covered.append(ratio.low <= 1.5 <= ratio.high)
    assert 0.92 <= np.mean(covered) <= 0.985
