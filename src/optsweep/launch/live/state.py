"""A sweep while it runs, at one look: arms, who is at work, what went wrong, how long it still takes.

From the studies' storage alone, so from any machine that reaches it. What is said of the results is in report.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from statistics import fmean
from typing import Any

from optuna.trial import TrialState

from optsweep.inference.looks import AUTO, LOOKS, REPEAT_LOOKS
from optsweep.launch.status import PLANNED, LastReport, is_finished, last_report, short_names
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.launch.worker.shared_folder import CHECKPOINTS, where_kept
from optsweep.report.wording import number
from optsweep.search.heartbeat import BEAT_SECONDS
from optsweep.search.latest import Points
from optsweep.search.observing import Hold, SeenTrial, Sight
from optsweep.search.process import in_words, is_alive
from optsweep.search.seats import SEAT_SECONDS
from optsweep.search.space import as_typed
from optsweep.search.studies import WENT_ON
from optsweep.train.trial import Phase

SILENT_SECONDS = 3 * BEAT_SECONDS
"""Without a sign of life, after which a process is called silent that can't be seen from here."""

MOST_INCIDENTS = 30
"""That are over. Those of now, no more than there are lanes, take none of their places: it would come back."""

JUMP = 0.5
"""Of what a curve has gained so far: where it loses more than this between two points it jumps."""

LEAST_GAIN = 0.4
"""Of its first value: what a curve counts as having gained, at least, so that the noise of a beginning is no jump."""


class State(StrEnum):
    """How far a sweep is as a whole."""

    RUNNING = "running"
    TRAINED = "trained"  # all trials have results; its report is still to come
    STOPPED = "stopped"  # trials are missing, and nobody plans them


@dataclass(frozen=True)
class LiveArm:
    """How far an arm is, in trials of all its searches."""

    name: str
    label: str
    phase: str
    done: int
    total: int
    running: int
    pruned: int
    diverged: int
    failed: int  # attempts, which are run again
    best: float | None  # validation loss
    seconds: float | None  # of a trial, on average

    @property
    def left(self) -> int:
        """Trials without a result."""
        return max(self.total - self.done, 0)


@dataclass(frozen=True)
class LiveWorker:
    """A process of the sweep: its planner, or a worker that has a trial, or that died of one."""

    process: str  # in words
    doing: str
    seconds: float | None  # since it was heard of
    state: str  # at work, silent, dead


@dataclass(frozen=True)
class Incident:
    """Something that one wants to see soon."""

    kind: str  # diverged, failed, dead, jump
    where: str
    what: str
    when: datetime | None = None  # None: now


