"""Holds MLflow's runs against Optuna's studies, which are the truth about results, and mends what differs.

A trial has one id in both. One with a result has one run, closed with the same end, else it is run again; a run that is
of no result is set aside, or closed where it was left open. So a slot has one current run, whatever happened before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from optsweep.launch.status import FINISHED
from optsweep.search.seats import Seat
from optsweep.search.studies import Known, Studies
from optsweep.tracking import names
from optsweep.tracking.heads import RunHead
from optsweep.tracking.names import Status
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

NO_RESULT = "of no result in the studies"
CUT_OFF = "cut off before its end"
NO_CURVES = "its curves are gone from MLflow"

_TRIAL = rf"(repeat \d+, )?({'|'.join(Phase)}) \d+"
_WITHOUT_TAGS = re.compile(rf"{_TRIAL} · .*|.* · {_TRIAL}")
"""The name of a trial's run that was made and then not described, as versions before this one named it too: its worker
was killed between two calls."""


@dataclass
class Found:
    """What differed."""

    again: list[Known] = field(default_factory=list)  # results without a run: to be run again
    restored: list[RunHead] = field(default_factory=list)  # deleted by somebody
    aside: list[RunHead] = field(default_factory=list)  # of no result
    closed: list[RunHead] = field(default_factory=list)  # left open by an attempt that was cut off
    arms: set[str] = field(default_factory=set)  # whose sheet told of other trials

    def __bool__(self) -> bool:
        return bool(self.again or self.restored or self.aside or self.closed or self.arms)

    def sentences(self, tracking: str, storage: str) -> Iterator[str]:
        """A line per kind, with the names of the two stores."""
        again, restored, aside = len(self.again), len(self.restored), len(self.aside)
        closed, arms = len(self.closed), len(self.arms)
        if again:
            yield f"{_of(again, 'trial has', 'trials have')} no curves in {tracking} any more: {_run_again(again)}"
        if restored:
            yield f"{_of(restored, 'run', 'runs')} that somebody had deleted in {tracking} {_are(restored)} restored"
        if aside:
            yield f"{_of(aside, 'run', 'runs')} in {tracking} {_are(aside)} of no result in {storage}: set aside"
        if closed:
            yield f"{_of(closed, 'run', 'runs')} of trials that were cut off {_are(closed)} closed as crashed"
        if arms:
            yield f"what {tracking} said of {_of(arms, 'arm', 'arms')} was of other trials: it is written anew"


def _of(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _run_again(count: int) -> str:
    return "it is run again" if count == 1 else "they are run again"


def reconcile(
    studies: Studies,
    seat: Seat,
    tracker: Tracker,
    arms: Collection[str],
    undelivered: Callable[[], Collection[str]] = tuple,
) -> Found:
    """Hold these arms' runs against their trials; one query of each store.

    `undelivered` gives the ids of trials that wait for their way into MLflow. Raises SeatLostError. What it finds of
    trials that are to be run again it finds until they are, however often it fails before.
    """
    trials = studies.known(arms)  # first: what is told by now is complete in MLflow,
    waiting = undelivered()  # or waits,
    runs = tracker.every_run()  # or has got there since
    found = Found()
    _compare(trials, [run for run in runs if run.arm in arms], found)
    found.again = _asked_for(studies, [trial for trial in found.again if trial.id not in waiting])
    found.closed += [run for run in runs if _is_bare(run)]
    _look_at_parents(tracker, arms, trials, runs, found)
    _drop_notes(studies, tracker, trials, runs, found)  # before: what is mended isn't found again
    _mend(tracker, found)
    _check_sheets(tracker, arms, trials, runs, found)
    _drop_notes(studies, tracker, trials, runs, found)
    for arm in dict.fromkeys(trial.arm for trial in found.again):
        studies.run_again(seat, arm, [trial for trial in found.again if trial.arm == arm], NO_CURVES)
    return found


# -- what differs ------------------------------------------------------------------------------------------------------


def _compare(trials: Sequence[Known], runs: Sequence[RunHead], found: Found) -> None:
    """Sort out the trials' runs."""
    of_trials: dict[str, list[RunHead]] = {trial.id: [] for trial in trials}
    foreign: list[RunHead] = []
    for run in runs:
        if run.kind == "trial":
            of_trials.get(run.tags.get(names.TRIAL, ""), foreign).append(run)
    found.aside += [run for run in foreign if not run.is_deleted]
    for trial in trials:
        held = of_trials[trial.id]
        if trial.state.is_finished():
            kept = _current(trial, held) if trial.told else None
            if trial.told and kept is None:
                found.again.append(trial)
            elif kept is not None and kept.is_deleted:
                found.restored.append(kept)
            for run in held:
                if run is not kept and not run.is_deleted:
                    _sort_out(run, found)


