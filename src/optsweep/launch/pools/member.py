"""A worker's process: answers its planner's requests, and works trials between them."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing as mp
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.children import ignore_interrupts
from optsweep.errors import UserError
from optsweep.garbage import leave_what_is_there, look_seldom
from optsweep.launch.worker.exit_codes import STORE_FAILED
from optsweep.launch.worker.inquiries import Inquiry, Workbench
from optsweep.launch.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from optsweep.launch.worker.builds import Builds
    from optsweep.launch.worker.job import Job
    from optsweep.launch.worker.ranks.leader import Leader

IDLE_SECONDS = 0.1
"""Between two looks at the storage of a worker without work."""


# -- what a planner tells a worker; None: end ------------------------------------------------------------------------


@dataclass(frozen=True)
class ToWork:
    """Work these jobs on this device, one of so many workers, until there is something else to do."""

    jobs: Sequence[Job]
    device: str | None
    workers: int = 1
    apart: bool = False  # from the planner's machine


@dataclass(frozen=True)
class ToPrepare:
    """Import what working takes beyond answering: there are going to be trials."""


@dataclass(frozen=True)
class ToRest:
    """Work no more, and wait for the next order."""


@dataclass(frozen=True)
class ToAnswer:
    """Answer this, with what is built for this device."""

    request: Inquiry[Any]
    device: str | None


Order = ToWork | ToPrepare | ToRest | ToAnswer


# -- what a worker tells its planner ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """It works trials from now on, under this name."""

    name: str


@dataclass(frozen=True)
class Worked:
    """Trials of it have ended."""


@dataclass(frozen=True)
class Began:
    """It has begun to run the user's code for this, which may take so many seconds."""

    what: str
    patience: float


@dataclass(frozen=True)
class Overran:
    """It took longer, and is there now; the process ends."""

    place: str


@dataclass(frozen=True)
class Answered:
    """What a request came to: its answer, or what it raised."""

    answer: Any = None
    error: Exception | None = None


def main(line: Connection, last_words: Connection, parent: int, needs: str) -> None:
    """Serve the planner at the other end of the line, until it says so or is gone; `needs` is a module.

    `last_words` get where this process is if a signal kills it.
    """
    faulthandler.enable(last_words.fileno())
    mp.current_process().daemon = False  # a daemon may have no children, as a DataLoader's workers are
    ignore_interrupts()
    look_seldom()
    watchdog = Watchdog(parent)
    watchdog.start()
    import_module(needs)  # takes seconds, in which the planner has other things to do
    leave_what_is_there()
    from optsweep.tracking.outage import StoreFailureError

    member = _Serving(line, watchdog)
    try:
        while (order := member.next()) is not None:
            member.obey(order)
    except StoreFailureError:  # which its planner says
        raise SystemExit(STORE_FAILED) from None
    finally:
        member.part()
        leave_what_is_there()


class _Serving:
    """What a worker's process keeps between two orders: what it has built."""

    def __init__(self, line: Connection, watchdog: Watchdog) -> None:
        self._line, self._watchdog = line, watchdog
        self._folder = Path.cwd()  # the planner's, which the user's code may leave
        self._builds: Builds | None = None
        self._ranks: Leader | None = None
        self._until: float | None = None  # when what was begun is overdue

    def next(self) -> Order | None:
        """The planner's next order; None to end, or where it is gone."""
        try:
            order: Order | None = self._line.recv()
        except (EOFError, OSError):
            return None
        return order

    def obey(self, order: Order) -> None:
        """Do it."""
        match order:
            case ToWork():
                self._work(order)
            case ToAnswer(request, device):
                self._answer(request, device)
            case ToPrepare():
                import optsweep.launch.worker.worker  # noqa: F401
            case ToRest():
                pass

    def _work(self, order: ToWork) -> None:
        from optsweep.launch.worker.worker import Worker

        leave_what_is_there()
        with contextlib.chdir(self._folder):  # from where the stores are found
            worker = Worker(
                order.jobs,
                builds=self._builds_for(order.device),
                stopping=lambda: self._watchdog.orphaned,
                called=lambda: self._line.poll(0),
                watch=self._watchdog.watching,
                workers=order.workers,
                told=lambda: self._say(Worked()),
                delivers=order.apart,
                apart=order.apart,
                leader=self._leader(order.device),
            )
        with contextlib.closing(worker):
            self._say(Ready(worker.name))
            while not self._line.poll(0) and not self._watchdog.orphaned:
                if worker.work_once():
                    self._say(Worked())
                else:
                    self._line.poll(IDLE_SECONDS)

    def _answer(self, request: Inquiry[Any], device: str | None) -> None:
        bench = Workbench(lambda: self._builds_for(device), self._begin, self._leading(device))
        with self._watchdog.watching(self._overdue, lambda place: self._say(Overran(place))):
            try:
                found = Answered(request.run(bench))
            except Exception as error:
                found = Answered(error=_sendable_error(error))
            self._until = None
        self._say(found)

    def _builds_for(self, device: str | None) -> Builds:
        """What was built for the device; for another one all is built anew."""
        from optsweep.launch.worker.builds import Builds

        if self._builds is None or self._builds.device != device:
            self._builds = Builds(device)
        return self._builds

    def _leader(self, device: str | None) -> Leader:
        """The ranks that this process leads; they have built what it has."""
        from optsweep.launch.worker.ranks.leader import Leader

        builds = self._builds_for(device)
        if self._ranks is None or self._ranks.builds is not builds:
            self.part()
            self._ranks = Leader(builds)
        return self._ranks

    def _leading(self, device: str | None) -> Callable[..., contextlib.AbstractContextManager[None]]:
        """Those of them that an answer takes."""
        return lambda arm, repeat, params: self._leader(device).leading(arm, repeat, params)

    def part(self) -> None:
        """End these ranks."""
        if self._ranks is not None:
            self._ranks.close()

    def _begin(self, what: str, patience: float) -> None:
        self._until = time.monotonic() + patience
        self._say(Began(what, patience))

    def _overdue(self) -> bool:
        until, ranks = self._until, self._ranks
        return (until is not None and time.monotonic() > until) or (ranks is not None and ranks.stuck() is not None)

    def _say(self, what: Ready | Worked | Began | Overran | Answered) -> None:
        """Tell the planner; that it is gone by now is found out elsewhere."""
        with contextlib.suppress(OSError):
            self._line.send(what)


def _sendable_error(error: Exception) -> Exception:
    """The error as it may travel: one of the user's own classes would have their code run by who receives it."""
    if isinstance(error, UserError):
        return UserError(str(error))
    if type(error).__module__ != "builtins":
        return RuntimeError("in a worker:\n" + "".join(traceback.format_exception(error)))
    error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    return error
