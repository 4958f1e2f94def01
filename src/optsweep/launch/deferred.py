"""What the planner still has to write to the tracking store, which may be away while training goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from optsweep.tracking.outage import Outage, passes


class Deferred:
    """Writes in their order, tried again while they fail. Lost with the process: the next call decides them anew."""

    def __init__(self, outage: Outage | None = None) -> None:
        self._outage = outage
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, write: Callable[[], None]) -> None:
        """One more, after those that wait."""
        self._waiting.append(write)

    def send(self) -> None:
        """Do what waits. Raises what the store raises."""
        while self._waiting:
            self._waiting[0]()
            self._waiting.popleft()
        if self._outage is not None:
            self._outage.worked()

    def try_to_send(self) -> None:
        """Do what waits, as far as the store lets it."""
        if not self._waiting:
            return
        try:
            self.send()
        except Exception as error:
            if self._outage is None or not passes(error):
                raise
            self._outage.failed(error)
