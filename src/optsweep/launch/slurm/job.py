"""What runs in a sweep's jobs: `optsweep` as a child of submitit's process, which hears SLURM's signals and requeues.

SLURM tells a job of its end (a time limit, pre-emption, `scontrol requeue`) by signals to all its processes. The child
is stopped as by Ctrl-C: it gives its trials back, and their checkpoints stay. Where SLURM doesn't requeue the job
itself, the job does, and goes on with the same arguments.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from optsweep.errors import UserError
from optsweep.launch.elsewhere.helper import WAIT_SECONDS
from optsweep.launch.slurm import cluster
from optsweep.launch.slurm.record import JobEnd, SlurmJob, Submitted, note_outcome, outcome_of
from optsweep.launch.slurm.stores import is_open, seconds_of_seat
from optsweep.search.seats import SEAT_SECONDS
from optsweep.terminal import complain

PLANNER_VARIABLE = "OPTSWEEP_SLURM_PLANNER"
"""Set for the command of a sweep that is to plan and train, instead of submitting jobs."""

WAITING = "PENDING"
"""What SLURM says of a job in its queue."""

LOOK_SECONDS = 2.0
ASK_SECONDS = 30.0
"""Between two looks into files and stores, and two questions to SLURM's controller."""

STOPPED = 130
"""The exit code of a job that ends before its sweep and doesn't begin again: SLURM would show it as completed else."""

UNCHANGED = (0, 1)
"""Exit codes of a sweep that has run to its end, which a signal doesn't change any more."""

_MAIN = "import json, sys; sys.argv[1:] = json.load(sys.stdin); from optsweep.__main__ import main; main()"
"""Arguments come by a pipe, since a process list shows those that a process is started with."""


class Notice:
    """From its making on, the signals by which SLURM announces a job's end are noted, and told to the child."""

    def __init__(self) -> None:
        self.heard = False
        self._child: subprocess.Popen[str] | None = None
        for number in (signal.SIGTERM, signal.SIGUSR2):  # in place of submitit's, which passes over the first
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def run(self, arguments: Sequence[str], **variables: str) -> JobEnd:
        """`optsweep` with these arguments, until it ends; its last line is also kept."""
        own = {name: said for name, said in os.environ.items() if name != "HYDRA_FULL_ERROR"}
        child = subprocess.Popen(
            [sys.executable, "-u", "-P", "-c", _MAIN],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**own, **variables},
            preexec_fn=_ignore_announcement,
        )
        self._child = child
        assert child.stdin is not None
        assert child.stderr is not None
        with suppress(BrokenPipeError), child.stdin:  # it was ended before it could read
            child.stdin.write(json.dumps(list(arguments)))
        if self.heard:
            child.terminate()
        said = ""
        for line in child.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            said = line.strip() or said
        return JobEnd(child.wait(), said.removeprefix("optsweep: "))

    def give_way(self) -> None:
        """End as if the signal had come: the job goes back to the queue."""
        self.heard = True

    def sleep(self, seconds: float) -> None:
        """Until then, or a signal comes."""
        until = time.monotonic() + seconds
        while not self.heard and time.monotonic() < until:
            time.sleep(min(0.2, seconds))


def _ignore_announcement() -> None:
    """SLURM sends it to all processes of a job, and it would end those that don't know it; children inherit this."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def own_job() -> str:
    """The job that this process is of: one of an array's tasks has the number of the array, which means all of them."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"


