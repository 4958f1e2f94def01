"""A clock of training time, which stands still while a loop evaluates."""

from __future__ import annotations

import time

import torch

from optsweep.train.device import synchronize


class Clock:
    """Stands until it is started."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Go on, if it stands."""
        if self._since is None:
            synchronize(self._device)
            self._since = time.perf_counter()

    def go_on(self, seconds: float) -> None:
        """Start from so many seconds."""
        self._seconds, self._since = seconds, None
        self.start()

    def stop(self) -> float:
        """Stand still; returns the seconds so far."""
        if self._since is not None:
            synchronize(self._device)
            self._seconds += time.perf_counter() - self._since
            self._since = None
        return self._seconds
