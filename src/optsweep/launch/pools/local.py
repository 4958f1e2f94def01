"""A pool of workers on this machine: spawned processes, with threads and devices dealt out."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from optsweep.children import interrupts_blocked
from optsweep.errors import UserError, place_in
from optsweep.launch.pools.deaths import STARTS, Deaths
from optsweep.launch.pools.member import (
    Answered,
    Began,
    Order,
    Overran,
    Ready,
    ToAnswer,
    ToPrepare,
    ToRest,
    ToWork,
    Worked,
    main,
)
from optsweep.launch.worker.exit_codes import OVERDUE, STORE_FAILED
from optsweep.launch.worker.inquiries import Answer, DiedError, Inquiry, exit_name
from optsweep.launch.worker.ranks.torchrun_env import launched

if TYPE_CHECKING:
    from optsweep.launch.worker.job import Job

TERMINATE_SECONDS = 3.0

LATE_SECONDS = 60.0
"""A worker that doesn't end itself when an answer is overdue is given so much longer: it can't, in a call that holds
the interpreter."""

LOOK_SECONDS = 1.0
"""Between two looks at a worker that is to answer: whether it lives."""


@dataclass
class _Member:
    process: SpawnProcess
    line: Connection
    last_words: Connection
    device: str | None = None
    name: str = ""  # once it is ready

    @property
    def ready(self) -> bool:
        """Whether it works trials."""
        return bool(self.name)

    def tell(self, what: Order | None) -> None:
        """Tell it what to do; that it is dead by now is found out elsewhere."""
        with contextlib.suppress(OSError):
            self.line.send(what)

    def heard(self) -> Iterator[Any]:
        """What it has said. One that died in the middle of a word has said no more."""
        with contextlib.suppress(EOFError, OSError):
            while self.line.poll():
                yield self.line.recv()

    @property
    def place(self) -> str:
        """Where it was, in the user's code, when a signal that it could still hear has killed it."""
        os.set_blocking(self.last_words.fileno(), False)
        with contextlib.suppress(OSError):  # it said none
            return place_in(os.read(self.last_words.fileno(), 65_536).decode(errors="replace"))
        return ""

    def kill(self) -> None:
        """End it, and all that it has started."""
        import psutil

        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self.process.kill()


