"""A phase of an arm as its trials in the storage tell it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

    def prefix(self) -> list[Slot]:
        """Slots 0, 1, … up to the first that is missing."""
        slots: list[Slot] = []
        for number in range(len(self.slots)):
            if (slot := self.slots.get(number)) is None:
                break
            slots.append(slot)
        return slots

    @property
    def num_done(self) -> int:
        """Slots with a result."""
        return sum(slot.done for slot in self.slots.values())


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
class Beginning:
    """The beginning of a phase, in which every trial came to a result: it is read once."""

    count: int = 0  # trials
    slots: dict[int, Slot] = field(default_factory=dict)
    train_seconds: float = 0.0

    def advance(self, trials: Sequence[FrozenTrial], slot_of: Callable[[FrozenTrial], Slot]) -> None:
        """Take in what has come to a result since, up to the first trial that hasn't."""
        for trial in trials[self.count :]:
            if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or "slot" not in trial.user_attrs:
                return
            slot = slot_of(trial)
            self.slots[slot.number] = slot
            self.train_seconds += float(trial.user_attrs.get("train_seconds", 0.0))
            self.count += 1


def read_history(
    trials: Sequence[FrozenTrial],
    leases: Mapping[int, Lease],
    retries: int,
    slot_of: Callable[[FrozenTrial], Slot] = slot_of,
    settled: Beginning | None = None,
) -> History:
    """Read a phase; a slot with more errors than `retries`, or `DEATHS` in a row, is done, as crashed."""
    settled = settled or Beginning()
    slots = dict(settled.slots)
    attempts: dict[int, int] = {}
    own_errors: dict[int, int] = {}
    deaths: dict[int, int] = {}  # of workers, in a row
    errors: dict[int, str] = {}
    running: list[Running] = []
    lost: dict[int, Slot] = {}
    earlier: dict[int, tuple[str, ...]] = {}
    waiting, seconds = 0, settled.train_seconds
    for trial in trials[settled.count :]:
        said, state = trial.user_attrs, trial.state
        if "slot" not in said:
            continue
        slot = slot_of(trial)
        seconds += float(said.get("train_seconds", 0.0))
        if state is TrialState.FAIL:
            cut_off = bool(said.get("excused") or said.get("died"))
            earlier[slot.number] = (*earlier.get(slot.number, ()), str(said.get("id"))) if cut_off else ()
            if not said.get("excused"):
                died = bool(said.get("died"))
                attempts[slot.number] = attempts.get(slot.number, 0) + 1
                own_errors[slot.number] = own_errors.get(slot.number, 0) + (not died)
                deaths[slot.number] = deaths.get(slot.number, 0) + 1 if died else 0
                errors[slot.number] = str(said.get("error", ""))
            lost[slot.number] = slot
            continue
        slots[slot.number] = slot
        lost.pop(slot.number, None)
        if state is TrialState.WAITING:
            waiting += 1
        elif state is TrialState.RUNNING:
            # Without a lease it ended between two reads.
            ended = Lease(Claim(trial._trial_id, -1), "", 0, expired=False)
            running.append(Running(slot.number, leases.get(trial._trial_id, ended)))
    for number in [n for n in lost if own_errors.get(n, 0) > retries or deaths.get(n, 0) >= DEATHS]:
        slots[number] = _crashed(lost.pop(number))
    return History(slots, attempts, running, waiting, seconds, errors, lost, earlier)


def _crashed(slot: Slot) -> Slot:
    return Slot(slot.number, slot.params, slot.seed, slot.origin, crashed=True)
