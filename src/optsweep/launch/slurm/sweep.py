"""A sweep's command where SLURM runs it: submits its jobs, or says how they stand, until the sweep is done."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optsweep.address import STORAGE_KEY, TRACKING_KEY, check_apart, near, read_address
from optsweep.build.combination import check_combination
from optsweep.config.arm import Arm
from optsweep.errors import GoesOnError, NotThereError, SweepFailedError, UserError, first_line, without_secrets
from optsweep.launch.live.reading import LiveView, Watching
from optsweep.launch.live.terminal import changes
from optsweep.launch.outcome import SweepResult
from optsweep.launch.prepare.labels import baseline_of, labels_of
from optsweep.launch.prepare.together import check_together
from optsweep.launch.slurm import cluster
from optsweep.launch.slurm.record import JobEnd, Submitted, alone, folder_of, forget, log_of, outcome_of
from optsweep.launch.slurm.request import SlurmRequest
from optsweep.launch.slurm.stores import finished
from optsweep.launch.slurm.submit import Submission
from optsweep.launch.slurm.told import States, numbers, standing
from optsweep.launch.status import first_failure
from optsweep.report.wording import plural
from optsweep.search.storage import check_names
from optsweep.search.studies import Studies
from optsweep.tracking import store

LOOK_SECONDS, ASK_SECONDS = 2.0, 10.0
"""Between two looks into files and stores, and two questions to SLURM's controller."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class SlurmSweep:
    """A sweep, and what is asked of the cluster for it."""

    arms: Sequence[Arm]
    arguments: tuple[str, ...]
    command: str  # without passwords
    request: SlurmRequest
    report: bool
    say: Say

    def carry_on(self) -> SweepResult:
        """What a finished sweep has come to; one that isn't is submitted, or its jobs are.

        Raises GoesOnError where jobs have it, UserError for what is wrong, and SweepFailedError where every trial
        crashed; how the jobs failed is said once, and the next call submits others.
        """
        self._check()
        record, states = Submitted.read(self._folder), cluster.states()
        if record is not None:
            outcome = outcome_of(self._folder, record.planner)
            if outcome is None and record.planner.id in states:
                return self._under_way(record)
            if outcome is not None and outcome.code:
                forget(self._folder)
                raise self._failure(record, outcome)
        result = finished(self.arms, report=self.report)
        if result is not None and result.failure is None:  # what crashed is tried again: its code may be mended
            return result
        return self._submit(record, states)

    @property
    def _folder(self) -> Path:
        return folder_of(self.arms[0].sweep)

    @property
    def _submission(self) -> Submission:
        return Submission(self.arms[0], self.arguments, self.command, self.request, self._folder)

    def _check(self) -> None:
        """All that needs no code of the user's. Raises UserError before anything is written."""
        first, flags = self.arms[0], self.request.flags
        check_together(self.arms)
        for arm in self.arms:
            if not _names_own_code(arm):
                check_combination(arm)
        baseline_of(self.arms, labels_of(self.arms), all_arms=True)
        check_names(first.storage, first.sweep, [arm.name for arm in self.arms])
        studies, runs = read_address(STORAGE_KEY, first.storage), read_address(TRACKING_KEY, first.tracking_uri)
        check_apart(studies, runs)
        cluster.check_usable()
        store.check_usable(studies)
        store.check_usable(runs)
        if runs.is_there:
            store.check_sweep(first.tracking_uri, first.sweep)
        if Submitted.read(self._folder) is None:  # else sbatch decides, which takes jobs also while all nodes are down
            cluster.check_given(flags)
        if self.request.workers:
            cluster.check_files((studies, runs), flags, "one node: hydra.launcher.workers=0")

    def _submit(self, before: Submitted | None, states: States) -> SweepResult:
        """Submit the job that plans, and the workers that there aren't yet, unless another command just has."""
        with alone(self._folder):
            now = Submitted.read(self._folder)
            other = None if now == before else now
            record = other or self._submitted(before, states)
        return self._wait_or_leave(record) if other is None else self._under_way(other)

    def _submitted(self, before: Submitted | None, states: States) -> Submitted:
        lost = before is not None and outcome_of(self._folder, before.planner) is None
        record = self._submission.planner(before.planner.name if before is not None and lost else "")
        if before is not None and lost:
            self.say(self._gone(before))
            record = record.with_workers(tuple(job for job in before.workers if job.id in states))
        record = self._submission.workers(record, self.request.workers - len(record.workers))
        self.say(f"sweep {self.arms[0].sweep}: submitted to SLURM: {_named(record)}; logs: {near(self._folder)}")
        return record

    def _under_way(self, record: Submitted) -> SweepResult:
        """Say how the jobs stand, and submit workers that were lost, or that more are asked for now."""
        with alone(self._folder):
            record, states = Submitted.read(self._folder) or record, cluster.states()
            kept = [job for job in record.workers if job.id in states or outcome_of(self._folder, job) is not None]
            if (lacking := self.request.workers - len(kept)) > 0:
                known = Submitted(record.command, record.planner, tuple(kept))
                record = self._submission.workers(known, lacking)
                self.say(f"sweep {self.arms[0].sweep}: {plural(lacking, 'worker')} submitted to SLURM")
                states = cluster.states()
        if record.command != self.command:
            self.say(f"its jobs carry out another command, which is to end before this one: {record.command}")
        for line in standing(record, states, self._folder, cluster.silent_nodes()):
            self.say(line)
        return self._wait_or_leave(record)

    def _wait_or_leave(self, record: Submitted) -> SweepResult:
        if self.request.wait:
            return self._wait(record)
        raise GoesOnError(
            f"the same command says how they stand, and ends with exit code 0 when the sweep is done; "
            f"how far it is: optsweep status {shlex.quote(self.arms[0].sweep)}"
        )

    def _wait(self, record: Submitted) -> SweepResult:
        """Until the job that plans has ended."""
        progress, asked, gone = self._progress(), time.monotonic(), False
        try:
            while (outcome := outcome_of(self._folder, record.planner)) is None:
                for line in next(progress):
                    self.say(line)
                time.sleep(LOOK_SECONDS)
                if time.monotonic() - asked > ASK_SECONDS:
                    asked = time.monotonic()
                    before, gone = gone, self._is_missing(record)
                    if gone and before:
                        raise UserError(f"{self._gone(record)}; the same command submits another")
        except KeyboardInterrupt:
            jobs = dict.fromkeys(job.array for job in (record.planner, *record.workers))
            self.say(f"the jobs go on without this command; to end them: scancel {' '.join(jobs)}")
            raise
        if outcome.code:
            forget(self._folder)
            raise self._failure(record, outcome)
        if (result := finished(self.arms, report=self.report)) is not None:
            return result
        raise UserError(f"the job that planned it has ended, and the sweep isn't done: {self._log(record)}")

    def _is_missing(self, record: Submitted) -> bool:
        """Whether the job that plans is no longer in the queue, as far as the controller says."""
        try:
            return record.planner.id not in cluster.states()
        except UserError:  # it is away
            return False

    def _progress(self) -> Iterator[Sequence[str]]:
        """At each look what is new, once there are stores; what keeps them from being read is said once."""
        first = self.arms[0]
        watching: Watching | None = None
        before: LiveView | None = None
        trouble = told = ""
        while True:
            lines: list[str] = []
            if watching is not None:
                view = watching.look()
                lines, before = list(changes(before, view)), view
            else:
                try:
                    watching = Watching(first.storage, first.tracking_uri, first.sweep)
                except NotThereError:
                    pass
                except Exception as error:  # one that lasts: stores in the making fail for a moment
                    last, trouble = trouble, without_secrets(first_line(error))
                    if last == trouble != told:
                        lines, told = [f"how far it is can't be read ({trouble})"], trouble
            yield lines

    def _failure(self, record: Submitted, outcome: JobEnd) -> Exception:
        """What the job that planned has ended with, as the sweep's own command would."""
        first = self.arms[0]
        if outcome.code == 1:
            with suppress(Exception):
                return SweepFailedError(first.sweep, first_failure(Studies.open(first.storage, first.sweep)) or "")
        said = outcome.said or f"exit code {outcome.code}"
        if outcome.code < 0:
            said = f"killed by signal {-outcome.code}: is there memory enough? (hydra.launcher.mem)"
        return UserError(f"{said} (so ended the job that planned it, {self._log(record)})")

    def _gone(self, record: Submitted) -> str:
        job = f"job {record.planner.id}, which planned the sweep, is gone"
        ended = "it was ended from outside (cancelled, a time limit, a lost node)"
        return f"{job}: {ended}, or couldn't write {self._log(record)}"

    def _log(self, record: Submitted) -> str:
        return str(log_of(self._folder, record.planner))


def _names_own_code(arm: Arm) -> bool:
    """Whether code that only the jobs are to run is named by more than the task."""
    named = (arm.optimizer.target, arm.schedule.target, arm.averaging.target)
    return any(target is not None and target.partition(".")[0] not in ("optsweep", "torch") for target in named)


def _named(record: Submitted) -> str:
    """ "job 12, 4 workers (job 13)"."""
    count = len(record.workers)
    workers = f", {plural(count, 'worker')} (job {numbers(record.workers)})" if count else ""
    return f"job {record.planner.id}{workers}"
