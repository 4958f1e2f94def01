"""Requests for workers that end their process, hang in it, or answer."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from optsweep.errors import UserError
from optsweep.launch.worker.inquiries import Workbench


@dataclass(frozen=True)
class Echo:
    what: object

    def run(self, bench: Workbench) -> object:
        return self.what


@dataclass(frozen=True)
class Refusal:
    def run(self, bench: Workbench) -> None:
        raise UserError("task.width: it is wrong")


class OwnError(Exception):
    """Of the user's code: whoever gets it would import that."""


@dataclass(frozen=True)
class Mistake:
    def run(self, bench: Workbench) -> None:
        raise OwnError("a mistake")


@dataclass(frozen=True)
class Leaving:
    code: int

    def run(self, bench: Workbench) -> None:
        bench.begin("an arm", 1000.0)
        os._exit(self.code)


@dataclass(frozen=True)
class Dying:
    """By a signal; not if a file is there, which the first one makes."""

    number: int
    unless: str = ""

    def run(self, bench: Workbench) -> str:
        bench.begin("an arm", 1000.0)
        if self.unless and os.path.exists(self.unless):  # noqa: PTH110
            return "alive"
        if self.unless:
            open(self.unless, "w").close()  # noqa: PTH123
        os.kill(os.getpid(), self.number)  # dies here
        return "not reached"


@dataclass(frozen=True)
class Hanging:
    """For good, with a child that does so too; tells where it is by its line."""

    patience: float

    def run(self, bench: Workbench) -> None:
        if os.fork() == 0:
            threading.Event().wait()
        print(os.getpid(), *_children(), flush=True)
        bench.begin("an arm", self.patience)
        threading.Event().wait()  # hangs here


def _children() -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process().children()]
