"""Whether differences over seeds are even enough for a t test: outlying seeds and skew, as from an arm that flickers.

Under normal noise each rule errs in 1 %. Neither sees what no seed shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import special, stats

FEWEST = 5
"""Differences from which on one can stand out."""

ALPHA = 0.01
FAR = 8.0
"""Robust z, in units of 1.4826 × the median absolute deviation: exceeded by one of 8 normal values in 1 %."""

_ENOUGH = 8  # values from which on the median absolute deviation, and skewness, say anything


def outlying(differences: Mapping[int, float]) -> tuple[int, ...]:
    """Seeds whose difference lies apart: Grubbs' test at 1 % (Grubbs 1950); from 8 seeds also a robust z above 8.

    The second sees several that hide each other from the first.
    """
    values = np.array(list(differences.values()), dtype=np.float64)
    n = len(values)
    if n < FEWEST or np.ptp(values) == 0:
        return ()
    from_mean = np.abs(values - values.mean()) / values.std(ddof=1)
    t = float(special.stdtrit(n - 2, 1 - ALPHA / (2 * n)))
    far = from_mean > (n - 1) / math.sqrt(n) * math.sqrt(t**2 / (n - 2 + t**2))
    if n >= _ENOUGH:
        from_median = np.abs(values - np.median(values))
        far |= from_median > FAR * 1.4826 * np.median(from_median)
    return tuple(seed for seed, is_far in zip(differences, far, strict=True) if is_far)


def skewed(differences: Mapping[int, float]) -> bool:
    """Whether skewness is shown at 1 % (D'Agostino 1970), from 8 differences on."""
    values = list(differences.values())
    return len(values) >= _ENOUGH and np.ptp(values) > 0 and bool(stats.skewtest(values).pvalue < ALPHA)


def steady(differences: Mapping[int, float]) -> bool:
    """Whether nothing is seen that a t test's error rate doesn't hold for."""
    return not (outlying(differences) or skewed(differences))