@dataclass(frozen=True)
class SlurmTask(ABC):
    """What a job does, as submitit pickles it."""

    folder: Path
    name: str  # under which its outcome is kept
    sweep: str
    storage: str
    requeue: bool

    @abstractmethod
    def work(self, notice: Notice) -> JobEnd:
        """Do it; what is returned after a signal may not be the end."""

    @abstractmethod
    def ended(self, outcome: JobEnd) -> None:
        """Called when it is over for good."""

    def __call__(self) -> None:
        """Raises SystemExit where it failed, so that SLURM knows too."""
        notice = Notice()
        outcome = self.work(notice)
        if notice.heard and outcome.code not in UNCHANGED:
            if not self.again():
                complain("this job has ended before its sweep, and isn't requeued; the same command submits another")
                raise SystemExit(STOPPED)
            return
        note_outcome(self.folder, self.name, outcome)
        self.ended(outcome)
        if outcome.code:
            raise SystemExit(outcome.code if outcome.code > 0 else 128 - outcome.code)

    def again(self) -> bool:
        """Have this job requeued, unless SLURM does that itself or somebody has cancelled it; False: it can't be."""
        own = own_job()
        if not self.requeue:
            return False
        return not cluster.is_running(own, os.environ.get("SLURMD_NODENAME", "")) or cluster.requeue(own)

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """For a signal that comes before this class hears them: submitit requeues the job as it is."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class PlannerTask(SlurmTask):
    """The sweep's own command, which plans it and trains on its node."""

    arguments: tuple[str, ...]

    def work(self, notice: Notice) -> JobEnd:
        """As soon as nobody else plans: after a node was lost its planner's lease has to run out first.

        A job that begins again waits longer. SLURM takes a node for lost that it can't reach: there its first planner
        may go on, to the sweep's end.
        """
        requeued, told = "SLURM_RESTART_COUNT" in os.environ, False
        until = math.inf if requeued else time.monotonic() + SEAT_SECONDS + LOOK_SECONDS
        while time.monotonic() < until and seconds_of_seat(self.storage, self.sweep) > 0 and not notice.heard:
            if not told:
                complain("another process plans the sweep, or is gone since less than a minute: this job waits")
                told = True
            notice.sleep(LOOK_SECONDS)
        return notice.run(self.arguments, **{PLANNER_VARIABLE: "1"})

    def ended(self, outcome: JobEnd) -> None:
        """Nobody waits in the queue for a sweep that is done; where it failed nobody works for it either."""
        held = Submitted.read(self.folder)
        if held is None:
            return
        with suppress(UserError):  # the controller is away: they find out by themselves
            cluster.cancel({job.array for job in held.workers}, waiting_only=outcome.code == 0)


@dataclass(frozen=True)
class WorkerTask(SlurmTask):
    """`optsweep work`, once there is something to work on."""

    tracking_uri: str
    planner: SlurmJob
    processes: int | None

    def work(self, notice: Notice) -> JobEnd:
        """Until the sweep is done, or its planner has failed.

        Where that waits in the queue for long, this job goes back to it: the planner may wait for what it holds.
        """
        if (over := self._wait(notice)) is not None or notice.heard:
            return over or JobEnd(STOPPED)
        begun = time.monotonic()
        stores = ["--storage", self.storage, "--tracking-uri", self.tracking_uri]
        workers = [] if self.processes is None else ["--workers", str(self.processes)]
        outcome = notice.run(["work", self.sweep, *stores, *workers])
        if outcome.code == 2 and time.monotonic() - begun > WAIT_SECONDS and self._planner_waits():
            notice.give_way()
        return outcome

    def ended(self, outcome: JobEnd) -> None:
        """Others don't depend on it."""

    def _wait(self, notice: Notice) -> JobEnd | None:
        """Until the planner has posted arms with trials left; an outcome where that isn't going to be."""
        begun = asked = time.monotonic()
        while not notice.heard:
            if outcome_of(self.folder, self._planner) is not None:
                return JobEnd(0, "the job that plans the sweep has ended")
            if is_open(self.storage, self.sweep):
                return None
            if time.monotonic() - asked > ASK_SECONDS:
                asked = time.monotonic()
                planner = _states({self._planner.id: _UNKNOWN}).get(self._planner.id)
                if planner is None:
                    return JobEnd(2, "the job that plans the sweep is gone")
                if planner.state == WAITING and asked - begun > WAIT_SECONDS:
                    notice.give_way()
            notice.sleep(LOOK_SECONDS)
        return None

    @property
    def _planner(self) -> SlurmJob:
        held = Submitted.read(self.folder)
        return self.planner if held is None else held.planner  # another one, where that was lost

    def _planner_waits(self) -> bool:
        planner = self._planner
        held = _states({}).get(planner.id)
        return outcome_of(self.folder, planner) is None and held is not None and held.state == WAITING


_UNKNOWN = cluster.JobState("UNKNOWN", "", "")


def _states(otherwise: Mapping[str, cluster.JobState]) -> Mapping[str, cluster.JobState]:
    """How jobs stand, or what is given while SLURM's controller is away."""
    try:
        return cluster.states()
    except UserError:
        return otherwise