class LocalPool:
    """Workers of `threads` threads each; a dead one is replaced. A context manager: leaving it ends them all.

    Workers take seconds to import the module that they need, so they may be started before their jobs are known.
    """

    def __init__(
        self,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
        needs: str = "optsweep.launch.worker.worker",
        meanwhile: Callable[[], None] = lambda: None,  # done here, once, while an answer is on its way
        apart: bool = False,  # from the planner's machine
    ) -> None:
        self._threads, self._clock, self._needs, self._meanwhile = threads, clock, needs, meanwhile
        self._apart = apart
        self._devices: Sequence[str | None] = [None]
        self._jobs: Sequence[Job] | None = None
        self._context = mp.get_context("spawn")
        self._members: list[_Member] = []
        self._leaving: list[_Member] = []  # told to end
        self._waiting: list[tuple[float, str | None]] = []  # replacements: when they are to start, and their device
        self._deaths = Deaths()
        self.num_worked = 0  # how often a worker has said that trials of it have ended

    @property
    def size(self) -> None:
        """As the machine has cores or devices."""

    def start_one(self) -> None:
        """Start a worker, if there is none."""
        if not self._members:
            self._members.append(self._started(self._devices[0]))

    def deal(self, devices: Sequence[str]) -> None:
        """As many workers are wanted as there are devices in this list."""
        self._devices = devices
        for member, device in zip(self._members, devices, strict=False):
            member.device = device

    def start(self) -> None:
        """Start the workers that are not there yet, and let all import what trials take."""
        for device in self._devices[len(self._members) + len(self._waiting) :]:
            self._members.append(self._started(device))
        for member in self._members:
            member.tell(ToPrepare())

    def assign(self, jobs: Sequence[Job]) -> None:
        """Tell the workers what to work on."""
        self.start()
        self._jobs = list(jobs)
        for member in self._members:
            member.tell(self._work_for(self._jobs, member.device))

    def _work_for(self, jobs: Sequence[Job], device: str | None) -> ToWork:
        return ToWork(jobs, device, len(self._devices), self._apart)

    @property
    def names(self) -> list[str]:
        """Of the workers that work trials."""
        return [member.name for member in self._members if member.ready]

    def ask(self, request: Inquiry[Answer], tell: Callable[[str], None] = lambda what: None) -> Answer:
        """The answer of one of the workers. Raises what answering raised, and DiedError if the worker has ended.

        `tell` hears what is begun.
        """
        self._jobs, self._waiting = None, []
        self._see_off()
        self.start_one()
        member = self._members[0]
        member.tell(ToAnswer(request, member.device))
        meanwhile, self._meanwhile = self._meanwhile, lambda: None
        meanwhile()
        began, since, place = Began("", LATE_SECONDS * 10), self._clock(), ""
        while True:
            wait([member.line, member.process.sentinel], LOOK_SECONDS)
            alive = member.process.is_alive()
            for said in member.heard():
                match said:
                    case Answered(answer, error):
                        if error is not None:
                            raise error
                        return answer  # type: ignore[no-any-return]
                    case Began(what):
                        began, since = said, self._clock()
                        tell(what)
                    case Overran(place):
                        pass
            late = self._clock() - since > began.patience + LATE_SECONDS
            if late and alive:
                member.kill()
                member.process.join()
            if late or not alive:
                self._members.remove(member)
                code, place = member.process.exitcode, place or member.place
                raise DiedError(began.what, code, place, began.patience if late or code == OVERDUE else None)

    def retire(self) -> None:
        """Keep one worker, which is to answer alone on the machine: what is asked waits for the others' ends."""
        self._leaving, self._members = [*self._leaving, *self._members[1:]], self._members[:1]
        for member in self._members:
            member.tell(ToRest())
        for member in self._leaving:
            member.tell(None)

    def dismiss(self) -> None:
        """Tell the workers to end; that they have is waited for when the pool is left."""
        for member in self._members:
            member.tell(None)

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self.stop()
        self._leaving, self._members = [*self._leaving, *self._members], []
        self._see_off()

    def _see_off(self) -> None:
        """Wait for those that were told to end."""
        leaving, self._leaving = self._leaving, []
        self._end(leaving)

    def stop(self) -> None:
        """End all workers at once, in the middle of their trials."""
        for member in self._members:
            member.kill()
        self._end(self._members)

    def _end(self, members: Sequence[_Member]) -> None:
        for member in members:
            member.tell(None)
        for member in members:
            member.process.join(TERMINATE_SECONDS)
            if member.process.is_alive():
                member.kill()
                member.process.join()

    def kill(self, worker: str) -> None:
        """End one worker, which `wait` then finds dead and replaces."""
        for member in self._members:
            if member.name == worker:
                member.kill()

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Wait until a trial ends, a worker dies, or time is up; returns (name, reason) of dead workers.

        They are replaced, after a pause that grows until trials end again. Raises UserError if a worker fails before it
        is ready, if several in a row are killed then while none trains, or if one can no longer write.
        """
        wait([place for m in self._members for place in (m.line, m.process.sentinel)], seconds)
        dead: list[tuple[str, str]] = []
        for member in list(self._members):
            alive = member.process.is_alive()
            self._listen(member)  # only now: what the dead had to say is known
            if not alive:
                self._members.remove(member)
                dead += self._buried(member)
        for due, device in list(self._waiting):
            if self._clock() >= due:
                self._waiting.remove((due, device))
                self._members.append(self._started(device))
        return dead

    def _listen(self, member: _Member) -> None:
        """Take in whether it is ready, or has ended a trial."""
        for said in member.heard():
            match said:
                case Ready(name):
                    member.name = name
                case Worked():
                    self._deaths.over()
                    self.num_worked += 1

    def _buried(self, member: _Member) -> list[tuple[str, str]]:
        """Plan for its replacement; returns its name and what it died of, if it was working."""
        code = member.process.exitcode
        if code == STORE_FAILED:
            raise UserError(
                "a store can't be written any more, and the line above says why; what is finished is kept, and the "
                "same command goes on when it works again"
            )
        if launched() is not None:
            raise UserError(
                f"a rank has ended ({exit_name(code)}), which only torchrun can start again (--max-restarts); what is "
                f"finished is kept, and the same command goes on"
            )
        pause = self._deaths.add(ready=member.ready)
        if not member.ready:
            self._check_start(code)
        self._waiting.append((self._clock() + pause, member.device))
        where = f" at {place}" if (place := member.place) else ""
        return [(member.name, f"its worker died ({exit_name(code)}{where})")] if member.ready else []

    def _check_start(self, code: int | None) -> None:
        """A worker ended before it was ready: killed from outside it is replaced, within reason."""
        if code is None or code >= 0:
            raise UserError(f"a worker ended at its start ({exit_name(code)}); its message is above")
        if self._deaths.too_many_starts and not any(member.ready for member in self._members):
            raise UserError(
                f"{STARTS} workers in a row were killed at their start ({exit_name(code)}): is there memory enough?"
            )

    def _started(self, device: str | None) -> _Member:
        threads = str(self._threads)
        with _environment(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, HYDRA_FULL_ERROR=None):
            (ours, theirs), (reader, writer) = self._context.Pipe(), self._context.Pipe(duplex=False)
            arguments = (theirs, writer, os.getpid(), self._needs)
            process = self._context.Process(target=main, args=arguments, daemon=True)
            with interrupts_blocked():
                process.start()
        theirs.close()
        writer.close()
        member = _Member(process, ours, reader, device)
        if self._jobs is not None:
            member.tell(self._work_for(self._jobs, device))
        return member


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
