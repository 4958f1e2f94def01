"""The adaptive generation before Adam: AdaGrad, RMSprop, AdaDelta, as torch.optim has them.

    AdaGrad   r ← r + g²,            direction = g / (√r + ε)                    (Duchi et al. 2011)
    RMSprop   r ← αr + (1−α)g²,      direction = g / (√r + ε)                    (Tieleman & Hinton 2012)
    AdaDelta  r ← ρr + (1−ρ)g²,      direction = g·√(u + ε) / √(r + ε),
              u ← ρu + (1−ρ)direction²                                          (Zeiler 2012, arXiv 1212.5701)

ε is outside the root for AdaGrad and RMSprop (the deck's slide has it inside) and inside for AdaDelta, as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.layout import Layout
from optsweep.optim.rule import EPS, UNIT, Coefficients, Domain, Floats, Rule, State, Steps


class AdaGrad(Rule):
    """Elementwise, one buffer."""

    floats: ClassVar[Mapping[str, Domain]] = {"eps": Domain(0.0, 1.0, 1e-10)}

    def init(self, params: Tensor, layout: Layout) -> State:
        """r, zero."""
        return {"r": torch.zeros_like(params)}

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """g / (√r + ε)."""
        root = state["r"].addcmul_(grads, grads).sqrt().add_(c["eps"])
        return torch.div(grads, root, out=root)


class RMSprop(Rule):
    """Elementwise, one buffer."""

    floats: ClassVar[Mapping[str, Domain]] = {"alpha": Domain(*UNIT, 0.99), "eps": EPS}

    def init(self, params: Tensor, layout: Layout) -> State:
        """r, zero."""
        return {"r": torch.zeros_like(params)}

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """1−α, ε."""
        return {"1-alpha": np.full(len(steps), 1 - hyper["alpha"]), "eps": np.full(len(steps), hyper["eps"])}

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """g / (√r + ε)."""
        root = state["r"].lerp_(grads.square(), c["1-alpha"]).sqrt().add_(c["eps"])
        return torch.div(grads, root, out=root)


class AdaDelta(Rule):
    """Elementwise, two buffers. Its direction has the parameters' units already, so its learning rate is near 1."""

    floats: ClassVar[Mapping[str, Domain]] = {"rho": Domain(*UNIT, 0.9), "eps": Domain(0.0, 1.0, 1e-6)}

    def init(self, params: Tensor, layout: Layout) -> State:
        """r and u, zero."""
        return {"r": torch.zeros_like(params), "u": torch.zeros_like(params)}

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """1−ρ, ε."""
        return {"1-rho": np.full(len(steps), 1 - hyper["rho"]), "eps": np.full(len(steps), hyper["eps"])}

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """g·√(u + ε) / √(r + ε)."""
        root = state["r"].lerp_(grads.square(), c["1-rho"]).add(c["eps"]).sqrt_()
        direction = state["u"].add(c["eps"]).sqrt_().div_(root).mul_(grads)
        state["u"].lerp_(torch.mul(direction, direction, out=root), c["1-rho"])
        return direction
