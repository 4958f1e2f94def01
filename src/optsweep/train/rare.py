"""Parameters that not every step uses: experts, branches, layers that are dropped.

As in torch.optim, a step without a gradient leaves such a parameter and its state alone, decay and bias correction
included. So each is a row of its own with an update of its own, which counts the steps that it took part in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from optsweep.optim.layout import Layout, flatten
from optsweep.optim.rule import State
from optsweep.optim.update import CLIP_EPS
from optsweep.optim.updater import Updater
from optsweep.train.record import norm_of


class Rare:
    """One parameter of a module: its row `[1, P]`, its gradient, and an update that knows nothing of the others."""

    def __init__(self, name: str, parameter: nn.Parameter, layout: Layout, update: Updater) -> None:
        self.name, self.parameter, self.update = name, parameter, update
        self.row = flatten(layout, {name: parameter}, dtype=parameter.dtype, device=parameter.device)
        self.grad = torch.zeros_like(self.row)
        self.layout = layout
        self.present = False  # whether the present step gave it a gradient
        self._state: State | None = None
        self._multipliers: list[float] = []
        self._last: dict[str, float] = {}
        parameter.data = self._view(self.row)

    def open_step(self) -> None:
        """Forget the gradient of the step before."""
        self.parameter.grad = None

    def gather(self) -> None:
        """Copy the step's gradient, if there is one."""
        grad = self.parameter.grad
        self.present = grad is not None
        if grad is not None:
            self._view(self.grad).zero_().add_(grad)

    def step(self, hyper: Mapping[str, float], multiplier: float) -> None:
        """One update, if the step gave it a gradient, with the schedule's multiplier of the step."""
        if not self.present:
            return
        if self._state is None:
            self._state = self.update.init(self.row)
        own = len(self._multipliers)
        self._multipliers.append(multiplier)
        table = self.update.coefficients(hyper, np.array(self._multipliers), own)
        self._last = {name: float(values[-1]) for name, values in table.items()}
        self.update.step(self.row, self.grad, self._state, self._last, own)

    def weights(self) -> Tensor:
        """The weights one would ship, in the parameter's shape."""
        if self._state is None:
            return self._view(self.row)
        return self._view(self.update.weights(self.row, self._state, self._last))

    def state_bytes(self) -> int:
        """Bytes of optimizer state."""
        return 0 if self._state is None else self.update.state_bytes(self._state)

    def _view(self, row: Tensor) -> Tensor:
        ((_, view),) = self.layout.views(row)
        return view[0]


def clip_together(grads: Sequence[Tensor], max_norm: float) -> None:
    """Scale gradients `[1, P_i]` down to `max_norm` all told, in place, if they are longer."""
    scale = (max_norm / (norm_of(grads) + CLIP_EPS)).clamp_(max=1.0)
    for grad in grads:
        grad.mul_(scale)
