"""Whether a search has looked beyond its best value on both sides, and where it would look next.

A key that is searched in a range with limits grows past an end that the best value leans on, never past a limit. A
value beyond counts as having looked there if it is 1.5 × away, on a linear scale a tenth of the range; close to a limit
half of what is left to it suffices, and nothing lies beyond the limit itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from optsweep.search.space import Dimension, Space

LR = "lr"

BRACKET_FACTOR, BRACKET_SHARE = 1.5, 0.1
"""A tried value this far from the best brackets it on its side: a factor, on a linear scale a share of the range."""

GROWTH_SHARE, LEAST_FACTOR = 1 / 3, math.sqrt(10.0)
"""A range grows by a third of its length at a time, on a log scale by half a decade at least."""

DISTINCT_FACTOR, DISTINCT_SHARE = 1.25, 0.05
"""Two settings that are worth re-running beside each other are this far apart."""

NEARLY = 0.9
"""Share of what is left to a limit that growing takes at most: the limit itself may not be allowed (β < 1)."""

HAIR = 1e-9
"""Tolerance for a distance in floating point."""

SIDES = {"low": -1, "high": 1}


@dataclass(frozen=True)
class Axis:
    """The range of a searched number on its own scale, and the limits that it may grow to."""

    low: float
    high: float
    log: bool
    limits: tuple[float, float]

    @cached_property
    def width(self) -> float:
        """Length of the range as given, on its scale; on a linear one, one of a single value has that value's size."""
        length = self._at(self.high) - self._at(self.low)
        return length if self.log else length or abs(self.low) or 1.0

    def bracketed(self, best: float, tried: Sequence[float], side: int) -> bool:
        """Whether a tried value lies far enough from the best on this side (−1: below, 1: above)."""
        step = math.log(BRACKET_FACTOR) if self.log else BRACKET_SHARE * self.width
        step = min(step, self._left(best, side) / 2) * (1 - HAIR)
        return any(side * (self._at(value) - self._at(best)) >= step for value in tried)

    def beyond(self, best: float, known: Sequence[float], side: int) -> float | None:
        """The value past the end of the range, and of all that is known, if the best leans on that end; else None."""
        end = self.high if side > 0 else self.low
        if self.bracketed(best, [end], side):
            return None
        furthest = (max if side > 0 else min)([*known, end])
        step = GROWTH_SHARE * self.width
        step = min(max(step, math.log(LEAST_FACTOR)) if self.log else step, NEARLY * self._left(furthest, side))
        return self._value(self._at(furthest) + side * step)

    def distinct(self, one: float, other: float) -> bool:
        """Whether two values are far enough apart to be two settings."""
        step = math.log(DISTINCT_FACTOR) if self.log else DISTINCT_SHARE * self.width
        return abs(self._at(one) - self._at(other)) >= step * (1 - HAIR)

    def _left(self, start: float, side: int) -> float:
        """What is left to the limit."""
        return max(0.0, side * (self._at(self.limits[side > 0]) - self._at(start)))

    def _at(self, value: float) -> float:
        if not self.log:
            return value
        return math.log(value) if value > 0 else -math.inf

    def _value(self, place: float) -> float:
        return math.exp(place) if self.log else place


def axis_of(dimension: Dimension) -> Axis | None:
    """The axis of a number that may grow; None for choices, and for a range that stays as it is."""
    found = dimension.number
    if found is None or dimension.limits is None:
        return None
    return Axis(found.low, found.high, found.log, dimension.limits)


def axes_of(space: Space) -> dict[str, Axis]:
    """The axes of all keys whose range may grow, the LR's first."""
    found = {key: axis_of(space.dimensions[key]) for key in sorted(space.dimensions, key=lambda key: (key != LR, key))}
    return {key: axis for key, axis in found.items() if axis is not None}
