"""A worker: pops trials, trains them, writes the curves, tells the result. All workers are alike, and any may die."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TypeVar

from optsweep.build.assemble import Built
from optsweep.build.machine import Machine, lets
from optsweep.config.arm import Arm
from optsweep.errors import UserError, located
from optsweep.inference.repeats import seed_index
from optsweep.launch.files import spool_of
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.checkpoints import Checkpoints, InterruptedTrainingError, TrialCheckpoints
from optsweep.launch.worker.exit_codes import GROUP_LOST
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.latest import Teller
from optsweep.launch.worker.leases import LEASE_SECONDS, LeaseKeeper
from optsweep.launch.worker.ranks.leader import Leader
from optsweep.launch.worker.ranks.rendezvous import LostRank, RankError
from optsweep.launch.worker.reporter import Reporter
from optsweep.launch.worker.room import LaneRoom
from optsweep.search.ownership import LeaseLostError
from optsweep.search.process import process_name
from optsweep.search.slots import Slot, seed_of
from optsweep.search.space import Value
from optsweep.search.studies import AFTER_FAILURE, Studies, Work
from optsweep.terminal import complain
from optsweep.tracking import store
from optsweep.tracking.courier import Courier
from optsweep.tracking.outage import StoreFailureError, passes, patiently, storage_outage
from optsweep.train.process import threads
from optsweep.train.trial import Phase, Trial

LOOK_SECONDS = 0.2
"""Between two looks for trials to fill free lanes with, unless one has ended meanwhile."""

T = TypeVar("T")


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
        called: Callable[[], bool] = lambda: False,  # to something else, once what is in training has ended
        watch: Watch = _unwatched,
        workers: int = 1,  # of the sweep, who share what waits
        told: Callable[[], None] = lambda: None,  # that a trial has a result
        delivers: bool = True,  # else another process takes what it writes to MLflow
        apart: bool = False,  # from its planner's machine: MLflow has what the studies are told
        leader: Leader | None = None,  # ranks that this process leads
    ) -> None:
        first = jobs[0].arm
        self.stopping, self.called, self.watch = stopping, called, watch
        self.workers, self.told, self.apart = workers, told, apart
        self.builds = builds or Builds()
        self.leader = leader or Leader(self.builds)
        self.jobs = suitable(jobs, self.builds)
        self.noted: set[tuple[str, str]] = set()  # what was said of this machine, by arm
        spool = spool_of(first)
        self._storage = storage_outage(first.storage, spool.folder)
        self.studies = self.waiting(lambda: opened(first.storage, first.sweep))
        self.checkpoints = Checkpoints.of(first.storage, first.sweep, first.checkpoints)
        self.room = LaneRoom()
        if delivers:
            store.preload()
        self.courier = Courier(spool, leaves=not delivers, registers=apart)
        self.latest = Teller(self.studies.engine)
        self.name = process_name()
        self._next = os.getpid()

    def close(self) -> None:
        """Deliver what is written, within moments; the rest is left to others."""
        self.latest.close()
        self.courier.close()

    def waiting(self, call: Callable[[], T]) -> T:
        """What a call of the studies' storage gives, however long that fails."""
        return patiently(call, self._storage, self.stopping)

    def work_once(self) -> bool:
        """Pop a trial, of early repeats first, and train it with what waits beside it; false if none was waiting."""
        self._check_ranks()
        if not self.waiting(self.studies.num_waiting):  # one question, where each arm would be asked twice a repeat
            return False
        for repeat in range(max((job.arm.most_repeats for job in self.jobs), default=0)):
            for i in range(len(self.jobs)):
                job = self.jobs[(self._next + i) % len(self.jobs)]
                for phase in (Phase.SEARCH, Phase.CONFIRM):
                    if works := self._pop(job, phase, repeat, 1):
                        self._next += i + 1
                        self._train(job, works[0])
                        return True
        return False

    def beside(self, job: Job, first: Work, count: int) -> list[Work]:
        """Up to `count` trials that may train with this one, and no more than is this worker's share of what waits."""
        works: list[Work] = []
        if self.stopping() or self.called():
            return works
        share = -(-self.waiting(self.studies.num_waiting) // self._num_workers())
        for phase in (Phase.SEARCH, Phase.CONFIRM):
            if (missing := min(count, share) - len(works)) > 0:
                works += self._pop(job, phase, first.repeat, missing, first.slot)
        return works

    def _num_workers(self) -> int:
        """Who share what waits, those of other machines included, as far as they have trials."""
        if not self.apart:
            return self.workers
        signs = self.waiting(lambda: self.studies.signs_of_life(LEASE_SECONDS))
        return max(self.workers, sum(sign.trials is not None and sign.at_work for sign in signs))

    def _pop(self, job: Job, phase: Phase, repeat: int, count: int, beside: Slot | None = None) -> list[Work]:
        """Trials of one program."""

        def program(slot: Slot) -> list[Value]:
            return [slot.params[key] for key in job.program_keys]

        pop, name = self.studies.pop, job.arm.name
        return self.waiting(lambda: pop(name, phase, self.name, LEASE_SECONDS, count, program, repeat, beside))

    def _train(self, job: Job, work: Work) -> None:
        """Train a trial, and others with it; a crash fails all that are in training then, and each is run again."""
        with LeaseKeeper(self.studies, timeout=job.arm.trainer.timeout) as leases:
            reporter = self.reporter(job, leases)
            key = reporter.hold(work)

            def hung(place: str) -> None:
                slow = LostRank(f"{place}: no progress for {leases.patience:.0f} s (trainer.timeout)")
                self._lose(reporter, self.leader.stuck() or slow)

            def overdue() -> bool:
                return leases.overdue() or self.leader.stuck() is not None

            with self.watch(overdue, hung), self.latest.of_all():
                self._train_held(job, key, work, reporter)
        self._check_ranks()

    def _check_ranks(self) -> None:
        """End the process where no ranks can be had any more: no trial is lost for that."""
        if self.leader.over:
            raise SystemExit(GROUP_LOST)

    def reporter(self, job: Job, leases: LeaseKeeper) -> Reporter:
        """Who is told what happens to trials of a job."""
        seconds = job.arm.trainer.checkpoint_seconds

        def stopping() -> bool:
            return leases.all_lost or self.stopping()

        return Reporter(self, job, leases, TrialCheckpoints(self.checkpoints, job.fingerprint, seconds, stopping))

    def _train_held(self, job: Job, key: int, work: Work, reporter: Reporter) -> None:
        try:
            built = self.builds.of(job.arm, work.repeat)
            reporter.open(key, built)
            workload = built.workload_for(work.slot.params)
            leading = self.leader.leading(job.arm, work.repeat, work.slot.params)
            with threads(job.arm.trainer.threads), leading:
                source = _Company(self, job, built, reporter, key, work)
                workload.work(source, reporter, reporter.kept, lanes=self.room.lanes(job))
        except LeaseLostError:
            return
        except InterruptedTrainingError:
            with suppress(LeaseLostError):
                reporter.drop_lost()
            self._give_up(reporter, "its sweep was stopped, or its planner is gone", excused=True)
        except RankError as error:
            self._lose(reporter, error.failed)
        except StoreFailureError:
            with suppress(StoreFailureError):
                self._give_up(reporter, "the store failed", excused=True)
            raise
        except Exception as error:
            short = self.room.ran_out(job, len(reporter.training), error)
            reason = short or located(error)[:500]
            self._give_up(reporter, reason, excused=bool(short))
            reporter.crash(reason)

    def _lose(self, reporter: Reporter, failed: LostRank) -> None:
        """Free the slots of trials that came to an end by themselves, or go on elsewhere as where a worker dies."""
        self._give_up(reporter, failed.reason, excused=False, died=failed.died)
        if failed.died:
            reporter.put_down()
        else:
            reporter.crash(failed.reason)

    def _give_up(self, reporter: Reporter, reason: str, *, excused: bool, died: bool = False) -> None:
        """Free the slots of trials without a result."""
        for work in list(reporter.training.values()):
            self.waiting(partial(self.studies.fail, work.claim, reason, excused=excused, died=died))


class _Company:
    """A source of one trial, and of those that may train beside it as long as any wait, if there are lanes for them."""

    def __init__(self, worker: Worker, job: Job, built: Built, reporter: Reporter, key: int, first: Work) -> None:
        self._worker, self._job, self._built, self._reporter = worker, job, built, reporter
        self._first = first
        self._opened = {key: first}  # and not yet handed out
        self._look_again = -math.inf  # when more may wait than did
        self._told = 0  # when that was said
        # One that failed before takes no other with it again.
        self._alone = worker.room.lanes(job) == 1 or first.attempt >= AFTER_FAILURE

    def take(self, free_lanes: int) -> Sequence[Trial]:
        """The trial itself first."""
        opened, self._opened = self._opened, {}
        reporter, missing = self._reporter, free_lanes - len(opened)
        if missing > 0 and not self._alone and (time.monotonic() > self._look_again or reporter.told > self._told):
            with reporter.leases.storing():  # the storage may be away: no time of those in training
                works = self._worker.beside(self._job, self._first, missing)
            held = {reporter.hold(work): work for work in works}
            for key in held:
                reporter.open(key, self._built)
            opened |= held
            self._look_again = time.monotonic() + (LOOK_SECONDS if len(works) < missing else 0.0)
            self._told = reporter.told
        return [
            trial_of(self._job.arm, self._built, work, key) for key, work in opened.items() if key in reporter.training
        ]


def suitable(jobs: Sequence[Job], builds: Builds) -> Sequence[Job]:
    """The jobs whose trials may be trained on this machine; a line says which may not, and why."""
    found, declined = [], dict[str, list[str]]()
    for job in jobs:
        device = builds.device_of(job.arm)
        here = Machine.of(device)
        if differs := list(here.differences(job.machine or here, job.arm.allow)):
            declined.setdefault(f"{device}: {'; '.join(differs)}; {lets(differs)}", []).append(job.label)
        else:
            found.append(job)
    for why, labels in declined.items():
        complain(f"a worker declines trials of {', '.join(labels)}, because it is another machine than theirs: {why}")
    return found


def opened(storage: str, sweep: str) -> Studies:
    """The studies. Raises what the storage raises where that may pass, and UserError where it doesn't."""
    try:
        return Studies.open(storage, sweep)
    except UserError as error:
        if error.__context__ is not None and passes(error.__context__):
            raise error.__context__ from None
        raise


def trial_of(arm: Arm, built: Built, work: Work, key: int = 0) -> Trial:
    """The numbers to train with."""
    return Trial(
        hyper=built.space.hyper(work.slot.params),
        seed=seed_of(arm.seed, work.phase.value, seed_index(work.repeat, work.slot.seed)),
        prune_above=work.slot.prune_above,
        test=work.phase is Phase.CONFIRM,
        key=key,
    )
