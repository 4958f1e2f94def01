"""Lion (Chen et al. 2023, arXiv 2302.06675): the sign of an interpolated momentum.

    direction = sign(β₁m + (1−β₁)g),  then  m ← β₂m + (1−β₂)g

The deck's slide has one β and an average of sign(g); the publication is followed. Without momentum, as under
schedule-free, it is sign-SGD.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.layout import Layout
from optsweep.optim.rule import UNIT, Coefficients, Domain, Floats, Rule, State, Steps


class Lion(Rule):
    """Elementwise, one buffer (none without momentum)."""

    floats: ClassVar[Mapping[str, Domain]] = {"beta1": Domain(*UNIT, 0.9), "beta2": Domain(*UNIT, 0.99)}
    momentum_floats: ClassVar[frozenset[str]] = frozenset(floats)
    has_momentum = True

    def init(self, params: Tensor, layout: Layout) -> State:
        """m, zero."""
        return {"m": torch.zeros_like(params)} if self.has_momentum else {}

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """1−β₁, 1−β₂."""
        if not self.has_momentum:
            return {}
        return {f"1-{name}": np.full(len(steps), 1 - hyper[name]) for name in self.floats}

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """sign(β₁m + (1−β₁)g)."""
        if not self.has_momentum:
            return grads.sign_()
        direction = torch.lerp(state["m"], grads, c["1-beta1"]).sign_()
        state["m"].lerp_(grads, c["1-beta2"])
        return direction
