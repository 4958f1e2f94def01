"""Who hands out trials to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from optsweep.train.trial import Trial


class Source(Protocol):
    """Who hands out trials."""

    def take(self, free_lanes: int) -> Sequence[Trial]:
        """At most so many trials to train next; none if there are none now. Asked again whenever lanes are free."""


class Listed:
    """A source of given trials, in their order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._left = list(trials)

    def take(self, free_lanes: int) -> Sequence[Trial]:
        """The next ones."""
        taken, self._left = self._left[:free_lanes], self._left[free_lanes:]
        return taken
