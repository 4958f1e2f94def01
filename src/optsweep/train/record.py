"""Losses and norms between two rungs, kept on the device until the second, then fetched at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from optsweep.optim.rule import Floats
from optsweep.optim.update import norm_of
from optsweep.train.trial import Point


class Record:
    """What is logged of ticks `first` to `end`: the loss of each, norms at every `every`-th and at the last."""

    def __init__(self, first: int, end: int, every: int, lanes: int) -> None:
        self.first, self.lanes = first, lanes
        self.logged = dict.fromkeys(t for t in range(first, end) if (t + 1) % every == 0 or t + 1 == end)
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

    def state(self, lane: int) -> dict[str, Tensor]:
        """What one lane's steps so far have left."""
        kept = {"losses": self._losses, "norms": self._norms, "ratios": self._ratios}
        return {
            name: torch.stack(tensors).reshape(len(tensors), self.lanes)[:, lane].cpu() if tensors else torch.empty(0)
            for name, tensors in kept.items()
        }

    def restore(self, states: Sequence[Mapping[str, Tensor]], device: torch.device) -> None:
        """Go on from what the steps of all lanes have left."""

        def steps(name: str) -> list[Tensor]:
            together = torch.stack([state[name] for state in states], 1).to(device)
            return list(together.unbind())

        self._losses = steps("losses") if self.lanes > 1 else [loss[0] for loss in steps("losses")]
        self._norms, self._ratios = steps("norms"), steps("ratios")

    def points(self, lrs: Sequence[Floats], starts: Sequence[int]) -> list[list[Point]]:
        """Points of every lane; `lrs` are each lane's learning rates, whose step 0 was tick `starts`."""
        ticks = list(self.logged)
        losses = torch.stack(self._losses).reshape(len(self._losses), self.lanes).cpu().double().numpy()
        norms, ratios = (torch.stack(values).cpu().double().numpy() for values in (self._norms, self._ratios))
        windows = zip([self.first, *(t + 1 for t in ticks)], [t + 1 for t in ticks], strict=False)
        means = [losses[a - self.first : b - self.first].mean(0) for a, b in windows]
        return [
            [
                Point(
                    t + 1 - start,
                    float(means[i][k]),
                    float(lrs[k][t - self.first]),
                    float(norms[i][k]),
                    float(ratios[i][k]),
                )
                for i, t in enumerate(ticks)
            ]
            for k, start in enumerate(starts)
        ]
