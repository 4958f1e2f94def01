"""Schedule-Free over any rule (Defazio et al. 2024, "The Road Less Scheduled", arXiv 2405.15682).

    y = βx + (1−β)z            gradients are taken at y, which is what the parameters hold
    z ← z − η·direction(y) − decay
    x ← (1−c)x + cz,  c = w/Σw,  w = (largest multiplier so far)²

x is what one evaluates and ships. Written in y and z, as the authors' code does, so x costs no memory:

    u = η·direction + decay,   y ← y + c(z − y) − (1−β(1−c))u,   z ← z − u,   x = z + (y − z)/β

The weight is taken from the schedule's multiplier, not the LR, so it doesn't depend on the LR; it is guarded where the
multipliers are still zero. The rule runs without its own momentum, which β takes the place of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from optsweep.optim.iterate import Iterate, Past
from optsweep.optim.rule import Coefficients, Domain, Floats, State, add_scaled


class ScheduleFree(Iterate):
    """Averaging in place of a schedule; one buffer (z)."""

    floats: ClassVar[Mapping[str, Domain]] = {"averaging_beta": Domain(0.1, 1.0, 0.9)}
    replaces_momentum: ClassVar[str | None] = "averaging_beta"

    def __init__(self, decay_at: Literal["y", "z"] = "y") -> None:
        if decay_at not in ("y", "z"):
            raise ValueError(f"schedule.decay_at: {decay_at!r} is not allowed; give y or z")
        self.decay_at = decay_at

    def init(self, params: Tensor) -> State:
        """z starts at the initial parameters."""
        return {"z": params.clone()}

    def coefficients(
        self, hyper: Mapping[str, float], lr: Floats, decay: Floats, multipliers: Floats, past: Past
    ) -> dict[str, Floats]:
        """c, η, decay, and both times 1−β(1−c)."""
        weight, total = past.weights(multipliers)
        share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        beta = hyper["averaging_beta"]
        move = 1 - beta * (1 - share)
        return {
            "share": share,
            "-lr": -lr,
            "-lr_y": -lr * move,
            "-decay": -decay,
            "-decay_y": -decay * move,
            "1/averaging_beta": 0.0 * lr + 1 / beta,
        }

    def base(self, params: Tensor, state: State) -> Tensor:
        """z: the sequence that the rule's steps form."""
        return state["z"]

    def decaying(self, params: Tensor, state: State) -> Tensor:
        """y or z."""
        return params if self.decay_at == "y" else state["z"]

    def advance(
        self, params: Tensor, state: State, direction: Tensor, decayed: int, c: Coefficients, tick: int
    ) -> None:
        """One step of y and z."""
        y, z = params, state["z"]
        shrinking = self.decaying(params, state)[:, :decayed].clone() if decayed else None
        y.lerp_(z, c["share"])
        add_scaled(y, direction, c["-lr_y"])
        add_scaled(z, direction, c["-lr"])
        if shrinking is not None:
            add_scaled(y[:, :decayed], shrinking, c["-decay_y"])
            add_scaled(z[:, :decayed], shrinking, c["-decay"])

    def weights(self, params: Tensor, state: State, c: Coefficients) -> Tensor:
        """x, out of place: swapping it in and out would change the training."""
        z = state["z"]
        scale = c["1/averaging_beta"]
        return (params - z).mul_(scale).add_(z)
