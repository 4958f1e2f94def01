"""Gradient descent, with momentum (Polyak 1964) and Nesterov's momentum, as torch.optim.SGD has them.

    SGD        direction = g
    Momentum   v ← μv + (1−dampening)g,  direction = v
    Nesterov   v ← μv + g,               direction = g + μv

v starts as the first gradient, which dampening leaves alone, as in torch. The published momentum has no dampening; the
deck's earlier slide is `dampening = momentum`, whose learning rates are 1/(1−μ) times the undampened ones. Nesterov's
is the usual reformulation (Sutskever et al. 2013) with the gradient at θ: its θ is the look-ahead point θ − ημv.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.layout import Layout
from optsweep.optim.rule import UNIT, Coefficients, Domain, Floats, Rule, State, Steps, add_scaled


class SGD(Rule):
    """Elementwise, no state."""

    gives_gradient: ClassVar[bool] = True

    def init(self, params: Tensor, layout: Layout) -> State:
        """Nothing."""
        return {}

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """The gradient."""
        return grads


class Momentum(Rule):
    """Elementwise, one buffer. Without momentum it is SGD."""

    floats: ClassVar[Mapping[str, Domain]] = {
        "momentum": Domain(*UNIT, 0.9),
        "dampening": Domain(*UNIT, 0.0),
    }
    momentum_floats: ClassVar[frozenset[str]] = frozenset(floats)
    has_momentum = True

    def without_momentum(self) -> Rule:
        """SGD."""
        return SGD()

    def init(self, params: Tensor, layout: Layout) -> State:
        """v, zero."""
        return {"v": torch.zeros_like(params)}

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """μ, and 1−dampening, which is 1 at the first step."""
        return {
            "momentum": np.full(len(steps), hyper["momentum"]),
            "gain": np.where(steps == 0, 1.0, 1 - hyper.get("dampening", 0.0)),
        }

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """v."""
        v = state["v"].mul_(c["momentum"])
        add_scaled(v, grads, c["gain"])
        return v


class Nesterov(Momentum):
    """Elementwise, one buffer. Without momentum it is SGD."""

    floats: ClassVar[Mapping[str, Domain]] = {"momentum": Domain(*UNIT, 0.9)}
    momentum_floats: ClassVar[frozenset[str]] = frozenset(floats)

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """g + μv."""
        add_scaled(grads, super().update(grads, state, params, c, tick, layout), c["momentum"])
        return grads
