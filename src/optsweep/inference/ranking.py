"""After how many search trials the order of arms is that of the whole budget, leaving one search out at a time.

At the whole budget a search agrees with itself, whatever it found. So its order after k trials is held against what the
confirm seeds of the *other* searches say.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from optsweep.inference.statistics import CONFIDENCE, Interval, ratio_interval

MIN_SEARCHES = 3
MIN_TRIALS = 8
"""Of fewer searches, or shorter ones, nothing is said."""


def chosen_so_far(results: Sequence[tuple[Hashable, int, float]]) -> list[float]:
    """Validation loss, after each trial, of the setting that a search would choose then; infinity: none.

    `results` are (setting, seed, loss) in the order of the slots, infinity where a trial has none. As a search chooses:
    the lowest mean among the settings that ran on most seeds, and diverged on none.
    """
    found: dict[Hashable, dict[int, float]] = {}
    chosen = []
    for setting, seed, loss in results:
        found.setdefault(setting, {}).setdefault(seed, loss)  # the same trial twice is one result
        finite = [by_seed.values() for by_seed in found.values() if all(map(math.isfinite, by_seed.values()))]
        most = max(map(len, finite), default=0)
        chosen.append(min((fmean(losses) for losses in finite if len(losses) == most), default=math.inf))
    return chosen


@dataclass(frozen=True, eq=False)
class Stability:
    """Which pairs of arms are in order after each trial of each search: `in_order[searches, pairs, trials]`."""

    in_order: NDArray[np.bool_]
    confidence: float = CONFIDENCE

    @property
    def searches(self) -> int:
        """How many there are."""
        return int(self.in_order.shape[0])

    @property
    def pairs(self) -> int:
        """How many pairs of arms have an order."""
        return int(self.in_order.shape[1])

    @property
    def trials(self) -> int:
        """Trials of each search."""
        return int(self.in_order.shape[2])

    @cached_property
    def agreeing(self) -> tuple[int, ...]:
        """Searches with all pairs in order, after each trial."""
        return tuple(int(count) for count in self.in_order.all(1).sum(0))

    @cached_property
    def share_of_pairs(self) -> tuple[float, ...]:
        """Share of pairs in order, mean over searches, after each trial."""
        return tuple(float(share) for share in self.in_order.mean((0, 1)))

    def share(self, trials: int) -> Interval:
        """Share of searches with all pairs in order after so many trials, Clopper & Pearson's interval."""
        agreeing = self.agreeing[trials - 1]
        ends = stats.binomtest(agreeing, self.searches).proportion_ci(self.confidence, "exact")
        return Interval(agreeing / self.searches, float(ends.low), float(ends.high), self.searches)

    @cached_property
    def stable_from(self) -> tuple[float, ...]:
        """By search: trials from which on all pairs stay in order; infinity where they aren't at the end."""
        lost = (np.flatnonzero(~pairs.all(0)) for pairs in self.in_order)
        last = [int(places[-1]) + 2 if len(places) else 1 for places in lost]
        return tuple(float(first) if first <= self.trials else math.inf for first in last)

    @cached_property
    def after(self) -> Interval:
        """Trials until the order is stable: geometric mean over searches, the median where one never is.

        An end of its interval beyond what there can be, from the first to the last trial, is that.
        """
        found = ratio_interval(self.stable_from, self.confidence)
        if found.low is None or found.high is None or not math.isfinite(found.estimate):
            return found
        high = min(found.high, float(self.trials)) if math.isfinite(found.high) else found.high
        return replace(found, low=max(found.low, 1.0), high=high)


def stability(
    best: ArrayLike, confirmed: ArrayLike, pairs: Sequence[tuple[int, int]], confidence: float = CONFIDENCE
) -> Stability:
    """How stable the order of `pairs` of arms is.

    `best` are validation losses [arms, searches, trials], `confirmed` test losses [arms, searches]. A pair is in order
    if the arm that ends lower by the mean of the other searches is lower after so many trials too.
    """
    lowest, tested = (np.asarray(values, dtype=np.float64) for values in (best, confirmed))
    others = tested.sum(1, keepdims=True) - tested
    one, other = (list(places) for places in zip(*pairs, strict=True))
    ahead = (others[one] < others[other])[..., None]
    with np.errstate(invalid="ignore"):  # neither has a result yet
        held = np.where(ahead, lowest[one] < lowest[other], lowest[one] > lowest[other])
    return Stability(np.swapaxes(held, 0, 1), confidence)
