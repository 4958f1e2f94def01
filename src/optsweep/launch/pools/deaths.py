"""Workers that a pool loses one after the other: how long it waits with the next one, and when it gives up."""

from __future__ import annotations

from dataclasses import dataclass

STARTS = 4
"""How many workers in a row may be killed before they are ready while none trains. Memory that runs out now and then
leaves some."""

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
"""Before a worker that has died is replaced; doubled with each further one until trials end again, up to this."""


@dataclass
class Deaths:
    """Those in a row, since trials have ended."""

    count: int = 0
    starts: int = 0  # of them, of workers that weren't ready yet

    def over(self) -> None:
        """Trials end again."""
        self.count = self.starts = 0

    def add(self, *, ready: bool) -> float:
        """One more; returns after how many seconds its worker is to be replaced."""
        pause = min(PAUSE_SECONDS * 2.0 ** min(self.count, 20), LONGEST_PAUSE_SECONDS)
        self.count += 1
        self.starts += not ready
        return pause

    @property
    def too_many_starts(self) -> bool:
        """Whether it is no use to start another one, where none trains."""
        return self.starts >= STARTS
