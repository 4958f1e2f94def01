"""How good a search of k trials gets: the median of its best loss, with an exact interval at any number of trials.

The expected best has no such interval without a bound on the losses (Lourie, Cho & He 2023, arXiv 2311.09480).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from optsweep.inference.statistics import CONFIDENCE, Interval

MIN_TRIALS = 20
"""Of fewer independent trials the interval is open from the third trial on: nothing could be told apart."""


def best_of(losses: ArrayLike, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Median of the lowest loss of `trials` independent ones, by the results of n such; infinity is a value.

    It is the q-quantile of a single loss, q = 1 − (1/2)^(1/trials), so order statistics hold it with probability
    ≥ `confidence`, whatever the distribution (David & Nagaraja 2003, 7.1). An end that none can hold is infinite.
    """
    ordered = np.sort(np.asarray(losses, dtype=np.float64).ravel())
    n = len(ordered)
    if n == 0 or trials < 1 or np.isnan(ordered).any():
        raise ValueError("losses, none of them NaN, and trials ≥ 1 are needed")
    q = 1 - 0.5 ** (1 / trials)
    below = int(stats.binom.ppf((1 - confidence) / 2, n, q))  # the rank that the quantile is under too rarely
    above = int(stats.binom.ppf((1 + confidence) / 2, n, q)) + 1
    low = float(ordered[below - 1]) if below > 0 else -math.inf
    high = float(ordered[above - 1]) if above <= n else math.inf
    return Interval(float(ordered[math.ceil(n * q) - 1]), low, high, n)
