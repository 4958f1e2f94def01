"""The planner: decides every trial of a sweep, enqueues it, and notes what came out. It keeps no state of its own.

`step` looks at the storage and adds what is missing, so the same command after any crash goes on where it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from optuna.trial import TrialState

from optsweep.inference.comparison import judge
from optsweep.inference.groups import Peers, group
from optsweep.inference.looks import AUTO, LOOKS, REPEAT_LOOKS, Level, Repeats, Seeds, num_seeds
from optsweep.launch.deferred import Deferred
from optsweep.launch.events import ArmProgress
from optsweep.launch.standing import FIXED, Counts, Standing, by_moments, chosen_of, counts_of, pooled
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.leases import LeaseWatch
from optsweep.report.wording import plural
from optsweep.search.helping import lost_machines
from optsweep.search.history import History
from optsweep.search.ownership import Lease
from optsweep.search.process import in_words
from optsweep.search.results import Results
from optsweep.search.seats import Seat
from optsweep.search.slots import Choice, SearchPlan, Slot, choose, next_slots, results_of
from optsweep.search.space import Space
from optsweep.search.studies import Studies
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

FULL_LOOK_SECONDS = 10.0
"""So often every unfinished arm is read, for leases that run out; between, where a trial was made or ended."""


@dataclass(frozen=True)
class PlannedArm:
    """One search of an arm, and what confirms its choice, as the planner sees it."""

    job: Job
    plan: SearchPlan
    space: Space
    repeat: int = 0

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.job.arm.name

    @property
    def key(self) -> tuple[str, int]:
        """Unique in the sweep."""
        return self.name, self.repeat

    @property
    def choices(self) -> Mapping[str, str]:
        """What it is, as the report has it from the arm's tag."""
        return self.job.arm.combination


@dataclass
class _Seen:
    """What the planner remembers of a search within this process, only to not write or read it twice."""

    results: Results  # of its search
    standing: Standing = field(default_factory=Standing)
    chosen: Choice | None = None
    num_seeds: int = 0
    superseded: Sequence[int] = ()  # that are written, or going to be
    finished: bool = False
    counts: Mapping[Phase, Counts] = field(default_factory=dict)  # at the last look
    progress: ArmProgress = field(default_factory=lambda: ArmProgress("", 0))
    told: Mapping[Phase, set[int]] = field(default_factory=lambda: {phase: set() for phase in Phase})


