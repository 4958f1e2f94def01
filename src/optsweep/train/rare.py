"""Parameters that not every step uses: experts, branches, layers that are dropped.

As in torch.optim, a step without a gradient leaves such a parameter and its state alone, decay and bias correction
included. So each is a row of its own with an update of its own, which counts the steps that it took part in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optsweep.optim.iterate import Past
from optsweep.optim.layout import Layout
from optsweep.optim.row import Numbers, Row
from optsweep.optim.updater import Updater
from optsweep.train.checkpoint import of_lane, stacked


class Rare(Row):
    """One parameter of a module: its row `[1, P]`, its gradient, and an update that knows nothing of the others."""

    def __init__(self, name: str, parameter: nn.Parameter, layout: Layout, update: Updater) -> None:
        super().__init__({name: parameter}, layout, update)
        self.name, self.parameter = name, parameter
        self.grad = torch.zeros_like(self.row)
        self.present = False  # whether the present step gave it a gradient
        self._hyper: Mapping[str, float] = {}

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
        if self.present:
            self._hyper = hyper
            self.advance(self.grad, self.numbers.take(hyper, multiplier))

    def shipped(self) -> Tensor:
        """The weights one would ship, in the parameter's shape."""
        return self._view(self.weights(self._hyper))

    def saved(self) -> dict[str, Any]:
        """What it has come to, as plain data, but for the parameter itself, which is the module's."""
        last = self.numbers.last
        return {
            "last": None if last is None else [last[0].steps, last[0].largest, last[0].total, last[1]],
            "hyper": dict(self._hyper),
            "state": None if self._state is None else of_lane(self._state, 0),
            "held": None if self._state is None else self.update.held(0),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._hyper = dict(saved["hyper"])
        if saved["last"] is not None:
            steps, largest, total, multiplier = saved["last"]
            self.numbers = Numbers(self.update, Past(steps, largest, total), multiplier)
        if saved["state"] is not None:
            self.update.init(self.row)
            self.update.take_up([saved["held"]])
            self._state = stacked([saved["state"]], self.row.device)

    def _view(self, row: Tensor) -> Tensor:
        ((_, view),) = self.layout.views(row[0])
        return view
