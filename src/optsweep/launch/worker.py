"""A worker: pops trials, trains them, writes the curves, tells the result. All workers are alike, and any may die."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from optsweep.build.assemble import Built
from optsweep.config.arm import Arm
from optsweep.errors import UserError, located
from optsweep.inference.repeats import seed_index
from optsweep.launch.builds import Builds
from optsweep.launch.checkpoints import BatchCheckpoints, Checkpoints, InterruptedTrainingError
from optsweep.launch.leases import LEASE_SECONDS, LeaseKeeper
from optsweep.search.ownership import Claim, LeaseLostError
from optsweep.search.process import process_name
from optsweep.search.slots import Slot, seed_of
from optsweep.search.space import Value
from optsweep.search.studies import Studies, Work
from optsweep.tracking import store
from optsweep.tracking.courier import Courier
from optsweep.tracking.outage import StoreFailureError, passes, patiently, storage_outage
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.spool import Spool
from optsweep.tracking.trial_log import TrialLog
from optsweep.train.process import threads
from optsweep.train.trial import Outcome, Phase, Rung, Trial

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """An arm as workers get it."""

    arm: Arm
    label: str
    fingerprint: str
    parent_run: str
    program_keys: tuple[str, ...] = ()  # searched keys in which trials that train together are alike
    colour: str = ""  # in MLflow's charts


Watch = Callable[[Callable[[], bool], Callable[[str], None]], AbstractContextManager[None]]
"""Within it the process ends once the first says so; the second hears before where in the user's code it is."""


