"""Training losses as a loop logs them, until they are reported."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from optsweep.train.own.report import Number

TOGETHER = 1024
"""So many are put into one tensor on their device: a scalar tensor takes half a KiB, however small its number."""


class Losses:
    """Losses with the steps that were done, kept on their device: twelve bytes each."""

    def __init__(self) -> None:
        self._steps = array("q")
        self._together: list[Tensor] = []
        self._loose: list[Number] = []

    def add(self, step: int, loss: Number) -> None:
        """One more, which is not waited for."""
        self._steps.append(step)
        self._loose.append(loss)
        if len(self._loose) == TOGETHER:
            self._gather()

    def take(self) -> tuple[list[int], list[float]]:
        """The steps, and the losses in float32, since the last call."""
        self._gather()
        taken, together = self._steps.tolist(), self._together
        self._steps, self._together = array("q"), []
        return taken, [loss for losses in together for loss in losses.tolist()]

    def _gather(self) -> None:
        tensors = [
            value.reshape(()).float() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
            for value in self._loose
        ]
        if tensors:
            self._together.append(torch.stack([tensor.to(tensors[0].device) for tensor in tensors]))
        self._loose = []
