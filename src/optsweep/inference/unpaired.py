"""Tests of two arms whose runs share no seeds: Welch's t, and a z test where the spread of a run is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optsweep.inference.statistics import CONFIDENCE


@dataclass(frozen=True)
class UnpairedTest:
    """Difference of two means candidate − baseline, its two-sided interval, and p.

    Neither interval nor p where a spread is unknown: an arm of one run, or no variance in either.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: tuple[int, int]  # runs of the candidate and of the baseline
    df: float | None  # degrees of freedom; None: z test, or no test
    zero_variance: bool


def welch_t(
    candidate: ArrayLike, baseline: ArrayLike, confidence: float = CONFIDENCE, *, one_sided: bool = False
) -> UnpairedTest:
    """Welch's unequal-variances t test (Welch 1947) of independent runs; `one_sided`: p of a candidate that is lower.

    With vᵢ = sᵢ²/nᵢ: t = (x̄₁ − x̄₂)/√(v₁ + v₂) on (v₁ + v₂)²/(v₁²/(n₁−1) + v₂²/(n₂−1)) degrees of freedom.
    """
    ours, theirs = (_finite(values) for values in (candidate, baseline))
    mean, n = float(ours.mean() - theirs.mean()), (len(ours), len(theirs))
    if min(n) < 2:
        return UnpairedTest(mean, None, None, None, n, None, zero_variance=False)
    rounding = 4 * np.finfo(np.float64).eps * max(np.abs(ours).max(), np.abs(theirs).max())
    if max(np.ptp(ours), np.ptp(theirs)) <= rounding:
        return UnpairedTest(mean, None, None, None, n, None, zero_variance=True)
    first, second = (float(values.var(ddof=1)) / len(values) for values in (ours, theirs))
    df = (first + second) ** 2 / (first**2 / (n[0] - 1) + second**2 / (n[1] - 1))
    error = math.sqrt(first + second)
    half = float(special.stdtrit(df, (1 + confidence) / 2)) * error
    t = mean / error
    p = float(special.stdtr(df, t)) if one_sided else float(2 * special.stdtr(df, -abs(t)))
    return UnpairedTest(mean, mean - half, mean + half, p, n, df, zero_variance=False)


def z_test(
    mean: float, n: tuple[int, int], sigma: float, confidence: float = CONFIDENCE, *, one_sided: bool = False
) -> UnpairedTest:
    """z test of a difference of two means over `n` runs each, the SD `sigma` of a run taken as known.

    z = mean / (σ √(1/n₁ + 1/n₂)); `one_sided`: p of a candidate that is lower.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma is {sigma}; it has to be > 0")
    error = sigma * math.sqrt(1 / n[0] + 1 / n[1])
    half, z = float(special.ndtri((1 + confidence) / 2)) * error, mean / error
    p = float(special.ndtr(z)) if one_sided else float(2 * special.ndtr(-abs(z)))
    return UnpairedTest(mean, mean - half, mean + half, p, n, None, zero_variance=False)


def pooled_sd(samples: Sequence[ArrayLike]) -> tuple[float | None, int]:
    """SD of a run within its arm, pooled over arms, and its degrees of freedom; None of arms of one run each."""
    arrays = [_finite(values) for values in samples]
    df = sum(len(values) - 1 for values in arrays)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in arrays)
    return (math.sqrt(squares / df) if df else None), df


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not len(array) or not np.isfinite(array).all():
        raise ValueError("finite values are needed; leave out what diverged and count it")
    return array
