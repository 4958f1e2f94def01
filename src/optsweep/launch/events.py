"""What a sweep has to say while it runs, as plain data.

`run_sweep` and what it calls print nothing: they hand events to an observer, which decides how they look (on a
terminal, in a log, in a notebook).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optsweep.inference.looks import Repeats
from optsweep.search.slots import Slot
from optsweep.train.trial import Phase


@dataclass
class ArmProgress:
    """How far an arm is."""

    label: str
    total: int
    may_grow: bool = False  # auto may add seeds or searches to the total
    done: int = 0
    running: int = 0
    diverged: int = 0
    crashed: int = 0
    best: float | None = None
    phase: str = "search"
    mean_seconds: float | None = None

    @classmethod
    def together(cls, parts: Sequence[ArmProgress], at: int, may_grow: bool) -> ArmProgress:
        """Of an arm with several searches, of which number `at` is the one in work."""
        done = sum(part.done for part in parts)
        seconds = sum((part.mean_seconds or 0.0) * part.done for part in parts)
        return cls(
            label=parts[0].label,
            total=sum(part.total for part in parts),
            may_grow=may_grow or any(part.may_grow for part in parts),
            done=done,
            running=sum(part.running for part in parts),
            diverged=sum(part.diverged for part in parts),
            crashed=sum(part.crashed for part in parts),
            best=min((part.best for part in parts if part.best is not None), default=None),
            phase=parts[at].phase + (f" {at + 1}/{len(parts)}" if len(parts) > 1 else ""),
            mean_seconds=seconds / done if done else None,
        )


@dataclass(frozen=True)
class Note:
    """Something that the user should know before training starts."""

    text: str


@dataclass(frozen=True)
class Planned:
    """What is going to be trained; how much of it is left follows with the state of the arms."""

    baseline: str  # label of the arm that others are held against; empty: there is one arm
    steps: tuple[int, int]  # of a trial, at least and at most
    trial_seconds: Mapping[str, float]  # that a trial of an arm takes, by its label, where anything is known of it
    basis: str  # of that, in words


@dataclass(frozen=True)
class Started:
    """Training begins, with this many workers."""

    sweep: str
    workers: int


@dataclass(frozen=True)
class Progressed:
    """The state of every arm, in order; sent about once a second."""

    arms: Sequence[ArmProgress]

    def ends_within(self, seconds: float, workers: int) -> bool:
        """Whether there is only this much left to train, and nothing to decide any more."""
        decided = all(arm.phase.startswith("confirm") and not arm.may_grow for arm in self.arms)
        left = sum((arm.total - arm.done) * (arm.mean_seconds or math.inf) for arm in self.arms if arm.done < arm.total)
        return decided and 0 < left <= seconds * workers


@dataclass(frozen=True)
class TrialEnded:
    """A trial of an arm ended while this call ran."""

    label: str
    phase: Phase
    slot: Slot


@dataclass(frozen=True)
class RepeatEnded:
    """Every arm has run so many of its searches to the end, and there are more to come."""

    complete: int
    planned: Repeats


@dataclass(frozen=True)
class PageWritten:
    """A provisional report is there."""

    complete: int
    planned: Repeats
    index: Path


@dataclass(frozen=True)
class Stopped:
    """The user stopped the sweep; what is finished is kept, and `command` goes on."""

    done: int
    total: int
    command: str


@dataclass(frozen=True)
class Trained:
    """Training is over; timing and summaries follow."""


Event = Note | Planned | Started | Progressed | TrialEnded | RepeatEnded | PageWritten | Stopped | Trained
Observer = Callable[[Event], None]


def silent(event: Event) -> None:
    """An observer that says nothing."""