def _current(trial: Known, held: Sequence[RunHead]) -> RunHead | None:
    """The run of a trial with a result: the last one that ended as it did, if need be a deleted one."""
    alike = [run for run in held if trial.end is not None and run.tags.get(names.STATUS) == trial.end.value]
    return sorted(alike, key=lambda run: not run.is_deleted)[-1] if alike else None


def _sort_out(run: RunHead, found: Found) -> None:
    """A run that isn't its trial's current one."""
    status = run.tags.get(names.STATUS)
    if status == Status.RUNNING or run.is_open:
        found.closed.append(run)
    elif status != Status.CRASHED:
        found.aside.append(run)


def _is_bare(run: RunHead) -> bool:
    """Whether it is a trial's that was made and never described."""
    bare = run.kind is None and run.is_open and not run.is_deleted
    return bare and _WITHOUT_TAGS.fullmatch(run.name) is not None


def _asked_for(studies: Studies, trials: Sequence[Known]) -> list[Known]:
    """Without those whose setting is no longer the chosen one: nobody asks for their curves."""
    confirmed = {(trial.arm, trial.repeat) for trial in trials if trial.phase is Phase.CONFIRM}
    left = {(arm, repeat): studies.note(arm, "superseded", repeat) or [] for arm, repeat in confirmed}
    return [t for t in trials if t.phase is not Phase.CONFIRM or t.slot not in left[t.arm, t.repeat]]


def _look_at_parents(
    tracker: Tracker, arms: Collection[str], trials: Sequence[Known], runs: Sequence[RunHead], found: Found
) -> None:
    """The runs of sweep and arms: restored where trials have none, set aside where they are of other trials."""
    started = {trial.arm for trial in trials}
    left = {run.arm for run in runs if run.kind == "trial"}
    parents = [run for run in runs if run.kind in ("sweep", "arm")]
    for arm in (None, *arms):  # None: the sweep's
        own = [run for run in parents if run.arm == arm]
        active = [run for run in own if not run.is_deleted]
        if started and arm in (None, *started):
            found.restored += [] if active else own[-1:]
        elif arm is not None:
            of_others = [run for run in active if arm in left or _tells_of_trials(tracker, run)]
            found.aside += of_others
            found.arms |= {arm for _ in of_others}


def _tells_of_trials(tracker: Tracker, run: RunHead) -> bool:
    sheet = tracker.arm_sheet(run.run_id)
    said = () if sheet is None else (sheet.timing, sheet.chosen, *sheet.chosen_again)
    return any(held is not None for held in said)


# -- what is done ------------------------------------------------------------------------------------------------------


def _mend(tracker: Tracker, found: Found) -> None:
    for run in found.restored:
        tracker.restore(run)
    for run in found.aside:
        tracker.set_aside(run, NO_RESULT)
    for run in found.closed:
        tracker.close(run.run_id, CUT_OFF)


def _check_sheets(
    tracker: Tracker, arms: Collection[str], trials: Sequence[Known], runs: Sequence[RunHead], found: Found
) -> None:
    """Take back what sheets say was chosen where the trials that it was chosen by have no result."""
    gone = {trial.number for trial in found.again}
    told = {(t.arm, t.repeat, t.slot) for t in trials if t.phase is Phase.SEARCH and t.told and t.number not in gone}
    aside = {run.run_id for run in found.aside}
    for run in runs:
        arm, run_id = run.arm, run.run_id
        if run.kind != "arm" or arm is None or arm not in arms or run_id in aside:
            continue
        if run.is_deleted and run not in found.restored:
            continue
        if (sheet := tracker.arm_sheet(run_id)) is None:
            continue
        before = [sheet.chosen, *sheet.chosen_again]
        after = [
            held if held is not None and all((arm, repeat, slot) in told for slot in held.slots) else None
            for repeat, held in enumerate(before)
        ]
        if after != before:
            tracker.write_sheet(run_id, replace(sheet, chosen=after[0], chosen_again=tuple(after[1:])))
            found.arms.add(arm)


def _drop_notes(
    studies: Studies, tracker: Tracker, trials: Sequence[Known], runs: Sequence[RunHead], found: Found
) -> None:
    """What was noted of finished work is found out anew, and reported anew, where anything differed."""
    if not found:
        return
    for arm, repeat in dict.fromkeys((trial.arm, trial.repeat) for trial in trials):
        for key in (FINISHED, "superseded"):
            if studies.note(arm, key, repeat) is not None:
                studies.set_note(arm, key, None, repeat)
    for run in runs:
        if run.kind == "sweep" and (not run.is_deleted or run in found.restored):
            tracker.note_report(run.run_id, "")
