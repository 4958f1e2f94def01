"""Adam (Kingma & Ba 2014, arXiv 1412.6980). AdamW (arXiv 1711.05101) is this rule with decoupled weight decay.

    m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²,  direction = m̂ / (√v̂ + ε),  m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ)

ε outside the root and raw moving averages in the state, as in the paper and in torch; the deck's slide has ε inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.layout import Layout
from optsweep.optim.rule import EPS, UNIT, Coefficients, Domain, Floats, Rule, State, Steps


class Adam(Rule):
    """Elementwise, two buffers (one without momentum)."""

    floats: ClassVar[Mapping[str, Domain]] = {
        "beta1": Domain(*UNIT, 0.9),
        "beta2": Domain(*UNIT, 0.999),
        "eps": EPS,
    }
    momentum_floats: ClassVar[frozenset[str]] = frozenset({"beta1"})
    has_momentum = True

    def init(self, params: Tensor, layout: Layout) -> State:
        """m and v, zero."""
        state = {"v": torch.zeros_like(params)}
        if self.has_momentum:
            state["m"] = torch.zeros_like(params)
        return state

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """1−β₁, 1−β₂, and the bias corrections with ε: direction = m / (√v·a + b)."""
        beta1 = hyper["beta1"] if self.has_momentum else 0.0
        bias1 = 1 - beta1 ** (steps + 1.0)
        bias2 = 1 - hyper["beta2"] ** (steps + 1.0)
        return {
            "1-beta1": np.full(len(steps), 1 - beta1),
            "1-beta2": np.full(len(steps), 1 - hyper["beta2"]),
            "root_scale": bias1 / np.sqrt(bias2),
            "eps": bias1 * hyper["eps"],
        }

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """m̂ / (√v̂ + ε), bias corrections folded into two coefficients."""
        v = state["v"].lerp_(grads.square(), c["1-beta2"])
        m = state["m"].lerp_(grads, c["1-beta1"]) if self.has_momentum else grads
        root = v.sqrt().mul_(c["root_scale"]).add_(c["eps"])
        return torch.div(m, root, out=root)


class AdamW(Adam):
    """Elementwise, two buffers (one without momentum).

    The same algorithm as Adam, under the name that goes with decoupled decay.
    """

    refused_decays: ClassVar[Mapping[str, str]] = {
        "l2": "AdamW is Adam with decoupled decay; for l2 give optimizer=adam"
    }

    @property
    def algorithm(self) -> str:
        """Adam's: what decays, and how, is no part of a rule."""
        return Adam.__qualname__
