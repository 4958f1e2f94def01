"""A phase of an arm as its trials in the storage tell it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optsweep.search.ownership import Claim, Lease
from optsweep.search.slots import Slot
from optsweep.train.trial import End

DEATHS = 3
"""A trial that so many workers in a row died of is given up: it may be what kills them (its memory, a segfault)."""


@dataclass(frozen=True)
class Running:
    """A trial in training, as its worker last described it."""

    slot: int
    lease: Lease


@dataclass(frozen=True)
class History:
    """One phase of an arm as the storage has it."""

    slots: Mapping[int, Slot]  # the latest state of every slot that was ever created and not lost
    attempts: Mapping[int, int]  # per slot, those that an error or a worker's death ended
    running: Sequence[Running]
    waiting: int
    train_seconds: float
    errors: Mapping[int, str]  # last error per crashed slot
    lost: Mapping[int, Slot]  # slots to be enqueued again
    earlier: Mapping[int, tuple[str, ...]]  # per slot, attempts that it can go on from: no error of its own came after
    done: AbstractSet[int] = frozenset()  # slots with a result
    num_diverged: int = 0
    num_crashed: int = 0
    best: float | None = None  # the lowest value

    def prefix(self) -> list[Slot]:
        """Slots 0, 1, … up to the first that is missing."""
        missing = bool(self.slots) and max(self.slots) >= len(self.slots)
        numbers = takewhile(self.slots.__contains__, count()) if missing else range(len(self.slots))
        return [self.slots[number] for number in numbers]

    @property
    def num_done(self) -> int:
        """Slots with a result."""
        return len(self.done)


NO_HISTORY = History({}, {}, (), 0, 0.0, {}, {}, {})


def slot_of(trial: FrozenTrial) -> Slot:
    """The slot that a trial is an attempt at, with its result, if it has one."""
    attributes = trial.user_attrs
    end = attributes.get("end")
    value = test_loss = None
    if trial.state is TrialState.COMPLETE:
        value, test_loss = trial.value, attributes.get("test_loss")
    elif trial.state is TrialState.PRUNED and end == End.DIVERGED:
        value = math.inf
    return replace(
        slot_from(attributes),
        value=value,
        test_loss=test_loss,
        test_blocks=tuple(attributes.get("test_blocks", ())) if test_loss is not None else (),
        pruned=trial.state is TrialState.PRUNED and end == End.PRUNED,
        rungs=dict(trial.intermediate_values),
    )


def slot_from(attributes: Mapping[str, Any]) -> Slot:
    """The slot as the planner has decided it, from a trial's attributes."""
    return Slot(
        number=int(attributes["slot"]),
        params=dict(attributes["params"]),
        seed=int(attributes["seed"]),
        origin=str(attributes["origin"]),
        prune_above={int(step): float(v) for step, v in attributes.get("prune_above", {}).items()},
    )


@dataclass
class _Slot:
    """What became of a slot, over all its attempts."""

    slot: Slot | None = None  # None: no attempt that wasn't lost
    lost: Slot | None = None
    attempts: int = 0
    own_errors: int = 0
    deaths: int = 0  # of workers, in a row
    error: str = ""
    earlier: tuple[str, ...] | None = None

    def take(self, trial: FrozenTrial) -> None:
        """Take in the next attempt."""
        said, slot = trial.user_attrs, slot_of(trial)
        if trial.state is not TrialState.FAIL:
            self.slot, self.lost = slot, None
            return
        cut_off = bool(said.get("excused") or said.get("died"))
        self.earlier = (*(self.earlier or ()), str(said.get("id"))) if cut_off else ()
        if not said.get("excused"):
            died = bool(said.get("died"))
            self.attempts += 1
            self.own_errors += not died
            self.deaths = self.deaths + 1 if died else 0
            self.error = str(said.get("error", ""))
        self.lost = slot


@dataclass
class Account:
    """A phase as it stands, kept by taking in trials that are new or have changed: what hasn't costs nothing."""

    trials: dict[int, dict[int, FrozenTrial]] = field(default_factory=dict)  # by slot, its attempts in their order
    slots: dict[int, Slot] = field(default_factory=dict)
    failed: dict[int, _Slot] = field(default_factory=dict)  # those of which an attempt was
    running: dict[int, int] = field(default_factory=dict)  # slots, by trial
    waiting: set[int] = field(default_factory=set)  # trials
    done: set[int] = field(default_factory=set)
    diverged: set[int] = field(default_factory=set)
    best: float | None = None
    seconds: float = 0.0

    def take(self, trial: FrozenTrial) -> None:
        """Take in a trial as it is now; new ones come in the order in which they were made."""
        if "slot" not in trial.user_attrs:
            return
        key, number = trial._trial_id, int(trial.user_attrs["slot"])
        attempts = self.trials.setdefault(number, {})
        before = attempts.get(key)
        attempts[key] = trial
        self.seconds += _seconds(trial) - (0.0 if before is None else _seconds(before))
        self.waiting.discard(key)
        self.running.pop(key, None)
        if trial.state is TrialState.WAITING:
            self.waiting.add(key)
        elif trial.state is TrialState.RUNNING:
            self.running[key] = number
        found = _Slot()
        for attempt in attempts.values():
            found.take(attempt)
        if found.earlier is not None:
            self.failed[number] = found
        self._set(number, found.slot)

    def _set(self, number: int, slot: Slot | None) -> None:
        before = self.slots.get(number)
        if slot is None:
            self.slots.pop(number, None)
        else:
            self.slots[number] = slot
        self.done.discard(number)
        self.diverged.discard(number)
        if slot is not None and slot.done:
            self.done.add(number)
        if slot is not None and slot.value == math.inf:
            self.diverged.add(number)
        if before is not None and before.value is not None:  # a result that was taken back
            self.best = None
            for held in self.slots.values():
                self._compare(held.value)
        elif slot is not None:
            self._compare(slot.value)

    def _compare(self, value: float | None) -> None:
        if value is not None and math.isfinite(value) and (self.best is None or value < self.best):
            self.best = value

    def history(self, leases: Mapping[int, Lease], retries: int) -> History:
        """The phase; a slot with more errors than `retries`, or `DEATHS` in a row, is done, as crashed."""
        slots, done = dict(self.slots), set(self.done)
        lost = {number: of.lost for number, of in self.failed.items() if of.lost is not None}
        crashed = [n for n in lost if self.failed[n].own_errors > retries or self.failed[n].deaths >= DEATHS]
        for number in crashed:
            slots[number] = _crashed(lost.pop(number))
            done.add(number)
        counted = {number: of for number, of in self.failed.items() if of.attempts}
        return History(
            slots=slots,
            attempts={number: of.attempts for number, of in counted.items()},
            running=[Running(n, leases.get(key, _ended(key))) for key, n in sorted(self.running.items())],
            waiting=len(self.waiting),
            train_seconds=self.seconds,
            errors={number: of.error for number, of in counted.items()},
            lost=lost,
            earlier={number: of.earlier for number, of in self.failed.items() if of.earlier is not None},
            done=done,
            num_diverged=len(self.diverged),
            num_crashed=len(crashed),
            best=self.best,
        )


def _seconds(trial: FrozenTrial) -> float:
    return float(trial.user_attrs.get("train_seconds", 0.0))


def _ended(trial: int) -> Lease:
    """The lease of a trial that has none any more: it ended between two reads."""
    return Lease(Claim(trial, -1), "", 0, expired=False)


def _crashed(slot: Slot) -> Slot:
    return Slot(slot.number, slot.params, slot.seed, slot.origin, crashed=True)
