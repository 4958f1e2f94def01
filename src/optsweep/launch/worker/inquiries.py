"""What a planner asks of a process that may run the user's code: a worker, or, without workers, its own.

The user's code may crash that process, leave it, or hang in it; whoever asks a worker is told so (`DiedError`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from optsweep.errors import UserError

if TYPE_CHECKING:
    from optsweep.config.arm import Arm
    from optsweep.launch.worker.builds import Builds
    from optsweep.search.space import Params

PATIENCE_SECONDS = 1800.0
"""How long the user's code may take to build an arm, or to take the steps that are timed, without `trainer.timeout`."""

Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True)
class Workbench:
    """What a process that answers has at hand: what it has built, and whom to tell what it is at."""

    builds: Callable[[], Builds]
    begin: Callable[[str, float], None] = lambda what, patience: None  # what is begun, and seconds that it may take
    # in which the ranks of an arm train a setting of a repeat together; else one process does
    leading: Callable[[Arm, int, Params], AbstractContextManager[None]] = lambda arm, repeat, params: nullcontext()


class Inquiry(Protocol[Answer]):
    """Something to be done by a process that may run the user's code."""

    def run(self, bench: Workbench) -> Answer:
        """Do it. Raises UserError with one line."""


class DiedError(Exception):
    """The process that was asked ended before it had answered."""

    def __init__(self, at: str, exit_code: int | None, place: str = "", patience: float | None = None) -> None:
        super().__init__(at)
        self.at = at  # what it had begun
        self.exit_code, self.place = exit_code, place
        self.patience = patience  # seconds after which it was ended; None: it ended by itself, or was killed

    def __reduce__(self) -> tuple[type[DiedError], tuple[object, ...]]:
        return DiedError, (self.at, self.exit_code, self.place, self.patience)

    @property
    def killed(self) -> bool:
        """Whether that was from outside: the memory ran out, as a rule."""
        return self.patience is None and self.exit_code == -signal.SIGKILL

    @property
    def how(self) -> str:
        """In a few words."""
        where = f" ({self.place})" if self.place else ""
        if self.patience is not None:
            return f"it took longer than {self.patience:.0f} s{where}"
        return f"its process ended with {exit_name(self.exit_code)}{where}"


def exit_name(code: int | None) -> str:
    """'SIGKILL', or 'exit code 1'."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


class Asker(Protocol):
    """Whoever has requests answered."""

    def ask(self, request: Inquiry[Answer], tell: Callable[[str], None] = lambda what: None) -> Answer:
        """The answer; `tell` hears what is begun. Raises UserError, and DiedError if who was to answer has ended."""


def asked_twice(asker: Asker, request: Inquiry[Answer]) -> Answer:
    """The answer; once more where the process was killed from outside, which may have had nothing to do with it."""
    try:
        return asker.ask(request)
    except DiedError as error:
        if not error.killed:
            raise
    return asker.ask(request)


def ended_at_its_start(error: DiedError) -> UserError:
    """What is said of a process that ended before it ran anybody's code."""
    return UserError(f"a worker ended at its start ({exit_name(error.exit_code)}); its message is above")


class Here:
    """This process answers, as it does without workers."""

    def __init__(self, builds: Builds) -> None:
        self._builds = builds

    def ask(self, request: Inquiry[Answer], tell: Callable[[str], None] = lambda what: None) -> Answer:
        """The answer."""
        return request.run(Workbench(lambda: self._builds, lambda what, patience: tell(what)))


def here() -> Here:
    """This process, with nothing built yet."""
    from optsweep.launch.worker.builds import Builds

    return Here(Builds())


def patience_of(arm: Arm) -> float:
    """Seconds that the user's code may take for one thing."""
    return PATIENCE_SECONDS if arm.trainer.timeout is None else arm.trainer.timeout
