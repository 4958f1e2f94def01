"""Losses and norms of a stretch of steps, kept on the device until its end, then fetched at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.rule import Floats
from optsweep.optim.update import norm_of


@dataclass(frozen=True)
class Fetched:
    """What the steps from tick `first` on have left, float64 on the host: per lane, and per logged tick or step."""

    first: int
    logged: Sequence[int]  # ticks
    losses: Floats  # [lanes, steps]
    norms: Floats  # [lanes, logged]
    ratios: Floats  # [lanes, logged]


class Record:
    """The losses of all steps from tick `first` on, and norms at the ticks in `logged`."""

    def __init__(self, first: int, logged: Collection[int], lanes: int) -> None:
        self.first, self.logged, self.lanes = first, logged, lanes
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._ratios: list[Tensor] = []

    def loss(self, loss: Tensor) -> None:
        """Keep the losses of a step, `[K]`, or `[]` of one lane."""
        self._losses.append(loss)

    def grad_norm(self, grads: Sequence[Tensor]) -> None:
        """Keep ‖g‖ of every lane, before clipping; `grads` are rows `[K, P_i]`."""
        self._norms.append(norm_of(grads))

    def update_ratio(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        """Keep ‖Δθ‖/‖θ‖ of every lane; rows as those of the gradients."""
        changes = [new - old for old, new in zip(before, after, strict=True)]
        self._ratios.append(norm_of(changes) / norm_of(before))

    def norms(self, norm: Tensor, ratio: Tensor) -> None:
        """Keep both as they are, `[K]` each."""
        self._norms.append(norm)
        self._ratios.append(ratio)

    def fetched(self) -> Fetched:
        """All of it, on the host."""
        logged = sorted(self.logged)[: len(self._norms)]  # of those that came to pass
        kept = self._losses, self._norms, self._ratios
        stacks = [torch.stack(held).reshape(-1, self.lanes) for held in kept if held]
        found: Floats = (torch.cat(stacks) if stacks else torch.empty(0, self.lanes)).cpu().double().numpy()
        ends = np.cumsum([len(held) for held in kept])[:-1]
        return Fetched(self.first, logged, *(part.T.copy() for part in np.split(found, ends)))
