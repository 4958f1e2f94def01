"""The planner: decides every trial of a sweep, enqueues it, and notes what came out. It keeps no state of its own.

`step` looks at the storage and adds what is missing, so the same command after any crash goes on where it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optsweep import tracking_names as names
from optsweep.launch.worker import Job, is_alive
from optsweep.search.slots import Choice, Plan, Slot, choose, ready, suggest
from optsweep.search.space import Space
from optsweep.search.studies import History, Running, Studies, history
from optsweep.tracking import Tracker
from optsweep.tracking_names import Phase


@dataclass(frozen=True)
class Task:
    """An arm as the planner sees it."""

    job: Job
    plan: Plan
    space: Space
    num_seeds: int


@dataclass
class ArmProgress:
    """How far an arm is, for the display."""

    label: str
    total: int
    done: int = 0
    running: int = 0
    diverged: int = 0
    crashed: int = 0
    best: float | None = None
    phase: str = "search"
    mean_seconds: float | None = None


@dataclass
class _Seen:
    """What the planner remembers of an arm within this process, only to not write it twice."""

    chosen: Choice | None = None
    finished: bool = False
    progress: ArmProgress = field(default_factory=lambda: ArmProgress("", 0))


class Planner:
    """Plans all arms of a sweep."""

    def __init__(
        self,
        tasks: Sequence[Task],
        studies: Studies,
        tracker: Tracker,
        *,
        retries: int,
        on_done: Callable[[str, Phase, Slot], None] = lambda label, phase, slot: None,
    ) -> None:
        self.tasks, self.studies, self.tracker, self.retries = tasks, studies, tracker, retries
        self.on_done = on_done
        self._seen = {task.job.arm.name: _Seen() for task in tasks}
        self._told: set[tuple[str, Phase, int]] = set()
        self._first = True
        self.done_before = 0  # results that were there when this call began to work

    def step(self) -> bool:
        """Look at every arm and enqueue what can be decided; true when the sweep is finished."""
        for task in self.tasks:
            seen = self._seen[task.job.arm.name]
            if not seen.finished:
                seen.finished = self._step_arm(task, seen)
        self._first = False
        return all(seen.finished for seen in self._seen.values())

    @property
    def progress(self) -> list[ArmProgress]:
        """One entry per arm, in order."""
        return [self._seen[task.job.arm.name].progress for task in self.tasks]

    def num_done(self) -> int:
        """Trials of all arms that have a result."""
        return sum(progress.done for progress in self.progress)

    def train_seconds(self) -> float:
        """Pure training time of all trials so far."""
        return sum((p.mean_seconds or 0.0) * p.done for p in self.progress)

    def lose_worker(self, worker: str, reason: str) -> None:
        """A worker of this machine died: its trials are free again at once."""
        for running, _ in self._running():
            if running.worker == worker:
                self.studies.fail(running.trial_id, reason)

    def release_all(self, reason: str) -> None:
        """The user stopped the sweep: what runs is given up, without counting as a crash."""
        for running, _ in self._running():
            self.studies.fail(running.trial_id, reason, excused=True)

    def _running(self) -> list[tuple[Any, str]]:
        return [
            (running, task.job.arm.name)
            for task in self.tasks
            for phase in Phase
            for running in history(self.studies.trials(task.job.arm.name, phase), self.retries).running
        ]

    # -- one arm ---------------------------------------------------------------------------------------------------

    def _step_arm(self, task: Task, seen: _Seen) -> bool:
        search = self._history(task, Phase.SEARCH)
        slots = search.prefix()
        while len(slots) < task.plan.trials and ready(task.plan, len(slots), slots):
            slot = suggest(task.plan, task.space, len(slots), slots)
            self.studies.enqueue(task.job.arm.name, Phase.SEARCH, slot)
            slots.append(slot)
        confirm = self._history(task, Phase.CONFIRM)
        searched = len(slots) >= task.plan.trials and all(slot.done for slot in slots)
        finished = False
        if searched:
            finished = self._confirm(task, seen, slots, confirm)
        seen.progress = _progress(task, search, confirm, seen.chosen is not None or not task.plan.trials)
        return finished

    def _history(self, task: Task, phase: Phase) -> History:
        """The phase as it stands, trials of lost workers given up and enqueued again."""
        arm = task.job.arm.name
        found = history(self.studies.trials(arm, phase), self.retries)
        gone = [running for running in found.running if _lost(running)]
        for running in gone:
            # At the start of a call the whole sweep was stopped before: no fault of the trial.
            self.studies.fail(running.trial_id, "its worker was lost", excused=self._first)
        if gone:
            found = history(self.studies.trials(arm, phase), self.retries)
        for number, slot in found.lost.items():
            bare = replace(slot, value=None, pruned=False, rungs={})
            self.studies.enqueue(arm, phase, bare, found.attempts.get(number, 0) + 1)
        if found.lost:
            found = history(self.studies.trials(arm, phase), self.retries)
        for number, slot in found.slots.items():
            if slot.done and (arm, phase, number) not in self._told:
                self._told.add((arm, phase, number))
                if not self._first:
                    self.on_done(task.job.label, phase, slot)
        return found

    def _confirm(self, task: Task, seen: _Seen, slots: Sequence[Slot], confirm: History) -> bool:
        """Choose the setting, run it on fresh seeds; true when all are done."""
        arm = task.job.arm.name
        choice = choose(task.plan, task.space, slots) if task.plan.trials else _fixed(task.space)
        if choice != seen.chosen or choice is None:
            seen.chosen = choice
            self.tracker.set_tags(task.job.parent_run, {names.CHOSEN: _chosen_tag(choice)})
        if choice is None:  # every search trial diverged or crashed: there is nothing to confirm
            return True
        mine = {slot.seed: slot for slot in confirm.slots.values() if slot.params == choice.params}
        others = sorted(s.number for s in confirm.slots.values() if s.params != choice.params and s.done)
        number = max(confirm.slots, default=-1)
        for seed in range(task.num_seeds):
            if seed not in mine:
                number += 1
                mine[seed] = Slot(number, choice.params, seed, "chosen" if task.plan.trials else "fixed")
                self.studies.enqueue(arm, Phase.CONFIRM, mine[seed])
        if (self.studies.note(arm, "superseded") or []) != others:
            self.tracker.supersede(arm, others)
            self.studies.set_note(arm, "superseded", others)
        return all(slot.done for slot in [*mine.values(), *confirm.slots.values()])


def _lost(running: Running) -> bool:
    """Whether a worker is gone: dead on this host, or elsewhere with its lease run out."""
    alive = is_alive(running.worker)
    return alive is False or (alive is None and running.expires < time.time())


def _fixed(space: Space) -> Choice:
    """The choice where nothing is searched."""
    return Choice(params={}, mean=math.inf, count=0, sides={}, searched={}, numbers=())


def _chosen_tag(choice: Choice | None) -> Mapping[str, Any] | None:
    if choice is None:
        return None
    return {
        "params": dict(choice.params),
        "mean": choice.mean if choice.count else None,
        "n": choice.count,
        "bracketed": {"lr": dict(choice.sides)} if choice.sides else {},
        "searched": {key: list(value) for key, value in choice.searched.items()},
        "slots": list(choice.numbers),
    }


def _progress(task: Task, search: History, confirm: History, confirming: bool) -> ArmProgress:
    slots = [*search.slots.values(), *confirm.slots.values()]
    finite = [s.value for s in search.slots.values() if s.value is not None and s.value != float("inf")]
    count = sum(s.done for s in slots)
    return ArmProgress(
        label=task.job.label,
        total=task.plan.trials + max(task.num_seeds, len(confirm.slots)),  # superseded ones included
        done=count,
        running=len(search.running) + len(confirm.running),
        diverged=sum(s.value == float("inf") for s in slots),
        crashed=sum(s.crashed for s in slots),
        best=min(finite, default=None),
        phase="confirm" if confirming else "search",
        mean_seconds=(search.train_seconds + confirm.train_seconds) / count if count else None,
    )
