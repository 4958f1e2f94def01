"""How many lanes an arm's trials are to have: a function of how long steps of some numbers of them take.

The choice asks how many trials there will be to train side by side: vmap costs a small model some plain steps,
whatever the number of lanes, so half-empty lanes are slower than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LADDER = (2, 4, 16, 64, 256)
"""Numbers of lanes that are tried; between them the time of a step is taken along a line."""

LEAST_GAIN = 1.4
"""Time with one lane over time with several from which on it is several: less may be noise of a busy machine."""

ALIKE = 1.05
"""The fewest lanes that take at most so much longer than the fastest are taken: they need less memory."""

VMAP_STEPS: Mapping[str, float] = {"cpu": 2.2}
"""Plain steps that a step of any number of lanes takes at least: 2.1 to 2.3 for the small models of the catalogue."""


@dataclass(frozen=True)
class LaneTimes:
    """Milliseconds of a step: of the plain module, and of so many lanes together; or why there can't be several."""

    one: float = 0.0
    several: Mapping[int, float] = field(default_factory=dict)
    upto: int = LADDER[-1]  # lanes up to which others than these would not be faster, or have no room
    alone: str = ""
    room: int = 0  # lanes at most, since memory ran out with more; 0: it never did

    def of(self, lanes: int) -> float:
        """Of a step of so many lanes, between the numbers that were tried along a line; a lone one is padded."""
        known = sorted(self.several)
        lanes = max(lanes, known[0])
        below = max(k for k in known if k <= lanes)
        above = min((k for k in known if k >= lanes), default=below)
        if above == below:
            return self.several[below] * lanes / below  # beyond the last one it isn't faster
        share = (lanes - below) / (above - below)
        return (1 - share) * self.several[below] + share * self.several[above]


@dataclass(frozen=True)
class Crowd:
    """Trials of an arm of which so many wait for one process at a time."""

    trials: int
    at_once: int


@dataclass(frozen=True)
class LaneChoice:
    """A number of lanes; `gain` is the time of all trials with one lane over that with `best` lanes, 0 if unknown."""

    lanes: int
    best: int = 0
    gain: float = 0.0


def choose(times: LaneTimes, crowds: Sequence[Crowd], *, several: bool = False) -> LaneChoice:
    """The number of lanes for these trials; `several`: at least two, for a sweep that began so."""
    possible = sorted(lanes for lanes in {*times.several, times.room} if 2 <= lanes <= (times.room or lanes))
    if not (times.several and possible):
        return LaneChoice(2 if several else 1)
    total = sum(crowd.trials for crowd in crowds)

    def seconds(lanes: int) -> float:
        filled = [(crowd.trials, min(lanes, crowd.at_once)) for crowd in crowds]
        return sum(trials * times.of(together) / together for trials, together in filled)

    by_number = {lanes: seconds(lanes) for lanes in possible}
    fastest = min(by_number.values())
    best = next(lanes for lanes, found in by_number.items() if found <= ALIKE * fastest)
    gain = total * times.one / by_number[best]
    return LaneChoice(best if several or gain >= LEAST_GAIN else 1, best, gain)


def may_gain(crowds: Sequence[Crowd], device: torch.device) -> bool:
    """Whether several lanes could be worth it, however little they cost on such a device: else nothing is tried."""
    least = VMAP_STEPS.get(device.type, 1.0)
    total = sum(crowd.trials for crowd in crowds)
    return total >= LEAST_GAIN * sum(crowd.trials * least / crowd.at_once for crowd in crowds)
