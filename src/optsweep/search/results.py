"""What the results of a search amount to, taken in one by one: a suggestion costs no more where there are thousands.

All of it follows from the slots that were taken in; where they turn out to be others it begins anew.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from optsweep.search.brackets import LR
from optsweep.search.space import Dimension, Params, Space, Value, number_of

if TYPE_CHECKING:
    from optsweep.search.slots import Slot

BRACKET = "bracket"
"""Origin of a redirected slot."""

LEAST_FOR_MEDIAN = 4
"""Losses at a rung from which their median prunes."""

Setting = tuple[Params, list[float]]
"""Params with their results, one a seed (diverged: inf)."""

_Key = tuple[tuple[str, Value], ...]


class Ends:
    """The least and the largest of numbers, of equal ones the first; none where there was no number."""

    def __init__(self, values: Sequence[Value] = ()) -> None:
        numbers = [value for value in values if isinstance(value, (int, float))]
        self.found: tuple[float, ...] = (min(numbers), max(numbers)) if numbers else ()

    def take(self, value: float) -> None:
        """Take a number in."""
        low, high = self.found or (value, value)
        self.found = min(low, value), max(high, value)


@dataclass
class SearchedNumber:
    """The values of a searched number over the slots."""

    seen: Ends = field(default_factory=Ends)
    tried: Ends = field(default_factory=Ends)  # of those that are done and didn't crash
    valued: Ends = field(default_factory=Ends)  # of those with a value
    held: Dimension | None = None  # the range, widened to hold all that were seen

    def take(self, slot: Slot, value: float) -> None:
        """Take in a slot's."""
        self.seen.take(value)
        if slot.done and not slot.crashed:
            self.tried.take(value)
        if slot.value is not None:
            self.valued.take(value)


class Results:
    """The results of the first slots of a search, of more and more of them."""

    def __init__(self, space: Space, most_modelled: int) -> None:
        self._space, self._most_modelled = space, most_modelled
        self._start()

    def _start(self) -> None:
        self.slots: list[Slot] = []
        self._all_done = True
        self.numbers = {key: SearchedNumber() for key, of in self._space.dimensions.items() if of.number is not None}
        self.num_brackets = 0
        self.valued: list[Slot] = []  # those with a value
        self.worst: float | None = None  # the largest finite value
        self._lowest: list[tuple[float, int]] = []  # values with their places in `valued`
        self._rungs: dict[int, list[float]] = {}  # losses in order, by step
        self._settings: dict[_Key, Setting] = {}
        self._places: dict[_Key, int] = {}  # of settings, in order of first appearance
        self._seeds: dict[_Key, set[int]] = {}  # of all slots
        self._had: set[tuple[_Key, int]] = set()  # settings and seeds with a value
        self._heap: list[tuple[float, float, int, int, _Key]] = []  # best first; one that has more results is void
        self._ranked: list[Setting] | None = None

    def up_to(self, slots: Sequence[Slot]) -> Results:
        """Those of these slots: what was taken in already, if they begin with it, and then the others."""
        slots = list(slots)
        if self.slots != slots[: len(self.slots)]:  # quick: the very same objects are equal at once
            self._start()
        new, self.slots = slots[len(self.slots) :], slots
        for slot in new:
            self._take(slot)
        return self

    def num_done(self, slots: Sequence[Slot]) -> int:
        """How many of these slots come before the first without a result."""
        place = len(self.slots) if self._all_done and self.slots == list(slots[: len(self.slots)]) else 0
        while place < len(slots) and slots[place].done:
            place += 1
        return place

    def _take(self, slot: Slot) -> None:
        self._ranked = None
        self._all_done &= slot.done
        self.num_brackets += slot.origin == BRACKET
        self._seeds.setdefault(slot.setting, set()).add(slot.seed)
        for key, of in self.numbers.items():
            value = slot.params.get(key)
            if isinstance(value, (int, float)):
                of.take(slot, value)
                of.held = (of.held or self._space.dimensions[key]).including(value)
        if slot.value is not None:
            self._take_value(slot, slot.value)

    def _take_value(self, slot: Slot, value: float) -> None:
        if math.isfinite(value):
            self.worst = value if self.worst is None else max(self.worst, value)
        insort(self._lowest, (value, len(self.valued)))
        del self._lowest[self._most_modelled // 2 :]
        self.valued.append(slot)
        for step, loss in slot.rungs.items():
            insort(self._rungs.setdefault(step, []), math.inf if math.isnan(loss) else loss)  # NaN is in no order
        key = slot.setting
        if (key, slot.seed) in self._had:
            return  # the same trial twice is one result
        self._had.add((key, slot.seed))
        place = self._places.setdefault(key, len(self._places))
        found = self._settings.setdefault(key, (slot.params, []))
        found[1].append(value)
        if all(map(math.isfinite, found[1])):
            heapq.heappush(self._heap, (*rank(found), place, len(found[1]), key))

    @property
    def settings(self) -> list[Setting]:
        """Distinct ones in order of first appearance, with their results."""
        return list(self._settings.values())

    @property
    def ranked(self) -> list[Setting]:
        """Settings without a divergence, best mean first; ties go to the smaller LR, then to the earlier one."""
        if self._ranked is None:
            finite = [(params, values) for params, values in self.settings if all(map(math.isfinite, values))]
            self._ranked = sorted(finite, key=rank)
        return self._ranked

    @property
    def best(self) -> Params | None:
        """The first of them."""
        while self._heap:
            *_, count, key = self._heap[0]
            params, values = self._settings[key]
            if len(values) == count:
                return params
            heapq.heappop(self._heap)
        return None

    def modelled(self) -> list[Slot]:
        """Those with a value, the best and the latest where they are too many for a model."""
        most = self._most_modelled
        if len(self.valued) <= most:
            return self.valued
        latest = range(len(self.valued) - most // 2, len(self.valued))
        return [self.valued[place] for place in sorted({*latest, *(place for _, place in self._lowest)})]

    def medians(self) -> dict[int, float]:
        """Of the losses at each rung but the last; of four at least."""
        steps = sorted(step for step in self._rungs if step > 0)[:-1]
        held = {step: self._rungs[step] for step in steps if len(self._rungs[step]) >= LEAST_FOR_MEDIAN}
        return {step: (of[(len(of) - 1) // 2] + of[len(of) // 2]) / 2 for step, of in held.items()}

    def space(self) -> dict[str, Dimension]:
        """What is searched, with every extension that was tried."""
        held = {key: of.held for key, of in self.numbers.items() if of.held is not None}
        return {**self._space.dimensions, **held}

    def seeds(self, params: Params, more: Sequence[Slot]) -> set[int]:
        """Seeds of a setting, in these slots or in `more`."""
        key: _Key = tuple(sorted(params.items()))
        return self._seeds.get(key, set()) | {slot.seed for slot in more if slot.params == params}


def rank(setting: Setting) -> tuple[float, float]:
    """What settings are ordered by."""
    params, values = setting
    return fmean(values), number_of(params, LR) if LR in params else 0.0
