"""A pool of workers on this machine: spawned processes, with threads and devices dealt out."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from optsweep.errors import UserError
from optsweep.launch.worker import Job
from optsweep.tracking.outage import PATIENCE_SECONDS, StoreFailureError

IDLE_SECONDS = 0.1
"""Between two looks at the storage of a worker without work."""

TERMINATE_SECONDS = 3.0

STARTS = 4
"""How many workers in a row may be killed before they are ready. Memory that runs out now and then leaves some."""

PAUSE_SECONDS = 0.5
"""Before a worker whose forerunner was killed at its start begins; doubled with each further one."""

STORE_FAILED = 3
"""Exit code of a worker that can't write any more."""


@dataclass
class _Member:
    process: SpawnProcess
    device: str
    jobs: Connection  # through which it gets its jobs
    name: str = ""
    ready: bool = False


class LocalPool:
    """`count` workers; a dead one is replaced. Use as a context manager: leaving it ends them all.

    Workers take seconds to import what they need, so they may be started before their jobs are known.
    """

    def __init__(self, count: int, devices: Sequence[str], threads: int) -> None:
        self.threads = threads
        self._devices = [devices[i % len(devices)] for i in range(count)]
        self._jobs: list[Job] | None = None
        self._context = mp.get_context("spawn")
        # Closed: stop. No lock or event: a process that is killed while it holds one would block the others for ever.
        self._stop_reader, self._stop_writer = self._context.Pipe(duplex=False)
        self._receiver, self._sender = self._context.Pipe(duplex=False)
        self._members: list[_Member] = []
        self._killed_starts = 0  # since a worker was ready

    def start(self) -> None:
        """Start the workers, unless they are."""
        if not self._members:
            self._members = [self._start(device) for device in self._devices]

    def assign(self, jobs: Sequence[Job]) -> None:
        """Tell the workers what to work on."""
        self.start()
        self._jobs = list(jobs)
        for member in self._members:
            _send(member.jobs, self._jobs)

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None or self._jobs is None:
            self.stop()
        self._stop_writer.close()
        self._join()

    def stop(self) -> None:
        """End all workers at once, in the middle of their trials."""
        for member in self._members:
            member.process.terminate()
        self._join()

    def _join(self) -> None:
        for member in self._members:
            member.process.join(TERMINATE_SECONDS)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()

    def kill(self, worker: str) -> None:
        """End one worker, which `wait` then finds dead and replaces."""
        for member in self._members:
            if member.name == worker:
                member.process.kill()

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Wait until a trial ends, a worker dies, or time is up; returns (name, reason) of dead workers, replaced.

        Raises UserError if a worker fails before it is ready, if several in a row are killed then, or if one can no
        longer write.
        """
        wait([self._receiver, *(member.process.sentinel for member in self._members)], seconds)
        ended = [i for i, member in enumerate(self._members) if not member.process.is_alive()]
        self._listen()  # only now: what the dead had to say is known
        dead: list[tuple[str, str]] = []
        for i in ended:
            member = self._members[i]
            code = member.process.exitcode
            if code == STORE_FAILED:
                raise UserError(
                    f"a store has failed for {PATIENCE_SECONDS / 60:.0f} minutes; what is finished is kept, and the "
                    f"same command goes on when it works again"
                )
            if member.ready:
                dead.append((member.name, f"its worker died ({_exit_name(code)})"))
            else:
                self._note_killed_start(code)
            self._members[i] = self._start(member.device)
        return dead

    def _listen(self) -> None:
        """Take in which workers are ready, or have ended a trial."""
        while self._receiver.poll():
            place, name = self._receiver.recv()
            for member in self._members:
                if member.process.pid == place:
                    member.name, member.ready, self._killed_starts = name, True, 0

    def _note_killed_start(self, code: int | None) -> None:
        """A worker ended before it was ready: killed from outside it is replaced, within reason."""
        self._killed_starts += 1
        if code is None or code >= 0:
            raise UserError(f"a worker ended at its start ({_exit_name(code)}); its message is above")
        if self._killed_starts == STARTS:
            raise UserError(
                f"{STARTS} workers in a row were killed at their start ({_exit_name(code)}): is there memory enough?"
            )

    def _start(self, device: str) -> _Member:
        pause = PAUSE_SECONDS * 2 ** (self._killed_starts - 1) if self._killed_starts else 0.0
        with _environment(OMP_NUM_THREADS=str(self.threads), MKL_NUM_THREADS=str(self.threads), HYDRA_FULL_ERROR=None):
            receiver, sender = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=_main, args=(receiver, device, self._stop_reader, self._sender, os.getpid(), pause), daemon=True
            )
            with _interrupts_blocked():
                process.start()
        receiver.close()
        if self._jobs is not None:
            _send(sender, self._jobs)
        return _Member(process, device, sender)


def _send(other: Connection, told: object) -> None:
    """Tell the other side something; that it is dead by now each of them finds out by itself."""
    with contextlib.suppress(BrokenPipeError):
        other.send(told)


def _main(receiver: Connection, device: str, stop: Connection, sender: Connection, parent: int, pause: float) -> None:
    """A worker process: works until told that the sweep is done or its parent is gone."""
    mp.current_process().daemon = False  # a daemon may have no children, as a DataLoader's workers are
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the planner decides what it means
    if stop.poll(pause):
        return
    from optsweep.launch.worker import Worker

    def stopping() -> bool:
        return os.getppid() != parent

    try:
        jobs: list[Job] = receiver.recv()
    except EOFError:  # the planner is gone
        return
    try:
        with contextlib.closing(Worker(jobs, device=device, stopping=stopping)) as worker:
            _send(sender, (os.getpid(), worker.name))
            while not stop.poll(0) and not stopping():
                if worker.work_once():
                    _send(sender, (os.getpid(), worker.name))
                else:
                    stop.poll(IDLE_SECONDS)
    except StoreFailureError:  # which its planner says
        raise SystemExit(STORE_FAILED) from None


def _exit_name(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started inside don't get SIGINT: Ctrl-C would kill them until they have come to ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Set (or, with None, remove) environment variables for what is started inside."""
    before = {key: os.environ.get(key) for key in values}
    try:
        for key, value in values.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
