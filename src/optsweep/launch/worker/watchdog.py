"""A thread that ends its process: when the parent is gone, or when what the process does takes too long.

Nothing else can end a worker whose training thread hangs in somebody's code when its planner was killed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from optsweep.errors import place_of
from optsweep.launch.worker.exit_codes import ORPHANED, OVERDUE

LOOK_SECONDS = 1.0
"""Between two looks."""

GRACE_SECONDS = 2.0
"""Within which an orphan may stop by itself, between two steps of its work."""

TELL_SECONDS = 60.0
"""Within which those who want to know are told why the process ends; a store may be slow, or gone."""


@dataclass(frozen=True)
class _Limit:
    overdue: Callable[[], bool]
    tell: Callable[[str], None]


class Watchdog:
    """Watches this process, whose parent is `parent`, once it is started."""

    def __init__(self, parent: int, seconds: float = LOOK_SECONDS) -> None:
        self._parent, self._seconds = parent, seconds
        self._watched: _Limit | None = None
        self._orphan_since: float | None = None

    def start(self) -> None:
        """Begin; children that this process forks are watched too."""
        if sys.platform != "win32":
            os.register_at_fork(after_in_child=lambda: Watchdog(os.getppid()).run())
        self.run()

    def run(self) -> None:
        """Begin in this process alone."""
        threading.Thread(target=self._run, name="optsweep watchdog", daemon=True).start()

    @property
    def orphaned(self) -> bool:
        """Whether the parent is gone."""
        return os.getppid() != self._parent

    @contextlib.contextmanager
    def watching(self, overdue: Callable[[], bool], tell: Callable[[str], None]) -> Iterator[None]:
        """Within it the process ends once it is overdue; `tell` hears before where it is, in the user's code."""
        self._watched = _Limit(overdue, tell)
        try:
            yield
        finally:
            self._watched = None

    def _run(self) -> None:
        while True:
            time.sleep(self._seconds)
            self.look()

    def look(self) -> None:
        """End this process, if it has to."""
        if self.orphaned:
            self._orphan_since = self._orphan_since or time.monotonic()
            if time.monotonic() - self._orphan_since >= GRACE_SECONDS:
                end(ORPHANED)
        watched = self._watched
        if watched is not None and watched.overdue():
            deadline = threading.Timer(TELL_SECONDS, end, (OVERDUE,))
            deadline.daemon = True
            deadline.start()
            with contextlib.suppress(Exception):
                watched.tell(_place())
            end(OVERDUE)


def end(code: int) -> None:
    """End this process at once, whatever it is doing, and all that it has started."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    os._exit(code)


def _place() -> str:
    """Where the main thread is: the last line of the user's own."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "" if frame is None else place_of(frame)
