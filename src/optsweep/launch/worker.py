"""A worker: pops trials, trains them, writes the curves, tells the result. All workers are alike, and any may die."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optsweep.build.assemble import Built, build_arm, device_of
from optsweep.build.named_task import task_for
from optsweep.build.resplit import redraws
from optsweep.config.arm import Arm
from optsweep.errors import located
from optsweep.inference.repeats import seed_index
from optsweep.launch.checkpoints import BatchCheckpoints, Checkpoints, InterruptedTrainingError
from optsweep.launch.leases import LEASE_SECONDS, LeaseKeeper
from optsweep.search.ownership import Claim, LeaseLostError
from optsweep.search.process import process_name
from optsweep.search.slots import Slot, seed_of
from optsweep.search.space import Value
from optsweep.search.studies import Studies, Work
from optsweep.tasks.base import Trainable
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.store import StoreFailureError
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.process import threads
from optsweep.train.trial import Outcome, Phase, Rung, Trial


@dataclass(frozen=True)
class Job:
    """An arm as workers get it."""

    arm: Arm
    label: str
    fingerprint: str
    parent_run: str
    program_keys: tuple[str, ...] = ()  # searched keys in which trials that train together are alike


class Worker:
    """Works trials of the given jobs until there is nothing left to do, in this process."""

    def __init__(
        self, jobs: Sequence[Job], *, device: str | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        first = jobs[0].arm
        self.jobs, self.stopping, self.device = jobs, stopping, device
        self.studies = Studies.open(first.storage, first.sweep)
        self.tracker = Tracker(first.tracking_uri, first.sweep)
        self.checkpoints = Checkpoints.of(first.storage, first.sweep)
        self.name = process_name()
        self._tasks: dict[str, Trainable] = {}
        self._built: dict[tuple[str, int], Built] = {}
        self._next = os.getpid() % len(jobs)

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
        return self.studies.pop(job.arm.name, phase, self.name, LEASE_SECONDS, lanes, program, repeat)

    def _train(self, job: Job, works: Sequence[Work]) -> None:
        """Train popped trials together; a crash fails them all, and each is run again."""
        with LeaseKeeper(self.studies, [work.claim for work in works]) as leases:
            self._train_held(job, works, _Reporter(self, job, leases))

    def _train_held(self, job: Job, works: Sequence[Work], observer: _Reporter) -> None:
        try:
            built = self._build(job.arm, works[0].repeat)
            kept = BatchCheckpoints(
                self.checkpoints,
                works,
                job.fingerprint,
                seconds=job.arm.trainer.checkpoint_seconds,
                stopping=self.stopping,
            )
            kept.look(built.program.device)
            observer.open(works, built, kept)
            workload = built.workload_for(works[0].slot.params)
            with threads(job.arm.trainer.threads):
                workload.train([trial_of(job.arm, built, work) for work in works], observer, kept)
        except LeaseLostError:
            return
        except InterruptedTrainingError:
            self._give_up(works, observer, "its sweep was stopped, or its planner is gone", excused=True)
        except StoreFailureError:
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
                self.studies.fail(work.claim, reason, excused=excused)

    def _build(self, arm: Arm, repeat: int) -> Built:
        """The arm as the repeat has it, which is another one where the split is drawn anew."""
        key = repr(arm.task)
        if key not in self._tasks:
            self._tasks[key] = task_for(arm)
        task = self._tasks[key]
        of = arm.name, repeat if redraws(arm, task) else 0
        if of not in self._built:
            device = device_of(arm.trainer.device if self.device is None else self.device)
            self._built[of] = build_arm(arm, task, device, repeat)
        return self._built[of]


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

    kept: BatchCheckpoints

    def __init__(self, worker: Worker, job: Job, leases: LeaseKeeper) -> None:
        self.worker, self.job, self.leases = worker, job, leases
        self.logs: list[TrialLog] = []
        self.works: Sequence[Work] = ()
        self.told: set[Claim] = set()
        self.dropped: set[Claim] = set()

    def open(self, works: Sequence[Work], built: Built, kept: BatchCheckpoints) -> None:
        """Open one run per trial; one that goes on goes on with its run."""
        self.works, self.kept = works, kept
        for place, work in enumerate(works):
            before = kept.goes_on_from(place)
            if work.attempt and before is None:
                reason = "cut off before its end; it was run again"
                self.worker.tracker.lost_trials(work.arm, work.phase, work.slot.number, reason, work.repeat)
            self.logs.append(self._log(work, built, before))
            kept.take_over(place)

    def _log(self, work: Work, built: Built, before: str | None) -> TrialLog:
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
        )
        repeat = f"repeat {work.repeat}, " if work.repeat else ""
        name = f"{self.job.label} · {repeat}{work.phase.value} {slot.number}"
        metric = built.program.task.metric
        return TrialLog(self.worker.tracker, self.job.parent_run, name, head, metric, resume=before)

    def on_rung(self, place: int, rung: Rung) -> None:
        """Log the rung, which is the progress that keeps the lease."""
        self.leases.rung(rung.step)
        work = self.works[place]
        if place in self.leases.lost:
            self._drop(place)
        if work.claim in self.dropped:
            return
        self.logs[place].rung(rung)
        if self.job.arm.search.pruner != "none":
            try:
                self.worker.studies.report(work.claim, rung.step, rung.val_loss, LEASE_SECONDS)
            except LeaseLostError:
                self._drop(place)

    def on_end(self, place: int, outcome: Outcome) -> None:
        """Close the run first, then tell the study: a told trial is complete in MLflow."""
        work = self.works[place]
        if work.claim in self.dropped:
            return
        self.logs[place].end(outcome)
        told = (outcome.end, outcome.val_loss, outcome.train_seconds, outcome.test_loss, outcome.test_blocks)
        try:
            self.worker.studies.tell(work.claim, *told)
        except LeaseLostError:
            self._drop(place)
        else:
            self.leases.ended(place)
            self.told.add(work.claim)
            self.kept.ended(place)

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
