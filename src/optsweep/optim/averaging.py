"""Averages of the weights beside an ordinary descent: the controls that isolate what schedule-free adds.

The descent itself is untouched, bitwise; only what one evaluates and ships is another.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optsweep.checks import whole
from optsweep.optim.iterate import Last, Past
from optsweep.optim.rule import UNIT, Coefficients, Domain, Floats, State


class EMA(Last):
    """Exponential moving average (Polyak & Juditsky 1992 with forgetting); one buffer.

        a ← a + s(θ − a),  s = (1 − d)/(1 − dᵗ) with `debias`, so that the start weighs no more than its share;
        without, s = 1 at the first step and 1 − d after, as in torch.optim.swa_utils

    A horizon of 1/(1 − d) steps.
    """

    floats: ClassVar[Mapping[str, Domain]] = {"ema_decay": Domain(*UNIT, 0.99)}

    def __init__(self, debias: bool = True) -> None:
        self.debias = debias

    def init(self, params: Tensor) -> State:
        """a starts at the initial parameters, which the first step replaces."""
        return {"ema": params.clone()}

    def coefficients(
        self, hyper: Mapping[str, float], lr: Floats, decay: Floats, multipliers: Floats, past: Past
    ) -> dict[str, Floats]:
        """Those of the descent, and s."""
        c = super().coefficients(hyper, lr, decay, multipliers, past)
        steps = past.steps + np.arange(len(multipliers))
        forgotten = 1 - hyper["ema_decay"]
        share = forgotten / (1 - hyper["ema_decay"] ** (steps + 1.0)) if self.debias else forgotten
        return {**c, "ema_share": np.where(steps == 0, 1.0, share)}

    def advance(
        self, params: Tensor, state: State, direction: Tensor, decayed: int, c: Coefficients, tick: int
    ) -> None:
        """One step of θ, then of a."""
        super().advance(params, state, direction, decayed, c, tick)
        state["ema"].lerp_(params, c["ema_share"])

    def weights(self, params: Tensor, state: State, c: Coefficients) -> Tensor:
        """a."""
        return state["ema"]


class LAWA(Last):
    """Latest weight averaging (Kaddour 2022, arXiv 2209.14981): the mean of the last `window` checkpoints.

    One is taken every `every` steps; until the first, the last weights stand in. `window` buffers.
    """

    def __init__(self, window: int = 5, every: int = 10) -> None:
        self.window = whole("averaging.window", window)
        self.every = whole("averaging.every", every)
        self.period = self.window * self.every  # of the ring, so that lanes are summed up in equal order

    def init(self, params: Tensor) -> State:
        """A ring of checkpoints, empty."""
        return {"checkpoints": torch.zeros(params.shape[0], self.window, *params.shape[1:]).to(params)}

    def coefficients(
        self, hyper: Mapping[str, float], lr: Floats, decay: Floats, multipliers: Floats, past: Past
    ) -> dict[str, Floats]:
        """Those of the descent, and the weights of a checkpoint and of θ in the mean."""
        c = super().coefficients(hyper, lr, decay, multipliers, past)
        taken = np.minimum((past.steps + 1 + np.arange(len(multipliers))) // self.every, self.window)
        share = np.divide(1.0, taken, out=np.zeros(len(taken)), where=taken > 0)
        return {**c, "lawa_share": share, "lawa_last": (taken == 0).astype(np.float64)}

    def kind(self, tick: int) -> Hashable | None:
        """Those with a checkpoint differ in the place that it takes."""
        return (tick // self.every) % self.window if (tick + 1) % self.every == 0 else -1

    def advance(
        self, params: Tensor, state: State, direction: Tensor, decayed: int, c: Coefficients, tick: int
    ) -> None:
        """One step of θ, and a checkpoint where it is time for one."""
        super().advance(params, state, direction, decayed, c, tick)
        if (tick + 1) % self.every == 0:
            state["checkpoints"][:, (tick // self.every) % self.window] = params

    def weights(self, params: Tensor, state: State, c: Coefficients) -> Tensor:
        """The mean."""
        return state["checkpoints"].sum(1).mul_(c["lawa_share"]) + params * c["lawa_last"]
