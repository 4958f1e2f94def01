"""When Python looks for garbage. A look through all that torch and MLflow have made takes a tenth of a second."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 20_000
"""Between two looks: what imports make stays, and looking through it was a tenth of a short command."""


def look_seldom() -> None:
    """Look for garbage less often than Python does by itself."""
    gc.set_threshold(YOUNG_OBJECTS)


def leave_what_is_there() -> None:
    """Never look through what there is by now, as the modules that were imported.

    At a process's end too: the looks that Python takes then cost one with torch and MLflow a second and a half.
    """
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
