"""Processes that help to draw a report. They import while its sweeps are being read, and get what is drawn once."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from optsweep.children import end_with_parent, ignore_interrupts, interrupts_blocked
from optsweep.garbage import leave_what_is_there, look_seldom

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray

Task = TypeVar("Task")
Done = TypeVar("Done")

_FRONT, _BACK = 0, 1
_TASKS_PER_HELPER = 12
"""Figures of one group take about as long as the start of another process."""


@dataclass(frozen=True)
class Helpers:
    """Processes beside this one."""

    most: int
    pool: Executor
    taken: SynchronizedArray[int]  # tasks begun at the front and at the back
    ready: Future[None] | None = None  # when the first has imported what draws

    def share(self, do: Callable[[Task], Done], tasks: Sequence[Task]) -> list[Done]:
        """What `do` gives for each task. Helpers begin at the front, this process meanwhile at the back.

        `do` travels once to each helper, with what it holds. A helper that dies has done nothing.
        """
        self.taken[:] = [0, 0]
        packed = pickle.dumps((do, tasks))  # not by the pool's thread, which would meet what `do` changes here
        wanted = min(self.most, 1 + (len(tasks) - 1) // _TASKS_PER_HELPER)
        done: dict[int, Done] = {}
        with suppress(BrokenProcessPool):
            with interrupts_blocked():
                futures = [self.pool.submit(_at_the_front, packed) for _ in range(wanted)]
            done |= _done(do, tasks, self.taken, _BACK)
            for future in futures:
                done |= future.result()
        return [done[place] if place in done else do(task) for place, task in enumerate(tasks)]


@contextmanager
def helpers(processes: int) -> Iterator[Helpers | None]:
    """`processes` in all, this one included; of less than two there is none to help. The first begins to import."""
    if processes < 2:
        yield None
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    taken = context.Array("i", 2)
    with ProcessPoolExecutor(processes - 1, context, _remember, (taken,)) as pool:
        ready = None
        with suppress(BrokenProcessPool), interrupts_blocked():
            ready = pool.submit(_begin)
        yield Helpers(processes - 1, pool, taken, ready)


class HelpersOnCall:
    """`helpers(processes)` until a stack ends, for who doesn't know yet whether there is something to draw."""

    def __init__(self, processes: int, until: ExitStack) -> None:
        self._processes, self._until = processes, until
        self._prepared: Future[None] | None = None

    @cached_property
    def there(self) -> Helpers | None:
        """They begin when they are first asked for; none where no more processes can be had."""
        try:
            return self._until.enter_context(helpers(self._processes))
        except OSError:
            return None

    def prepare(self) -> None:
        """Let them begin, and import here what draws: for moments in which there is nothing else to do."""
        if self.there is not None:
            self._prepared = self.there.ready
            import_what_draws()

    def leave_the_machine_alone(self) -> None:
        """Wait until those that were prepared have nothing to do: steps are going to be timed."""
        if self._prepared is not None:
            wait([self._prepared])  # whatever has become of it


_TAKEN: list[SynchronizedArray[int]] = []
"""In a helper: how far it and the others are."""


def _remember(taken: SynchronizedArray[int]) -> None:
    ignore_interrupts()
    look_seldom()
    end_with_parent()
    _TAKEN.append(taken)


def import_what_draws() -> None:
    """Import it."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401

    import optsweep.report.write  # noqa: F401


def _begin() -> None:
    import_what_draws()
    leave_what_is_there()


def _at_the_front(packed: bytes) -> dict[int, Any]:
    do, tasks = pickle.loads(packed)
    return _done(do, tasks, _TAKEN[0], _FRONT)


def _done(
    do: Callable[[Task], Done], tasks: Sequence[Task], taken: SynchronizedArray[int], side: int
) -> dict[int, Done]:
    """What `do` gives for the tasks that nobody else has begun, by their places."""
    done = {}
    while (place := _next(taken, side, len(tasks))) is not None:
        done[place] = do(tasks[place])
    return done


def _next(taken: SynchronizedArray[int], side: int, count: int) -> int | None:
    with taken.get_lock():
        if taken[_FRONT] + taken[_BACK] == count:
            return None
        taken[side] += 1
        return taken[_FRONT] - 1 if side == _FRONT else count - taken[_BACK]
