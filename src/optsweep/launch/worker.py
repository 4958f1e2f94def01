"""A worker: pops trials, trains them, writes the curves, tells the result. All workers are alike, and any may die."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from optsweep.build.assemble import Built, build_arm, device_of
from optsweep.config.arm import Arm
from optsweep.search.slots import seed_of
from optsweep.search.studies import LeaseLostError, Studies, Work
from optsweep.tasks.base import Task
from optsweep.tracking import names
from optsweep.tracking.writer import StoreFailureError, Tracker, TrialLog
from optsweep.train.loop import train_all
from optsweep.train.trial import Outcome, Phase, Rung, Trial

LEASE_SECONDS = 600.0
"""How long a worker may be silent, or ten rungs, if that is longer; on one machine its death is noticed at once."""

RENEW_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """An arm as workers get it."""

    arm: Arm
    label: str
    fingerprint: str
    parent_run: str


class InterruptedTrainingError(Exception):
    """The worker was asked to stop in the middle of a trial."""


def worker_name() -> str:
    """Host, process and its start: unique, and tells on the host whether the worker is alive."""
    return f"{socket.gethostname()}/{os.getpid()}/{_start(os.getpid())}"


def is_alive(worker: str) -> bool | None:
    """Whether a process named by `worker_name` still runs; None if it is one of another host."""
    import psutil

    try:
        host, pid, start = worker.rsplit("/", 2)
        if host != socket.gethostname():
            return None
        return _start(int(pid)) == start
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False
    except (ValueError, OSError, psutil.Error):
        return None


def _start(pid: int) -> str:
    """What tells a process from all others that have had its number: on Linux the boot and the clock tick since then.

    Elsewhere the time of its start. That changes with the system clock (set by hand, by NTP, or on waking a suspended
    machine), and workers in the middle of a trial pass for dead: one step of the clock cost most trials of a sweep.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil

        return str(int(psutil.Process(pid).create_time()))
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return f"{boot}.{fields[19]}"  # the 22nd of proc(5), counted from the number


class Worker:
    """Works trials of the given jobs until there is nothing left to do, in this process."""

    def __init__(
        self, jobs: Sequence[Job], *, device: str | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        first = jobs[0].arm
        self.jobs, self.stopping, self.device = jobs, stopping, device
        self.studies = Studies.open(first.storage, first.sweep)
        self.tracker = Tracker(first.tracking_uri, first.sweep)
        self.name = worker_name()
        self._tasks: dict[str, Task] = {}
        self._built: dict[str, Built] = {}
        self._next = os.getpid() % len(jobs)

    def work_once(self) -> bool:
        """Pop and train the trials of one arm; false if none was waiting."""
        for i in range(len(self.jobs)):
            job = self.jobs[(self._next + i) % len(self.jobs)]
            for phase in (Phase.SEARCH, Phase.CONFIRM):
                works = self.studies.pop(job.arm.name, phase, self.name, LEASE_SECONDS, job.arm.trainer.lanes)
                if works:
                    self._next += i + 1
                    self._train(job, works)
                    return True
        return False

    def _train(self, job: Job, works: Sequence[Work]) -> None:
        """Train popped trials together; a crash fails them all, and each is run again."""
        observer = _Reporter(self, job)
        try:
            built = self._build(job.arm)
            torch.set_num_threads(job.arm.trainer.threads)
            observer.open(works, built)
            train_all(built.program, [trial_of(job.arm, built, work) for work in works], observer)
        except LeaseLostError:
            return
        except InterruptedTrainingError:
            self._give_up(works, observer, "its sweep was stopped, or its planner is gone", excused=True)
        except StoreFailureError:
            self._give_up(works, observer, "the store failed", excused=True)
            raise
        except Exception as error:
            lines = f"{type(error).__name__}: {error}".splitlines()
            reason = lines[0][:500]
            self._give_up(works, observer, reason, excused=False)
            observer.crash(reason)

    def _give_up(self, works: Sequence[Work], observer: _Reporter, reason: str, *, excused: bool) -> None:
        """Free the slots of trials without a result."""
        for work in works:
            if work.trial_id not in observer.told:
                self.studies.fail(work.trial_id, reason, excused=excused)

    def _build(self, arm: Arm) -> Built:
        if arm.name not in self._built:
            device = device_of(arm.trainer.device if self.device is None else self.device)
            key = repr(arm.task)
            built = build_arm(arm, self._tasks.get(key), device)
            self._tasks[key] = built.program.task
            self._built[arm.name] = built
        return self._built[arm.name]


def trial_of(arm: Arm, built: Built, work: Work) -> Trial:
    """The numbers to train with."""
    return Trial(
        hyper=built.space.hyper(work.slot.params),
        seed=seed_of(arm.seed, work.phase.value, work.slot.seed),
        prune_above=work.slot.prune_above,
        test=work.phase is Phase.CONFIRM,
    )


class _Reporter:
    """Tells MLflow and the study what happens to the trials of one batch."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self.worker, self.job = worker, job
        self.logs: list[TrialLog] = []
        self.works: Sequence[Work] = ()
        self.told: set[int] = set()
        self.renewed: dict[int, float] = {}

    def open(self, works: Sequence[Work], built: Built) -> None:
        """Open one run per trial."""
        self.works = works
        for work in works:
            if work.attempt:
                reason = "cut off before its end; it was run again"
                self.worker.tracker.lost_trials(work.arm, work.phase, work.slot.number, reason)
            self.logs.append(self._log(work, built))

    def _log(self, work: Work, built: Built) -> TrialLog:
        slot = work.slot
        tags: Mapping[str, str] = {
            names.ARM: work.arm,
            names.LABEL: self.job.label,
            names.PHASE: work.phase.value,
            names.SLOT: str(slot.number),
            names.SEED: str(slot.seed),
            names.ORIGIN: slot.origin,
            names.FINGERPRINT: self.job.fingerprint,
            names.LANES: str(len(self.works)),
        }
        params = {**built.space.hyper(slot.params), "seed": slot.seed, "slot": slot.number}
        name = f"{self.job.label} · {work.phase.value} {slot.number}"
        return TrialLog(self.worker.tracker, self.job.parent_run, name, tags, params, built.program.task.metric)

    def on_rung(self, place: int, rung: Rung) -> None:
        """Log the rung; renew the lease now and then."""
        if self.worker.stopping():
            raise InterruptedTrainingError
        work = self.works[place]
        self.logs[place].rung(rung)
        if self.job.arm.search.pruner != "none":
            self.worker.studies.report(work.trial_id, rung.step, rung.val_loss)
        now = time.monotonic()
        if now - self.renewed.setdefault(place, now) > RENEW_SECONDS:
            self.renewed[place] = now
            rung_seconds = (rung.ms_per_step or 0.0) / 1000 * rung.step
            lease = max(LEASE_SECONDS, 10 * rung_seconds)
            self.worker.studies.renew(work.trial_id, self.worker.name, lease, rung.step)

    def on_end(self, place: int, outcome: Outcome) -> None:
        """Close the run first, then tell the study: a told trial is complete in MLflow."""
        work = self.works[place]
        self.logs[place].end(outcome)
        told = (outcome.end, outcome.val_loss, outcome.train_seconds, outcome.test_loss)
        self.worker.studies.tell(work.trial_id, *told)
        self.told.add(work.trial_id)

    def crash(self, reason: str) -> None:
        """Close the runs of all trials that have no result."""
        for log, work in zip(self.logs, self.works, strict=False):
            if work.trial_id not in self.told:
                log.crash(reason)
