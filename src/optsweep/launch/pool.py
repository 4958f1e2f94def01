"""A local pool of workers: spawned processes that the planner watches, with threads and devices dealt out."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event

from optsweep.errors import UserError
from optsweep.launch.worker import Job
from optsweep.tracking import StoreFailureError

IDLE_SECONDS = 0.1
"""Between two looks at the storage of a worker without work."""

TERMINATE_SECONDS = 3.0

STORE_FAILED = 3
"""Exit code of a worker that can't write any more."""


@dataclass
class _Member:
    process: SpawnProcess
    device: str
    name: str = ""
    heard: int = 0


class Pool:
    """`count` workers; a dead one is replaced. Use as a context manager: leaving it ends them all."""

    def __init__(self, jobs: Sequence[Job], count: int, devices: Sequence[str], threads: int) -> None:
        self.jobs, self.threads = jobs, threads
        self._context = mp.get_context("spawn")
        self._done: Event = self._context.Event()
        self._receiver, self._sender = self._context.Pipe(duplex=False)
        self._members = [self._start(devices[i % len(devices)]) for i in range(count)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        if error[0] is not None:
            for member in self._members:
                member.process.terminate()
        for member in self._members:
            member.process.join(TERMINATE_SECONDS)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Wait until a trial ends, a worker dies, or time is up; returns (name, reason) of dead workers, replaced.

        Raises RuntimeError if workers die again and again before they finish anything.
        """
        ready = wait([self._receiver, *(member.process.sentinel for member in self._members)], seconds)
        if self._receiver in ready:
            while self._receiver.poll():
                place, name = self._receiver.recv()
                for member in self._members:
                    if member.process.pid == place:
                        member.name = name
                        member.heard += 1
        dead: list[tuple[str, str]] = []
        for i, member in enumerate(self._members):
            if not member.process.is_alive():
                code = member.process.exitcode
                if code == STORE_FAILED:
                    raise UserError(
                        "the store stopped working (the message is above); what is finished is kept, and the same "
                        "command goes on when it works again"
                    )
                reason = f"its worker died ({_exit_name(code)})"
                if not member.heard:
                    raise RuntimeError(f"a worker ended at its start ({_exit_name(code)}); its message is above")
                dead.append((member.name, reason))
                self._members[i] = self._start(member.device)
        return dead

    def _start(self, device: str) -> _Member:
        with _environment(OMP_NUM_THREADS=str(self.threads), MKL_NUM_THREADS=str(self.threads), HYDRA_FULL_ERROR=None):
            process = self._context.Process(
                target=_main, args=(list(self.jobs), device, self._done, self._sender, os.getpid()), daemon=True
            )
            process.start()
        return _Member(process, device)


def _main(jobs: list[Job], device: str, done: Event, sender: Connection, parent: int) -> None:
    """A worker process: works until told that the sweep is done or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the planner decides what it means
    from optsweep.launch.worker import Worker

    def stopping() -> bool:
        return os.getppid() != parent

    worker = Worker(jobs, device=device, stopping=stopping)
    sender.send((os.getpid(), worker.name))
    while not done.is_set() and not stopping():
        try:
            worked = worker.work_once()
        except StoreFailureError as error:
            sys.stderr.write(f"optsweep: {error}\n")
            raise SystemExit(STORE_FAILED) from None
        if worked:
            sender.send((os.getpid(), worker.name))
        else:
            done.wait(IDLE_SECONDS)


def _exit_name(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


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
