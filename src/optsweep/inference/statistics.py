"""The statistics of the report: pure functions of numbers, each with its source, each tested against known answers.

Losses are compared, so lower is better everywhere. A value that was never reached is infinity (censored).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

Array = NDArray[np.float64]

CONFIDENCE = 0.95
_EXACT_SIGN_FLIPS = 16  # 2^16 sign patterns are enumerated; above, as many are drawn
_RESAMPLES = 9_999
_RNG_SEED = 20240524  # every resampling starts from here, so a rebuilt report has the same numbers


@dataclass(frozen=True)
class Interval:
    """An estimate of `n` values with its interval; the ends are None where no interval can be given."""

    estimate: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's length."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedT:
    """Mean difference, its interval, two-sided p. Without variance, or of one pair: neither interval nor p."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    zero_variance: bool


def _finite(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        raise ValueError("finite values are needed; leave out what diverged and count it")
    return array


def _no_spread(values: Array, scale: float = 0.0) -> bool:
    """Whether the values are equal but for the rounding of a subtraction of numbers up to `scale`."""
    scale = max(float(np.abs(values).max()), scale)
    return bool(np.ptp(values) <= 4 * np.finfo(np.float64).eps * scale)


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE, *, scale: float = 0.0) -> Interval:
    """Mean with the t interval (Student 1908); no interval for one value or for equal ones.

    `scale`, here and below, is the size of what the values are differences of: less than its rounding is no variance.
    """
    array = _finite(values)
    n, mean = len(array), float(array.mean())
    if n < 2 or _no_spread(array, scale):
        return Interval(mean, None, None, n)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2) * array.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def t_half_widths(rows: NDArray[np.float64], confidence: float = CONFIDENCE) -> NDArray[np.float64]:
    """Half of the t interval of each column's mean over `rows`; zero where there is one row."""
    n = len(rows)
    if n < 2:
        return np.zeros(rows.shape[1])
    found: NDArray[np.float64] = special.stdtrit(n - 1, (1 + confidence) / 2) * rows.std(0, ddof=1) / math.sqrt(n)
    return found


def paired_t(differences: ArrayLike, confidence: float = CONFIDENCE, *, scale: float = 0.0) -> PairedT:
    """Paired t interval and test of differences candidate − baseline over the same seeds."""
    array = _finite(differences)
    interval = mean_interval(array, confidence, scale=scale)
    if interval.low is None:
        return PairedT(interval.estimate, None, None, None, interval.n, len(array) > 1)
    statistic = interval.estimate / (array.std(ddof=1) / math.sqrt(len(array)))
    p = float(2 * special.stdtr(len(array) - 1, -abs(statistic)))
    return PairedT(interval.estimate, interval.low, interval.high, p, interval.n, False)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Holm 1979), in the order given; family-wise error is kept."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided p of the sign-flip test of the mean (Fisher 1935): the differences are symmetric about 0.

    Exact up to 16 pairs; the smallest p it can give is 2/2^n, so it needs n ≥ 6 to speak at 5 %.
    """
    array = _finite(differences)
    n = len(array)
    if n <= _EXACT_SIGN_FLIPS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        extra = 0
    else:
        signs = 1 - 2 * np.random.default_rng(_RNG_SEED).integers(0, 2, (2**_EXACT_SIGN_FLIPS, n))
        extra = 1  # the observed pattern counts among the drawn ones (Phipson & Smyth 2010)
    sums = np.abs(signs @ array)
    observed = abs(array.sum()) * (1 - 1e-12)  # equal sums may differ in the last bit
    return float((np.count_nonzero(sums >= observed) + extra) / (len(sums) + extra))


def equivalence(differences: ArrayLike, delta: float, *, scale: float = 0.0) -> float | None:
    """p of two one-sided t tests (Schuirmann 1987): small means that the mean difference lies inside ±`delta`."""
    if delta <= 0:
        raise ValueError(f"delta is {delta}; it has to be > 0")
    array = _finite(differences)
    if len(array) < 2 or _no_spread(array, scale):
        return None
    error = array.std(ddof=1) / math.sqrt(len(array))
    distance = delta - abs(float(array.mean()))
    return float(special.stdtr(len(array) - 1, -distance / error))


def bca_interval(values: ArrayLike, confidence: float = CONFIDENCE, *, scale: float = 0.0) -> Interval:
    """BCa bootstrap of the mean (Efron 1987). Under 20 values its coverage is too low: no interval."""
    array = _finite(values)
    mean = float(array.mean())
    if len(array) < 20 or _no_spread(array, scale):
        return Interval(mean, None, None, len(array))
    rng = np.random.default_rng(_RNG_SEED)
    found = stats.bootstrap(
        (array,), np.mean, n_resamples=_RESAMPLES, confidence_level=confidence, method="BCa", rng=rng
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(array))


def median_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Median with its order-statistic interval (David & Nagaraja 2003, 7.1); infinity is a value like others.

    Distribution-free; the coverage is at least `confidence`. Fewer than 6 values can't give 95 %: no interval.
    """
    array = np.sort(np.asarray(values, dtype=np.float64).ravel())
    n = len(array)
    if n == 0 or np.isnan(array).any():
        raise ValueError("a median needs values, none of them NaN")
    middle = array[[(n - 1) // 2, n // 2]]
    median = float(middle.mean()) if np.isfinite(middle).all() else float(middle[1])
    # the k-th smallest and k-th largest leave out the median with probability 2 P(Binomial(n, 1/2) < k)
    k = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5))
    while k > 0 and 2 * stats.binom.cdf(k - 1, n, 0.5) > 1 - confidence:
        k -= 1
    if k == 0:
        return Interval(median, None, None, n)
    return Interval(median, float(array[k - 1]), float(array[n - k]), n)


