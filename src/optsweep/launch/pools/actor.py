"""A worker on a node of a Ray cluster: an actor that holds a local pool of one, and answers its planner's pool.

Nothing here imports Ray, and the actor's process no torch: the user's code runs in a child of it, as everywhere.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optsweep.address import STORAGE_KEY, TRACKING_KEY, read_address
from optsweep.errors import UserError
from optsweep.launch.environment import without_script
from optsweep.launch.pools.local import LocalPool
from optsweep.launch.pools.member import Answered
from optsweep.launch.worker.inquiries import DiedError, Inquiry
from optsweep.tracking.spool import Spool

if TYPE_CHECKING:
    from optsweep.launch.worker.job import Job

Method = TypeVar("Method", bound=Callable[..., Any])

ASIDE = "aside"
"""The concurrency group of methods that aren't waited with until others are over."""

SLICE_SECONDS = 0.25
"""Between two looks of a watch whether it is called off."""

KEPT_LINES = 50
"""Of what a worker's process says; the last ones, should it fail at its start."""


@dataclass(frozen=True)
class Heard:
    """What is new of an actor's worker."""

    name: str = ""  # under which it works trials; empty: not yet
    dead: Sequence[tuple[str, str]] = ()  # names of those that it had before, and reasons
    said: Sequence[str] = ()  # lines for the user
    trouble: str = ""  # which ends the sweep


def _aside(method: Method) -> Method:
    """As `ray.method(concurrency_group=ASIDE)` has it: on the class itself, for Ray Client's server imports it too."""
    method.__dict__["__ray_concurrency_group__"] = ASIDE
    return method


class NodeWorker:
    """One worker's place on a node. Its methods come one after the other, but for those aside, which come at once."""

    def __init__(self, threads: int, folder: str | None) -> None:
        """`folder`: the working folder, which is also where the user's modules are; None: that of this process."""
        _see_no_device_of_others()
        here = folder or str(Path.cwd())
        os.chdir(here)
        sys.path[:] = [*(path for path in sys.path if path != here), here]  # behind all others, so it shadows none
        self._said = _Overheard()
        self._called = threading.Event()
        self._until_the_end = ExitStack()
        self._until_the_end.enter_context(without_script())  # Ray's own is the main module here
        self._pool = LocalPool(threads, apart=True)
        self._pool.start_one()

    def begin(self) -> Heard:
        """It is there; its worker imports what it needs."""
        self._pool.start()
        return Heard()

    def ask(self, request: Inquiry[Any], device: str | None) -> tuple[Answered, Sequence[str]]:
        """The worker's answer, or what it raised."""
        self._called.clear()
        self._set_device(device)
        try:
            answered = Answered(self._pool.ask(request))
        except Exception as error:
            answered = Answered(error=error)
        return answered, self._said.lines(all_of_them=isinstance(answered.error, DiedError))

    def assign(self, jobs: Sequence[Job], device: str | None) -> Heard:
        """Tell the worker what to work on, if the stores can be had from here."""
        self._called.clear()
        first = jobs[0].arm
        for key, address in ((STORAGE_KEY, first.storage), (TRACKING_KEY, first.tracking_uri)):
            found = read_address(key, address)
            if not found.is_there:
                return Heard(trouble=f"{key}: {found.file} isn't there on {os.uname().nodename}, {_FOR_A_CLUSTER[key]}")
        Spool.of(first.tracking_uri, first.storage, first.sweep).make_home()  # here, where the stores are servers
        self._set_device(device)
        self._pool.assign(jobs)
        return Heard()

    def watch(self, seconds: float) -> Heard:
        """Wait until there is something new, or time is up."""
        dead: list[tuple[str, str]] = []
        until, before = time.monotonic() + seconds, self._state
        try:
            while not (dead or self._called.is_set() or self._state != before) and time.monotonic() < until:
                dead = self._pool.wait(SLICE_SECONDS)
        except UserError as error:
            return Heard(said=self._said.lines(all_of_them=True), trouble=str(error))
        name = next(iter(self._pool.names), "")
        return Heard(name, dead, self._said.lines())

    @property
    def _state(self) -> tuple[object, ...]:
        """Changes when there is something to tell."""
        return self._pool.num_worked, self._pool.names, self._said.fresh

    @_aside
    def kill(self, worker: str) -> None:
        """End the worker of that name, which is then replaced."""
        self._pool.kill(worker)

    @_aside
    def rest(self) -> None:
        """The watch that goes on is over: there is something to be asked."""
        self._called.set()

    @_aside
    def leave(self) -> None:
        """Let the worker end by itself, and wait for that."""
        self._called.set()
        self._pool.dismiss()
        self._pool.__exit__(None)

    @_aside
    def end(self) -> None:
        """End the worker in the middle of its trial."""
        self._called.set()
        self._pool.stop()

    def _set_device(self, device: str | None) -> None:
        if device is not None:
            self._pool.deal([device])


MARK_SECONDS = 2.0
"""Within which what was said before is read."""

_MARK = "\0\n"
_FOR_A_CLUSTER = {
    STORAGE_KEY: "where a worker is; give postgresql+psycopg://…, or a file in a folder that all nodes share",
    TRACKING_KEY: "where a worker is; give an MLflow server's address, or a file in a folder that all nodes share",
}


def _see_no_device_of_others() -> None:
    """Ray says which GPUs an actor may use, but hides none from one that may use none."""
    if "ray" in sys.modules:
        import ray

        if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
            os.environ["CUDA_VISIBLE_DEVICES"] = ""


class _Overheard:
    """What this process and its children say on stderr, which still goes where it went: to a file of Ray's."""

    def __init__(self) -> None:
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self._ours: deque[str] = deque(maxlen=KEPT_LINES)
        self._caught_up = threading.Event()
        before = os.dup(2)
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)
        threading.Thread(target=self._read, args=(reader, before), name="optsweep stderr", daemon=True).start()

    def _read(self, reader: int, before: int) -> None:
        with os.fdopen(reader, errors="replace") as lines:
            for line in lines:
                if line == _MARK:
                    self._caught_up.set()
                    continue
                os.write(before, line.encode())
                self._last.append(line.rstrip())
                if line.startswith("optsweep: "):
                    self._ours.append(line.rstrip())

    @property
    def fresh(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._ours)

    def lines(self, *, all_of_them: bool = False) -> list[str]:
        """What is for the user, once; or all that there is left of it, up to now."""
        if all_of_them:
            self._caught_up.clear()
            os.write(2, _MARK.encode())
            self._caught_up.wait(MARK_SECONDS)
        found = list(self._last if all_of_them else self._ours)
        self._ours.clear()
        if all_of_them:
            self._last.clear()
        return found