class Planner:
    """Plans all searches of all arms of a sweep; every repeat is one as if it were alone.

    With `repeats` auto the tasks are as many as there may be, of which each group runs those that it wants by now.
    """

    def __init__(
        self,
        tasks: Sequence[PlannedArm],  # repeat 0 of all arms, then 1, …: those that are first enqueued are first run
        studies: Studies,
        seat: Seat,
        tracker: Tracker,
        *,
        seeds: Seeds,
        repeats: Repeats = 1,
        repeats_before: int = 0,  # which auto goes on from
        baseline: str,
        delta: float | None = None,
        retries: int,
        on_done: Callable[[str, Phase, Slot], None] = lambda label, phase, slot: None,
        on_hung: Callable[[str], None] = lambda worker: None,
        on_repeat: Callable[[int], None] = lambda complete: None,
        watch: LeaseWatch | None = None,
        deferred: Deferred | None = None,
        check_files: Callable[[], None] = lambda: None,  # raises if a store is gone
    ) -> None:
        self.tasks, self.studies, self.seat, self.tracker, self.retries = tasks, studies, seat, tracker, retries
        self.seeds, self.delta, self.on_done, self.on_hung = seeds, delta, on_done, on_hung
        self.repeats, self.on_repeat, self._check_files = repeats, on_repeat, check_files
        self._watch = watch or LeaseWatch(lost=lambda: lost_machines(studies.engine, studies.sweep))
        self.deferred = deferred or Deferred()  # writes to MLflow, which training doesn't wait for
        of = [[task for task in tasks if task.repeat == repeat] for repeat in sorted({t.repeat for t in tasks})]
        self._groups = list(zip(*(group(held, baseline) for held in of), strict=True))  # each by repeat
        self._seen = {task.key: _Seen(results_of(task.space)) for task in tasks}
        self._wanted = [self._num_repeats(searches, repeats_before) for searches in self._groups]
        self._complete = 0  # repeats
        self._first = True
        self._full_look = 0.0
        self.done_before = 0  # results that were there when this call began to work

    def step(self) -> bool:
        """Look at the arms that changed and enqueue what can be decided; true when the sweep is finished.

        Raises SeatLostError if another planner has taken over, and what the storage raises; then call it again.
        """
        try:
            self._check_files()
            self.seat.check()
            while self._look():
                pass
        except Exception:
            self._full_look = -math.inf  # what was looked at in vain counts as not looked at
            self.studies.read_anew()  # a server that failed may have lost something
            raise
        self.deferred.try_to_send()
        finished = all(seen.finished for seen in self._active.values())
        complete = self._num_complete()
        if complete > self._complete and not (finished or self._first):
            self.on_repeat(complete)
        self._complete, self._first = complete, False
        return finished

    def _look(self) -> bool:
        """Look once; true if more searches are wanted now, which are to be looked at too."""
        stale = self._stale()
        for repeat in range(max(self._wanted)):
            for searches, wanted in zip(self._groups, self._wanted, strict=True):
                if repeat < wanted and any(stale.get(task.key) for task in searches[repeat].arms):
                    self._step_group(searches[repeat], stale)
        before = self._wanted
        self._wanted = [self._num_repeats(*held) for held in zip(self._groups, before, strict=True)]
        return self._wanted != before

    @property
    def _active(self) -> Mapping[tuple[str, int], _Seen]:
        """The searches that are to be run by now."""
        return {
            task.key: self._seen[task.key]
            for searches, wanted in zip(self._groups, self._wanted, strict=True)
            for peers in searches[:wanted]
            for task in peers.arms
        }

    def _num_complete(self) -> int:
        """Repeats that every arm has run to the end, of those that it is to run."""
        return min((key[1] for key, seen in self._active.items() if not seen.finished), default=max(self._wanted))

    def _num_repeats(self, searches: Sequence[Peers[PlannedArm]], most: int) -> int:
        """How many searches every arm of a group is to have by now."""

        def complete(look: int) -> bool:
            return all(self._seen[task.key].finished for peers in searches[:look] for task in peers.arms)

        def decided() -> bool:
            seeds = 0 if self.seeds == AUTO else self.seeds
            held = {task.key: self._seen[task.key].standing for peers in searches for task in peers.arms}
            names = [task.name for task in searches[0].arms]
            arms = {name: pooled([held[name, repeat] for repeat in range(most)], seeds) for name in names}
            baseline = arms.pop(searches[0].baseline.name)
            findings = judge(list(arms.values()), baseline, Level.planned(REPEAT_LOOKS, ()), self.delta)
            return all(finding.decided for finding in findings)

        return num_seeds(self.repeats, most, complete, decided, REPEAT_LOOKS)

    @property
    def progress(self) -> list[ArmProgress]:
        """One entry per arm, in order."""
        of: dict[str, list[_Seen]] = {task.name: [] for task in self.tasks}
        for (name, _), seen in self._active.items():
            of[name].append(seen)
        more = self.repeats == AUTO
        return [_together(held, more and len(of) > 1 and len(held) < REPEAT_LOOKS[-1]) for held in of.values()]

    def num_done(self) -> int:
        """Trials of all arms that have a result."""
        return sum(progress.done for progress in self.progress)

    def train_seconds(self) -> float:
        """Pure training time of all trials so far."""
        return sum((p.mean_seconds or 0.0) * p.done for p in self.progress)

    def out_of_sight(self) -> Iterator[str]:
        """Who holds trials and can't be seen from here, and when the sweep goes on if they are gone: a line each."""
        held: dict[str, list[Lease]] = {}
        for lease in self._leases():
            if lease.worker and self._watch.out_of_sight(lease):
                held.setdefault(lease.worker, []).append(lease)
        for worker, leases in held.items():
            seconds = max(self._watch.seconds_until_silent(lease) for lease in leases)
            yield (
                f"{plural(len(leases), 'trial')} in the hands of {in_words(worker)}, which can't be seen from here; if "
                f"it is gone (a container that was replaced), the sweep goes on with them in {seconds:.0f} s"
            )

    def lose_worker(self, worker: str, reason: str) -> None:
        """A worker of this machine died: its trials are free again at once."""
        for lease in self._leases():
            if lease.worker == worker:
                self.studies.fail(lease.claim, reason, died=True)

    def release_all(self, reason: str) -> None:
        """The user stopped the sweep: what runs is given up, without counting as a crash.

        Raises SeatLostError if it is another planner's by now.
        """
        self.seat.check()
        for lease in self._leases():
            self.studies.fail(lease.claim, reason, excused=True)

    def _leases(self) -> list[Lease]:
        return [
            running.lease
            for arm, repeat in self._active
            for phase in Phase
            for running in self.studies.history(arm, phase, self.retries, repeat).running
        ]

    def _stale(self) -> Mapping[tuple[str, int], Collection[Phase]]:
        """Phases of searches to read: those in which a trial was made or ended since, and now and then all."""
        active = self._active
        states = self.studies.states(list(active))
        now = time.monotonic()
        look_at_all = self._first or now - self._full_look > FULL_LOOK_SECONDS
        if look_at_all:
            self._full_look = now
        stale: dict[tuple[str, int], Collection[Phase]] = {}
        for key, seen in active.items():
            if not seen.finished:
                counts = {phase: counts_of(states[key], phase) for phase in Phase}
                stale[key] = [phase for phase in Phase if look_at_all or counts[phase] != seen.counts.get(phase)]
                seen.counts = counts
                seen.progress.running = sum(n for _, state, n in states[key] if state is TrialState.RUNNING)
        return stale

    # -- one group -------------------------------------------------------------------------------------------------

    def _step_group(self, peers: Peers[PlannedArm], stale: Mapping[tuple[str, int], Collection[Phase]]) -> None:
        for task in peers.arms:
            if phases := stale.get(task.key):
                self._seen[task.key].standing = self._search(task, phases)
        wanted = self._num_seeds(peers)
        for task in peers.arms:
            seen = self._seen[task.key]
            if stale.get(task.key) or seen.num_seeds != wanted:
                seen.num_seeds = wanted
                seen.finished = seen.standing.searched and self._confirm(task, seen)
                may_grow = self.seeds == AUTO and wanted < LOOKS[-1] and len(peers.arms) > 1 and not seen.finished
                seen.progress = _progress(task, seen, may_grow)

    def _num_seeds(self, peers: Peers[PlannedArm]) -> int:
        """How many confirm seeds every arm of the group is to have by now."""
        standings = [self._seen[task.key].standing for task in peers.arms]
        baseline = self._seen[peers.baseline.key].standing

        def decided() -> bool:
            candidates = [standing for standing in standings if standing is not baseline]
            return all(finding.decided for finding in judge(candidates, baseline, Level.of(LOOKS), self.delta))

        most = max(max(standing.seeds, default=-1) + 1 for standing in standings)
        return num_seeds(self.seeds, most, lambda look: all(s.complete(look) for s in standings), decided)

    # -- one arm ---------------------------------------------------------------------------------------------------

    def _search(self, task: PlannedArm, phases: Collection[Phase]) -> Standing:
        """Read these phases of the arm, and enqueue search trials that can be decided."""
        before = self._seen[task.key].standing
        anew = Phase.SEARCH in phases  # else all that could be decided was, at the look before
        search = self._history(task, Phase.SEARCH) if anew else before.search
        slots = search.prefix()
        if anew:
            for new in by_moments(next_slots(task.plan, task.space, slots, self._seen[task.key].results)):
                self.studies.enqueue_all(self.seat, task.name, Phase.SEARCH, new, repeat=task.repeat)
        confirm = self._history(task, Phase.CONFIRM) if Phase.CONFIRM in phases else before.confirm
        if before.searched and not anew:
            return replace(before, confirm=confirm)
        searched = len(slots) >= task.plan.trials and search.done >= set(range(len(slots)))
        choice = FIXED if searched else None
        if searched and task.plan.trials:
            choice = choose(task.plan, task.space, slots)
        return Standing(search, confirm, searched, choice)

    def _history(self, task: PlannedArm, phase: Phase) -> History:
        """The phase as it stands, trials of lost workers given up and enqueued again."""
        arm, repeat = task.key
        found = self.studies.history(arm, phase, self.retries, repeat)
        leases = [running.lease for running in found.running]
        dead = self._watch.dead(leases)
        given_up = [self._give_up(lease, dead=lease.worker in dead) for lease in leases]
        if any(given_up):
            found = self.studies.history(arm, phase, self.retries, repeat)
        for number, slot in found.lost.items():
            again = replace(slot, value=None, pruned=False, rungs={}), found.attempts.get(number, 0) + 1
            self.studies.enqueue(self.seat, arm, phase, *again, repeat, found.earlier.get(number, ()))
        if found.lost:
            found = self.studies.history(arm, phase, self.retries, repeat)
        told = self._seen[task.key].told[phase]
        for number in sorted(found.done - told):
            slot = found.slots[number]
            if slot.crashed:  # no further attempt closes the run of the last one
                error = found.errors.get(number, "")
                self.deferred.add(partial(self.tracker.lost_trials, arm, phase, number, error, repeat))
            if not self._first:
                self.on_done(task.job.label, phase, slot)
        told |= found.done
        return found

    def _give_up(self, lease: Lease, *, dead: bool) -> bool:
        """Free a trial whose worker is gone: dead on this host, or silent, here or elsewhere."""
        # At the start of a call the whole sweep was stopped before: no fault of the trial.
        if dead:
            return self.studies.fail(lease.claim, "its worker was lost", excused=self._first, died=True)
        if not self._watch.silent(lease):
            return False
        reason = "its worker hung or was lost"
        left = self._watch.left(lease)
        given_up = self.studies.fail(lease.claim, reason, excused=self._first, died=True, if_left=left)
        if given_up:
            self.on_hung(lease.worker)
        return given_up

    def _confirm(self, task: PlannedArm, seen: _Seen) -> bool:
        """Run the chosen setting on as many fresh seeds as are wanted; true when all are done."""
        choice, confirm = seen.standing.choice, seen.standing.confirm
        if choice != seen.chosen or choice is None:
            seen.chosen = choice
            chosen = chosen_of(choice, task.space)
            self.deferred.add(partial(self.tracker.note_chosen, task.job.parent_run, chosen, task.repeat))
        if choice is None:  # every search trial diverged or crashed: there is nothing to confirm
            return True
        others = sorted(s.number for s in confirm.slots.values() if s.params != choice.params and s.done)
        missing = [seed for seed in range(seen.num_seeds) if seed not in seen.standing.seeds]
        origin = "chosen" if task.plan.trials else "fixed"
        numbered = enumerate(missing, max(confirm.slots, default=-1) + 1)
        if slots := [Slot(number, choice.params, seed, origin) for number, seed in numbered]:
            self.studies.enqueue_all(self.seat, task.name, Phase.CONFIRM, slots, repeat=task.repeat)
        if (self.studies.note(task.name, "superseded", task.repeat) or []) != others and seen.superseded != others:
            seen.superseded = others
            self.deferred.add(partial(self._supersede, task, others))
        return not missing and all(slot.done for slot in confirm.slots.values())

    def _supersede(self, task: PlannedArm, others: Sequence[int]) -> None:
        """Take the confirm trials of another setting out of the phase."""
        self.tracker.supersede(task.name, others, task.repeat)
        self.studies.set_note(task.name, "superseded", others, task.repeat)


def _progress(task: PlannedArm, seen: _Seen, may_grow: bool) -> ArmProgress:
    search, confirm = seen.standing.search, seen.standing.confirm
    count = search.num_done + confirm.num_done
    return ArmProgress(
        label=task.job.label,
        total=task.plan.trials + max(seen.num_seeds, len(confirm.slots)),  # superseded ones included
        may_grow=may_grow,
        done=count,
        running=len(search.running) + len(confirm.running),
        diverged=search.num_diverged + confirm.num_diverged,
        crashed=search.num_crashed + confirm.num_crashed,
        best=search.best,
        phase="confirm" if seen.chosen is not None or not task.plan.trials else "search",
        mean_seconds=(search.train_seconds + confirm.train_seconds) / count if count else None,
    )


def _together(searches: Sequence[_Seen], may_grow: bool) -> ArmProgress:
    """The progress of an arm with all its searches."""
    at = next((number for number, seen in enumerate(searches) if not seen.finished), len(searches) - 1)
    more = may_grow and not all(seen.finished for seen in searches)
    return ArmProgress.together([seen.progress for seen in searches], at, more)
