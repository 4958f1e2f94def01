"""What MLflow and the studies are told of trials while a worker trains them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from optsweep.build.assemble import Built
from optsweep.build.machine import Machine
from optsweep.config.allowed import ELSEWHERE
from optsweep.inference.repeats import seed_index
from optsweep.launch.worker.checkpoints import TrialCheckpoints
from optsweep.launch.worker.leases import LEASE_SECONDS, LeaseKeeper
from optsweep.search.ownership import LeaseLostError
from optsweep.search.studies import Work
from optsweep.terminal import complain
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.trial_log import TrialLog
from optsweep.train.trial import Outcome, Rung

if TYPE_CHECKING:  # who has one
    from optsweep.launch.worker.job import Job
    from optsweep.launch.worker.worker import Worker

LOST = "this worker was out of touch for longer than its lease, and the trial was given to another one; it is dropped"


class Reporter:
    """Tells MLflow and the study what happens to the trials in training, which come and go, by their keys."""

    def __init__(self, worker: Worker, job: Job, leases: LeaseKeeper, kept: TrialCheckpoints) -> None:
        self.worker, self.job, self.leases, self.kept = worker, job, leases, kept
        self.training: dict[int, Work] = {}  # those without a result, which are nobody else's
        self.logs: dict[int, TrialLog] = {}
        self.told = 0  # results
        self._others: dict[str, str] = {}  # what this machine is in place of that on which trials began, to be noted
        self._count = 0

    def hold(self, work: Work) -> int:
        """Keep the lease of a trial that was popped; returns its key."""
        key, self._count = self._count, self._count + 1
        self.training[key] = work
        self.leases.add(key, work.claim)
        return key

    def open(self, key: int, built: Built) -> None:
        """Open a trial's run; one that goes on goes on with its run."""
        with self.leases.storing():
            device = built.program.device
            here = Machine.of(device)
            self._others = dict(here.others(self.job.machine or here))
            machine = list(here.words.values())
            self.kept.add(key, self.training[key], device, lambda: self.logs[key].points, machine)
            log = self.logs[key] = self._log(key, built)
            self.worker.latest.add(self.training[key].claim, lambda: log.points)
            for step, value in self.kept.rungs(key).items():  # that an earlier attempt has told
                self._report(key, step, value)

    def _log(self, key: int, built: Built) -> TrialLog:
        work, kept = self.training[key], self.kept
        slot = work.slot
        device, versions = kept.trained_on(key)
        head = TrialHead(
            arm=work.arm,
            phase=work.phase,
            slot=slot.number,
            seed=seed_index(work.repeat, slot.seed),
            origin=slot.origin,
            hyper=built.space.values(slot.params),
            lanes=len(self.training),
            id=work.id,
            label=self.job.label,
            colour=self.job.colour,
            device=device,
            versions=versions,
        )
        metric = built.program.task.metric
        letter = self.worker.courier.open(work.id)
        resume = " ".join(reversed(work.earlier)) if kept.goes_on(key) else None
        before = kept.points_before(key)
        parent, again = self.job.parent_run, work.attempt > 0
        return TrialLog(letter, parent, head.run_name, head, metric, again=again, resume=resume, before=before)

    def on_rung(self, key: int, rung: Rung) -> None:
        """Log the rung, which is the progress that keeps the leases."""
        self.leases.rung(rung.step)
        with self.leases.storing():
            if key in self.leases.lost:
                self._drop(key)
            if key in self.training:
                self.logs[key].rung(rung)
                self.kept.rungs(key)[rung.step] = rung.val_loss
                self._report(key, rung.step, rung.val_loss)

    def _report(self, key: int, step: int, value: float) -> None:
        """Tell the study of a rung, if a pruner wants to know."""
        if key in self.training and self.job.arm.search.pruner != "none":
            report, claim = self.worker.studies.report, self.training[key].claim
            try:
                self.worker.waiting(partial(report, claim, step, value, LEASE_SECONDS))
            except LeaseLostError:
                self._drop(key)

    def on_end(self, key: int, outcome: Outcome) -> None:
        """Write the end first, then tell the study: a told trial is complete in MLflow or in the spool."""
        if key in self.training:
            with self.leases.storing():
                self._tell(key, outcome)

    def _tell(self, key: int, outcome: Outcome) -> None:
        claim, studies = self.training[key].claim, self.worker.studies
        self.logs[key].end(outcome)
        self._note_others()
        found = (outcome.end, outcome.val_loss, outcome.train_seconds, outcome.test_loss, outcome.test_blocks)
        told = (*found, self.kept.went_on(key))
        try:
            self.worker.waiting(lambda: studies.tell(claim, *told))
        except LeaseLostError:
            if not self.worker.waiting(lambda: studies.was_told(claim)):
                self._drop(key)
                return
        self.leases.ended(key)
        self._leave(key)
        self.kept.ended(key)
        self.logs.pop(key).close()
        self.told += 1
        self.worker.told()

    def _note_others(self) -> None:
        """Let the studies know that trials are of another machine: once for each arm, before its first result."""
        arm, worker = self.job.arm.name, self.worker
        for word, found in self._others.items():
            if (arm, word) not in worker.noted:
                worker.waiting(partial(worker.studies.set_note, arm, ELSEWHERE[word], found))
                worker.noted.add((arm, word))

    def _drop(self, key: int) -> None:
        """Leave a trial that was given up to whoever has it now. Raises LeaseLostError if no other is in training."""
        work = self.training.get(key)
        if work is None or not self._leave(key):
            return
        complain(f"{self.job.label}, {work.phase} {work.slot.number}: {LOST}")
        self.leases.ended(key)
        self.kept.leave(key)
        self.logs.pop(key).crash("given up by the planner; it was run again")
        if not self.training:
            raise LeaseLostError

    def drop_lost(self) -> None:
        """Leave all that was taken from this worker. Raises LeaseLostError if no other is in training."""
        for key in self.leases.lost & set(self.training):
            self._drop(key)

    def _leave(self, key: int) -> bool:
        """A trial is in training no more; false where it wasn't."""
        if (work := self.training.pop(key, None)) is not None:
            self.worker.latest.ended(work.claim)
        return work is not None

    def crash(self, reason: str) -> None:
        """Close the runs of all trials that have no result."""
        for key in list(self.training):
            self._leave(key)
            self.kept.ended(key)
            if (log := self.logs.pop(key, None)) is not None:
                log.crash(reason)

    def put_down(self) -> None:
        """Leave all trials, with what is kept of them, to whoever goes on with them."""
        for key in list(self.training):
            self._leave(key)
            self.kept.leave(key)
            if (log := self.logs.pop(key, None)) is not None:
                log.put_down()
