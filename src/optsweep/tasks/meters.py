"""What a split's evaluation comes to: batch by batch in, one number a lane out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from optsweep.tasks.nest import Nest


class Meter(Protocol):
    """Takes in what an evaluation saw of each batch, and says what it is over the whole split."""

    def add(self, kept: Nest, batch: Nest, count: int) -> None:
        """What is kept of a batch of `count` samples, as `Task.evaluated` returned it, stacked where lanes are."""

    def values(self) -> Tensor:
        """Over all batches, for each lane: `[K]` in float64, on the host."""


class Means:
    """The mean over samples of what is a mean over each batch; stays on the device until it is asked for."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.counts: list[int] = []
        self._kept: list[Tensor] = []

    def add(self, kept: Nest, batch: Nest, count: int) -> None:
        """Means `[K]`, or `[]` of one lane."""
        self._kept.append(kept.expand(self.lanes))
        self.counts.append(count)

    def each(self) -> Tensor:
        """Those of every batch, `[batches, K]` in float64, on the host."""
        return torch.stack(self._kept).cpu().double()

    def values(self) -> Tensor:
        """Weighted by the samples of each batch."""
        total = torch.zeros(self.lanes, dtype=torch.float64)
        for mean, count in zip(self.each(), self.counts, strict=True):
            total += mean * count
        return total / sum(self.counts)
