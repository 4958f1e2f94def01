"""Something that is done every few seconds beside the work: leases are renewed this way."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

BEAT_SECONDS = 10.0
"""Between two renewals of a lease."""


class Heartbeat:
    """Calls `beat` every few seconds from a thread of its own, until stopped. A store that fails is tried again."""

    def __init__(self, beat: Callable[[], None], seconds: float = BEAT_SECONDS) -> None:
        self._beat, self._seconds = beat, seconds
        self._over = threading.Event()

    def start(self) -> None:
        """Begin; the first call comes after that many seconds."""
        threading.Thread(target=self._run, name="optsweep heartbeat", daemon=True).start()

    def stop(self) -> None:
        """No further call."""
        self._over.set()  # not joined: a beat that waits for a busy store changes nothing any more

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self._beat()
            except SQLAlchemyError:
                continue
