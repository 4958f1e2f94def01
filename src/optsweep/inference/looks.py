"""`sweep.repeats=auto` and `confirm.seeds=auto`: how many searches, or seeds where nothing is searched, are run.

That is decided by what they say, at looks that are planned beforehand. At each look every comparison of a group is
tested at a nominal level, so small that all looks together err with the overall α; it ends at the first look at which
all comparisons are decided. Pure functions, which the planner (to add more) and the report (to judge) both call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Final, Literal

LOOKS = (5, 10, 20)
"""Seeds per arm at which `auto` looks: each time twice as many, so that the whole costs at most twice what it needs."""

REPEAT_LOOKS = (3, 4, 6, 8)
"""Searches per arm at which `sweep.repeats=auto` looks: a clear difference costs 3, and none twice the usual 4."""

REPEAT_LEVEL = 0.017
"""Nominal level of those looks. Pocock's, 0.0199, is for a known variance: with t of so few it errs in 5.8 %, this one
in 5.0 % (`python docs/error_rates_of_searches.py`)."""

ALPHA = 0.05
"""Overall two-sided error of a comparison."""

AUTO: Final = "auto"
Seeds = int | Literal["auto"]
Repeats = int | Literal["auto"]

_NODES = 40  # of the quadrature; 20 give the level to 13 digits
_BISECTIONS = 60


@lru_cache
def nominal_level(looks: Sequence[int] = LOOKS, alpha: float = ALPHA) -> float:
    """Pocock's level: the two-sided p below which a difference counts as shown, the same at every look.

    Under no difference the statistics Z₁ … Z_K at n₁ < … < n_K seeds are normal with corr(Z_i, Z_j) = √(n_i/n_j). The
    level is 2 (1 − Φ(c)) with the c that solves P(|Z₁| < c, …, |Z_K| < c) = 1 − α (Pocock 1977, Biometrika 64, 191–199;
    Jennison & Turnbull 2000, Group Sequential Methods, chapter 2, and chapter 19 for the integration). It is applied to
    the p values of t tests, as Pocock proposes (his section on unknown variance; Jennison & Turnbull, chapter 3): the
    error is then near α and not exactly α, since the variances of few seeds are estimated.
    """
    low, high = 0.0, 10.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _stays_within(middle, looks) < 1 - alpha else (low, middle)
    return 2 * NormalDist().cdf(-high)


def _stays_within(bound: float, looks: Sequence[int]) -> float:
    """P(|Z_i| < `bound` at every look), look by look over the density of the sum (Armitage, McPherson & Rowe 1969)."""
    import numpy as np  # not above: the command line reads its config without it

    def normal(x: np.ndarray, variance: float) -> Any:
        return np.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    ends = bound * np.sqrt(np.asarray(looks, dtype=np.float64))
    density = normal(ends[0] * nodes, looks[0])
    for i in range(1, len(looks)):
        steps = ends[i] * nodes[:, None] - ends[i - 1] * nodes
        density = normal(steps, looks[i] - looks[i - 1]) @ (ends[i - 1] * weights * density)
    return float(ends[-1] * weights @ density)


@dataclass(frozen=True)
class Level:
    """When a difference counts as shown: Holm-adjusted p < `alpha`; intervals are at 1 − `alpha`."""

    alpha: float
    looks: tuple[int, ...] = ()  # planned; none where the number of seeds, or of searches, was fixed
    over_searches: bool = False  # what is looked at

    @staticmethod
    def of(looks: Sequence[int]) -> Level:
        """The nominal level where looks are planned, else the overall one."""
        return Level(nominal_level(tuple(looks)), tuple(looks)) if looks else Level(ALPHA)

    @staticmethod
    def planned(repeat_looks: Sequence[int], looks: Sequence[int]) -> Level:
        """That of looks at searches where such are planned, else of looks at seeds, else the overall one."""
        return Level(REPEAT_LEVEL, tuple(repeat_looks), over_searches=True) if repeat_looks else Level.of(looks)

    @property
    def confidence(self) -> float:
        """Of the intervals that agree with the verdict."""
        return 1 - self.alpha


def num_seeds(
    seeds: Seeds, most: int, complete: Callable[[int], bool], decided: Callable[[], bool], looks: Sequence[int] = LOOKS
) -> int:
    """How many confirm seeds, or searches, every arm of a group is to have by now; a fixed number is its own answer.

    `most` is the highest number of seeds that an arm of the group has had so far; the look is the first with at least
    as many. It is taken when it is `complete`, that is when all arms have the results of as many seeds, and the next
    one follows unless all comparisons are `decided`. So the end depends on results alone, never on when they came: it
    is the same at any number of workers and after any restart. A group of one arm has nothing to compare and ends at
    the first look.

    A sweep that grows from a fixed number goes on at the next look (5 seeds are a look; 8 are followed by that at 10);
    with more seeds than the last look there is nothing to add.
    """
    if seeds != AUTO:
        return seeds
    look = next((look for look in looks if look >= most), looks[-1])
    if look < looks[-1] and complete(look) and not decided():
        return looks[looks.index(look) + 1]
    return look


def in_words(seeds: Seeds, looks: Sequence[int] = LOOKS) -> str:
    """ "8 confirm seeds", "5, 10 or 20 confirm seeds"."""
    if seeds != AUTO:
        return f"{seeds} confirm seed{'' if seeds == 1 else 's'}"
    *first, last = looks
    return f"{', '.join(map(str, first))} or {last} confirm seeds"


def searches_in_words(repeats: Repeats, looks: Sequence[int] = REPEAT_LOOKS) -> str:
    """ "4 searches", "3, 4, 6 or 8 searches"."""
    if repeats != AUTO:
        return f"{repeats} search{'' if repeats == 1 else 'es'}"
    *first, last = looks
    return f"{', '.join(map(str, first))} or {last} searches"


def most_of(repeats: Repeats) -> int:
    """How many searches of an arm there may be."""
    return REPEAT_LOOKS[-1] if repeats == AUTO else repeats


def repeats_done(complete: int, planned: Repeats) -> str:
    """ "provisional: 1 of 4 repeats", "provisional: 3 repeats of at most 8"."""
    if planned == AUTO:
        return f"provisional: {complete} repeat{'' if complete == 1 else 's'} of at most {REPEAT_LOOKS[-1]}"
    return f"provisional: {complete} of {planned} repeats"