def _unwatched(overdue: Callable[[], bool], tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """Trials in the user's own process may take as long as they like: a debugger may be at work."""
    return nullcontext()


class Worker:
    """Works trials of the given jobs until there is nothing left to do, in this process.

    It waits for the studies' storage where that fails, for as long as anybody does, and never for MLflow. Raises
    StoreFailureError when nobody waits any longer. `close` it: its courier has a thread.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        builds: Builds | None = None,  # what this process has built already
        stopping: Callable[[], bool] = lambda: False,
        watch: Watch = _unwatched,
    ) -> None:
        first = jobs[0].arm
        self.jobs, self.stopping, self.watch = jobs, stopping, watch
        self.builds = builds or Builds()
        spool = Spool.of(first.tracking_uri, first.storage, first.sweep)
        self._storage = storage_outage(first.storage, spool.folder)
        self.studies = self.waiting(lambda: opened(first.storage, first.sweep))
        self.checkpoints = Checkpoints.of(first.storage, first.sweep)
        store.preload()
        self.courier = Courier(spool)
        self.name = process_name()
        self._next = os.getpid() % len(jobs)

    def close(self) -> None:
        """Deliver what is written, within moments; the rest is left to others."""
        self.courier.close()

    def waiting(self, call: Callable[[], T]) -> T:
        """What a call of the studies' storage gives, however long that fails."""
        return patiently(call, self._storage, self.stopping)

    def work_once(self) -> bool:
        """Pop and train the trials of one arm, those of early repeats first; false if none was waiting."""
        for repeat in range(self.jobs[0].arm.most_repeats):
            for i in range(len(self.jobs)):
                job = self.jobs[(self._next + i) % len(self.jobs)]
                for phase in (Phase.SEARCH, Phase.CONFIRM):
                    works = self._pop(job, phase, repeat)
                    if works:
                        self._next += i + 1
                        self._train(job, works)
                        return True
        return False

    def _pop(self, job: Job, phase: Phase, repeat: int) -> list[Work]:
        """As many trials of one program as there are lanes."""

        def program(slot: Slot) -> list[Value]:
            return [slot.params[key] for key in job.program_keys]

        lanes = job.arm.trainer.lanes
        name = job.arm.name
        return self.waiting(lambda: self.studies.pop(name, phase, self.name, LEASE_SECONDS, lanes, program, repeat))

    def _train(self, job: Job, works: Sequence[Work]) -> None:
        """Train popped trials together; a crash fails them all, and each is run again."""
        claims, timeout = [work.claim for work in works], job.arm.trainer.timeout
        with LeaseKeeper(self.studies, claims, timeout=timeout) as leases:
            observer = _Reporter(self, job, leases, self._kept(job, works))

            def hung(place: str) -> None:
                reason = f"{place}: no progress for {leases.patience:.0f} s (trainer.timeout)"
                self._give_up(works, observer, reason, excused=False)
                observer.crash(reason)

            with self.watch(leases.overdue, hung):
                self._train_held(job, works, observer)

    def _kept(self, job: Job, works: Sequence[Work]) -> BatchCheckpoints:
        seconds = job.arm.trainer.checkpoint_seconds
        return BatchCheckpoints(self.checkpoints, works, job.fingerprint, seconds, self.stopping)

    def _train_held(self, job: Job, works: Sequence[Work], observer: _Reporter) -> None:
        try:
            built = self.builds.of(job.arm, works[0].repeat)
            observer.open(works, built)
            workload = built.workload_for(works[0].slot.params)
            with threads(job.arm.trainer.threads):
                workload.train([trial_of(job.arm, built, work) for work in works], observer, observer.kept)
        except LeaseLostError:
            return
        except InterruptedTrainingError:
            self._give_up(works, observer, "its sweep was stopped, or its planner is gone", excused=True)
        except StoreFailureError:
            with suppress(StoreFailureError):
                self._give_up(works, observer, "the store failed", excused=True)
            raise
        except Exception as error:
            reason = located(error)[:500]
            self._give_up(works, observer, reason, excused=False)
            observer.crash(reason)

    def _give_up(self, works: Sequence[Work], observer: _Reporter, reason: str, *, excused: bool) -> None:
        """Free the slots of trials without a result."""
        for work in works:
            if work.claim not in observer.told:
                self.waiting(partial(self.studies.fail, work.claim, reason, excused=excused))


def opened(storage: str, sweep: str) -> Studies:
    """The studies. Raises what the storage raises where that may pass, and UserError where it doesn't."""
    try:
        return Studies.open(storage, sweep)
    except UserError as error:
        if error.__context__ is not None and passes(error.__context__):
            raise error.__context__ from None
        raise


def trial_of(arm: Arm, built: Built, work: Work) -> Trial:
    """The numbers to train with."""
    return Trial(
        hyper=built.space.hyper(work.slot.params),
        seed=seed_of(arm.seed, work.phase.value, seed_index(work.repeat, work.slot.seed)),
        prune_above=work.slot.prune_above,
        test=work.phase is Phase.CONFIRM,
    )


class _Reporter:
    """Tells MLflow and the study what happens to the trials of one batch."""

    def __init__(self, worker: Worker, job: Job, leases: LeaseKeeper, kept: BatchCheckpoints) -> None:
        self.worker, self.job, self.leases, self.kept = worker, job, leases, kept
        self.logs: list[TrialLog] = []
        self.works: Sequence[Work] = ()
        self.told: set[Claim] = set()
        self.dropped: set[Claim] = set()

    def open(self, works: Sequence[Work], built: Built) -> None:
        """Open one run per trial; one that goes on goes on with its run."""
        with self.leases.storing():
            self._open(works, built)

    def _open(self, works: Sequence[Work], built: Built) -> None:
        self.works = works
        self.kept.look(built.program.device, lambda place: self.logs[place].points)
        self.logs += [self._log(place, built) for place in range(len(works))]
        for place, rungs in enumerate(self.kept.rungs):  # that an earlier attempt has told
            for step, value in rungs.items():
                self._report(place, step, value)

    def _log(self, place: int, built: Built) -> TrialLog:
        work, kept = self.works[place], self.kept
        slot = work.slot
        head = TrialHead(
            arm=work.arm,
            phase=work.phase,
            slot=slot.number,
            seed=seed_index(work.repeat, slot.seed),
            origin=slot.origin,
            hyper=built.space.values(slot.params),
            lanes=len(self.works),
            id=work.id,
            label=self.job.label,
            colour=self.job.colour,
        )
        metric = built.program.task.metric
        letter = self.worker.courier.open(work.id)
        resume = " ".join(reversed(work.earlier)) if kept.goes_on(place) else None
        before = kept.points[place]
        parent, again = self.job.parent_run, work.attempt > 0
        return TrialLog(letter, parent, head.run_name, head, metric, again=again, resume=resume, before=before)

    def on_rung(self, place: int, rung: Rung) -> None:
        """Log the rung, which is the progress that keeps the lease."""
        self.leases.rung(rung.step)
        with self.leases.storing():
            self._note(place, rung)

    def _note(self, place: int, rung: Rung) -> None:
        work = self.works[place]
        if place in self.leases.lost:
            self._drop(place)
        if work.claim in self.dropped:
            return
        self.logs[place].rung(rung)
        self.kept.rungs[place][rung.step] = rung.val_loss
        self._report(place, rung.step, rung.val_loss)

    def _report(self, place: int, step: int, value: float) -> None:
        """Tell the study of a rung, if a pruner wants to know."""
        if self.job.arm.search.pruner != "none":
            try:
                self.worker.waiting(
                    partial(self.worker.studies.report, self.works[place].claim, step, value, LEASE_SECONDS)
                )
            except LeaseLostError:
                self._drop(place)

    def on_end(self, place: int, outcome: Outcome) -> None:
        """Write the end first, then tell the study: a told trial is complete in MLflow or in the spool."""
        with self.leases.storing():
            self._tell(place, outcome)

    def _tell(self, place: int, outcome: Outcome) -> None:
        work = self.works[place]
        if work.claim in self.dropped:
            return
        self.logs[place].end(outcome)
        told = (outcome.end, outcome.val_loss, outcome.train_seconds, outcome.test_loss, outcome.test_blocks)
        try:
            self.worker.waiting(lambda: self.worker.studies.tell(work.claim, *told))
        except LeaseLostError:
            if not self.worker.waiting(lambda: self.worker.studies.was_told(work.claim)):
                self._drop(place)
                return
        self.leases.ended(place)
        self.told.add(work.claim)
        self.kept.ended(place)
        self.logs[place].close()

    def _drop(self, place: int) -> None:
        """Leave a trial that was given up to whoever has it now. Raises LeaseLostError if none of the batch is left."""
        work = self.works[place]
        if work.claim in self.dropped:
            return
        self.dropped.add(work.claim)
        self.leases.ended(place)
        self.kept.leave(place)
        self.logs[place].crash("given up by the planner; it was run again")
        if len(self.told) + len(self.dropped) == len(self.works):
            raise LeaseLostError

    def crash(self, reason: str) -> None:
        """Close the runs of all trials that have no result."""
        for place, (log, work) in enumerate(zip(self.logs, self.works, strict=False)):
            if work.claim not in self.told | self.dropped:
                self.kept.ended(place)
                log.crash(reason)
