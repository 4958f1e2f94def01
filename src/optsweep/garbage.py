"""When Python looks for garbage. A look through all that torch and MLflow have made takes a tenth of a second."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

YOUNG_OBJECTS = 20_000
"""Between two looks: what imports make stays, and looking through it was a tenth of a short command."""


def look_seldom() -> None:
    """Look for garbage less often than Python does by itself."""
    gc.set_threshold(YOUNG_OBJECTS)


def leave_what_is_there() -> None:
    """Never look through what there is by now, as the modules that were imported."""
    gc.freeze()


def end_soon() -> None:
    """Spare a process that is about to end Python's last looks, which cost one with torch and MLflow over a second.

    They would find databases that are still open, into which SQLite puts its log back when the last one is closed.
    """
    for held in gc.get_objects():
        if type(held) is sqlite3.Connection:
            with suppress(sqlite3.Error):  # of another thread
                held.close()
    gc.freeze()


@contextmanager
def no_looks() -> Iterator[None]:
    """None inside, where time is taken: one look would be longer than the steps that are timed."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