@dataclass(frozen=True)
class InTraining:
    """A trial whose curves are still growing."""

    arm: str
    label: str
    val: Points
    train: Points


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one look."""

    sweep: str
    state: State
    arms: tuple[LiveArm, ...]
    may_grow: bool  # `auto` may add trials
    workers: tuple[LiveWorker, ...]
    incidents: tuple[Incident, ...]  # the latest first
    training: tuple[InTraining, ...]
    planned: bool  # somebody has the right to plan it: also while steps are timed, once all is trained
    checkpoints: str = ""  # where they lie, in words
    report: LastReport | None = None  # None: it is still to come

    @property
    def done(self) -> int:
        """Trials with a result."""
        return sum(arm.done for arm in self.arms)

    @property
    def total(self) -> int:
        """Trials that it will have, or more."""
        return sum(arm.total for arm in self.arms)

    @property
    def seconds_left(self) -> float | None:
        """By all who are at work now; None where nobody is, or no trial has ended yet."""
        known = [arm.seconds for arm in self.arms if arm.seconds is not None]
        busy = sum(worker.state == "at work" and worker.doing != PLANS for worker in self.workers)
        if not known or not busy or self.state is not State.RUNNING:
            return None
        return sum(arm.left * (arm.seconds or fmean(known)) for arm in self.arms) / busy


PLANS = "plans"


@dataclass
class Looker:
    """Makes snapshots of what is seen, and remembers who had which trial: the dead leave nothing else behind."""

    sweep: str
    labels: Mapping[str, str] = field(default_factory=dict)  # by arm, where they are known
    on_server: bool = False  # the storage
    _had: dict[int, str] = field(default_factory=dict)  # process by trial
    _dead: dict[str, tuple[str, datetime | None]] = field(default_factory=dict)  # by process: its trial, and when

    def snapshot(self, sight: Sight) -> Snapshot:
        """What a look came to."""
        labels = dict(zip(sight.notes, short_names(list(sight.notes)), strict=True)) | dict(self.labels)
        for trial in sight.trials:
            if trial.hold is not None:
                self._had[trial.number] = trial.hold.process
            elif trial.died and trial.number in self._had:
                self._dead[self._had.pop(trial.number)] = _place(trial, labels), trial.when
        arms = tuple(_arms(sight, labels))
        return Snapshot(
            self.sweep,
            _state(sight),
            arms,
            any(AUTO in (note.get(PLANNED) or ()) for note in sight.notes.values()),
            (*_workers(sight, labels), *self._gone()),
            tuple(_incidents(sight.trials, labels)),
            tuple(_training(sight.trials, labels)),
            _is_planned(sight),
            self._kept(sight),
            last_report(self.sweep, sight.notes.values()),
        )

    def _kept(self, sight: Sight) -> str:
        noted = next((note[CHECKPOINTS] for note in sight.notes.values() if note.get(CHECKPOINTS)), None)
        went_on = sum(WENT_ON in trial.said for trial in sight.trials)
        return where_kept(noted, went_on, on_server=self.on_server)

    def _gone(self) -> Iterator[LiveWorker]:
        now = datetime.now(UTC)
        for process, (place, when) in self._dead.items():
            ago = None if when is None else max((now - when).total_seconds(), 0.0)
            yield LiveWorker(in_words(process), f"died in {place}, which is run again", ago, "dead")


def _state(sight: Sight) -> State:
    if sight.notes and all(map(is_finished, sight.notes.values())):
        return State.TRAINED
    return State.RUNNING if _is_planned(sight) else State.STOPPED


def _is_planned(sight: Sight) -> bool:
    planner = sight.planner
    return planner is not None and is_alive(planner.process) is not False and planner.left >= 0


def _arms(sight: Sight, labels: Mapping[str, str]) -> Iterator[LiveArm]:
    of: dict[str, list[SeenTrial]] = {arm: [] for arm in sight.notes}
    for trial in sight.trials:
        of[trial.arm].append(trial)
    for arm, note in sight.notes.items():
        trials = of[arm]
        results = [trial for trial in trials if trial.done]
        seconds = [float(trial.said.get("train_seconds", 0.0)) for trial in results]
        losses = [trial.value for trial in results if trial.value is not None and math.isfinite(trial.value)]
        total = _planned(trials, note.get(PLANNED))
        confirms = any(trial.phase is Phase.CONFIRM for trial in trials)
        yield LiveArm(
            name=arm,
            label=labels[arm],
            phase="done" if len(results) >= total else "confirm" if confirms else "search",
            done=len(results),
            total=total,
            running=sum(trial.state is TrialState.RUNNING for trial in trials),
            pruned=sum(trial.pruned for trial in trials),
            diverged=sum(trial.diverged for trial in trials),
            failed=sum(trial.failed for trial in trials),
            best=min(losses, default=None),
            seconds=fmean(seconds) if seconds else None,
        )


def _planned(trials: Sequence[SeenTrial], size: Sequence[Any] | None) -> int:
    """Trials that the arm will have, as far as is known: `auto` has at least those of its first look."""
    there = len({(trial.phase, trial.repeat, trial.slot) for trial in trials})
    if size is None:
        return there
    search, seeds, repeats = size
    planned: int = (REPEAT_LOOKS[0] if repeats == AUTO else repeats) * (search + (LOOKS[0] if seeds == AUTO else seeds))
    return max(there, planned)


def _place(trial: SeenTrial, labels: Mapping[str, str]) -> str:
    again = f"repeat {trial.repeat}, " if trial.repeat else ""
    return f"{labels[trial.arm]} · {again}{trial.phase} {trial.slot}"


def _workers(sight: Sight, labels: Mapping[str, str]) -> Iterator[LiveWorker]:
    if sight.planner is not None:
        yield _worker(sight.planner, SEAT_SECONDS, PLANS)
    held: dict[str, list[SeenTrial]] = {}
    for trial in sight.trials:
        if trial.hold is not None:
            held.setdefault(trial.hold.process, []).append(trial)
    for process, trials in held.items():
        left = max(trial.hold.left for trial in trials if trial.hold is not None)
        more = f" and {len(trials) - 1} more" if len(trials) > 1 else ""
        yield _worker(Hold(process, left), LEASE_SECONDS, f"trains {_place(trials[0], labels)}{more}")


def _worker(hold: Hold, lease: float, doing: str) -> LiveWorker:
    seconds, alive = max(lease - hold.left, 0.0), is_alive(hold.process)
    state = "dead" if alive is False else "silent" if seconds > SILENT_SECONDS else "at work"
    return LiveWorker(in_words(hold.process), doing, seconds, state)


def _incidents(trials: Iterable[SeenTrial], labels: Mapping[str, str]) -> list[Incident]:
    found = []
    for trial in trials:
        where = _place(trial, labels)
        if trial.failed:
            found.append(
                Incident("dead" if trial.died else "failed", where, str(trial.said.get("error", "")), trial.when)
            )
        elif trial.diverged:
            found.append(Incident("diverged", where, _setting(trial), trial.when))
        elif trial.state is TrialState.RUNNING:
            found += [
                Incident("jump", where, f"{curve} from {number(low)} to {number(high)} at step {step:,}")
                for curve, points in (("on validation", trial.latest.val), ("training loss", trial.latest.train))
                for step, low, high in jumps(points)[-1:]
            ]
    now = [incident for incident in found if incident.when is None]
    past = [(incident.when, incident) for incident in found if incident.when is not None]
    latest = sorted(past, key=lambda dated: dated[0], reverse=True)[:MOST_INCIDENTS]
    return now + [incident for _, incident in latest]


def jumps(points: Points) -> list[tuple[int, float, float]]:
    """Where a curve jumps, or leaves all bounds: (step, lowest before, value)."""
    found = []
    lowest = before = math.inf
    for step, value in points:
        if not math.isfinite(before):  # nothing yet, or already gone
            rises = False
        elif math.isfinite(value):
            first = points[0][1]
            rises = value - before > JUMP * max(first - lowest, LEAST_GAIN * abs(first))
        else:
            rises = True
        if rises:
            found.append((step, lowest, value))
        before, lowest = value, min(lowest, value) if math.isfinite(value) else lowest
    return found


def _setting(trial: SeenTrial) -> str:
    params: Mapping[str, Any] = trial.said.get("params", {})
    return ", ".join(f"{key} {as_typed(value)}" for key, value in params.items())


def _training(trials: Iterable[SeenTrial], labels: Mapping[str, str]) -> Iterator[InTraining]:
    for trial in trials:
        if trial.state is TrialState.RUNNING and (trial.latest.val or trial.latest.train):
            yield InTraining(trial.arm, _place(trial, labels), trial.latest.val, trial.latest.train)
