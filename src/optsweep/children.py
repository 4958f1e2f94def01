"""Processes that this one starts: Ctrl-C is their parent's to hear, and none of them outlives it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes started inside don't get SIGINT: Ctrl-C would end them, in many lines, until they come to ignore it."""
    resource_tracker.ensure_running()  # which unblocks SIGINT when it has to start its process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """In a child: Ctrl-C reaches the whole group, and its parent decides what that means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent() -> None:
    """In a child: end as soon as the parent is gone, whose end the reader of a queue, for one, never hears of."""
    threading.Thread(target=_end_with_parent, name="optsweep parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