def steps_to_target(steps: ArrayLike, losses: ArrayLike, target: float, hold: int = 2) -> float:
    """Where the loss falls to `target` and stays so for `hold` rungs, linear between rungs; infinity if it never does.

    After the last rung there is none that could contradict it, so a crossing there counts. At the first rung, and after
    a loss that isn't finite, there is nothing to interpolate from: the rung's own step.
    """
    at, values = (np.asarray(x, dtype=np.float64) for x in (steps, losses))
    below = values <= target
    for first in np.flatnonzero(below):
        if below[first : first + hold].all():
            if first == 0 or below[first - 1] or not np.isfinite(values[first - 1 : first + 1]).all():
                return float(at[first])
            share = (values[first - 1] - target) / (values[first - 1] - values[first])
            return float(at[first - 1] + share * (at[first] - at[first - 1]))
    return math.inf


def ratios(candidate: ArrayLike, baseline: ArrayLike) -> Array:
    """candidate / baseline per seed; a candidate that missed is infinity, a pair without meaning is left out."""
    over, under = (np.asarray(x, dtype=np.float64) for x in (candidate, baseline))
    known = np.isfinite(under) & (under > 0) & ~np.isnan(over)
    return np.asarray(over[known] / under[known], dtype=np.float64)


def ratio_interval(found: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Geometric mean of ratios with the t interval of their logarithms; of censored ones `median_interval`."""
    array = np.asarray(found, dtype=np.float64).ravel()
    if len(array) == 0 or not np.isfinite(array).all() or (array <= 0).any():
        return median_interval(array, confidence)
    logs = mean_interval(np.log(array), confidence, scale=1.0)
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Interval(math.exp(logs.estimate), low, high, len(array))


def seconds_ratio(steps_ratio: Interval, time_ratio: float) -> Interval:
    """Seconds to target, candidate / baseline: ratio of steps × ratio of ms per step, interval and all.

    ms per step come from the timing pass and are taken as known: their spread is far below that of the steps. A
    censored end stays infinite. Raises ValueError unless `time_ratio` is finite and > 0.
    """
    if not (math.isfinite(time_ratio) and time_ratio > 0):
        raise ValueError(f"the ratio of ms per step is {time_ratio}; it has to be > 0")
    low, high = (None if end is None else end * time_ratio for end in (steps_ratio.low, steps_ratio.high))
    return Interval(steps_ratio.estimate * time_ratio, low, high, steps_ratio.n)


def probability_better(candidate: ArrayLike, baseline: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """P(a run of the candidate ends lower than a run of the baseline), ties counting half (Mann & Whitney 1947).

    Infinity (diverged) loses. The interval is Newcombe's method 5 (Newcombe 2006), from 2 seeds on: the θ with
    |estimate − θ| ≤ z √V(θ), V(θ) = θ(1 − θ) / n² · [1 + (n − 1)((1 − θ)/(2 − θ) + θ/(1 + θ))]. It doesn't shrink to a
    point where one arm wins every time, as a bootstrap's does. V is that of unpaired runs: pairs make it too wide.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (candidate, baseline))
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError("the same seeds of both arms are needed")
    n = len(a)
    # infinity - infinity would be NaN, so compare instead of subtracting
    estimate = float(((a[:, None] < b[None, :]) + 0.5 * (a[:, None] == b[None, :])).mean())
    if n < 2:
        return Interval(estimate, None, None, n)
    z = float(special.ndtri((1 + confidence) / 2))
    return Interval(estimate, _newcombe_low(estimate, n, z), 1 - _newcombe_low(1 - estimate, n, z), n)


def _newcombe_low(estimate: float, n: int, z: float) -> float:
    """The smallest θ that is compatible with the estimate; the largest is its mirror image, for V is symmetric."""

    def excess(theta: float) -> float:
        mixed = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return estimate - theta - z * math.sqrt(theta * (1 - theta) * (1 + (n - 1) * mixed)) / n

    below = estimate - 1e-9  # at the estimate itself 1 would be a root too
    return 0.0 if below <= 0 else float(optimize.brentq(excess, 0.0, below))


def performance_profile(times: ArrayLike, taus: ArrayLike) -> Array:
    """Share of tasks that each arm solves within τ × the fastest arm's time: [arms, taus] of `times [tasks, arms]`.

    Definition of AlgoPerf (Dahl et al. 2023, section 4) after Dolan & Moré 2002; an unsolved task is infinity.
    """
    table = np.asarray(times, dtype=np.float64)
    best = table.min(1, keepdims=True)
    relative = np.full_like(table, np.inf)
    np.divide(table, best, out=relative, where=np.isfinite(table) & np.isfinite(best))
    within: Array = (relative[:, :, None] <= np.asarray(taus, dtype=np.float64)).mean(0, dtype=np.float64)
    return within


@dataclass(frozen=True)
class Basin:
    """Learning rates around the best whose loss stays near it; `cut_*`: the tried range ended first."""

    decades: float
    low: float
    high: float
    cut_low: bool
    cut_high: bool


def basin(lrs: ArrayLike, losses: ArrayLike, tolerance: float) -> Basin | None:
    """Width in decades of the LR region around the best point with loss ≤ best + `tolerance`.

    Edges are interpolated in log LR; next to a diverged point (infinity) the edge is the last good LR.
    None for fewer than 3 points or none finite. Meant for space-filling points only: a model-based search crowds
    points around its favourite and would narrow the basin.
    """
    x, y = np.log10(np.asarray(lrs, dtype=np.float64)), np.asarray(losses, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if len(x) < 3 or not np.isfinite(y).any():
        return None
    best = int(np.argmin(np.where(np.isfinite(y), y, np.inf)))
    limit = float(y[best]) + tolerance
    low, cut_low = _edge(x[best::-1], y[best::-1], limit)
    high, cut_high = _edge(x[best:], y[best:], limit)
    return Basin(high - low, 10**low, 10**high, cut_low, cut_high)


def _edge(x: Array, y: Array, limit: float) -> tuple[float, bool]:
    """Walking away from the best: log LR at which the loss passes `limit`, and whether the points ended before."""
    for near in range(len(x) - 1):
        far = near + 1
        if not y[far] <= limit:
            if not math.isfinite(y[far]):
                return float(x[near]), False
            share = (limit - y[near]) / (y[far] - y[near])
            return float(x[near] + share * (x[far] - x[near])), False
    return float(x[-1]), True
