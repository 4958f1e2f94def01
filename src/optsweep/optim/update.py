"""One training update, composed around a rule: clip → l2 → rule → learning rate and weight decay → iterate.

Everything that is not the rule lives here once, so every rule works with every decay mode, schedule and iterate.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from math import lcm
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.iterate import BEGINNING, Iterate, Last, Past
from optsweep.optim.layout import Layout
from optsweep.optim.rule import Coefficients, Domain, Floats, Rule, State, Static, Steps, add_scaled

CLIP_EPS = 1e-6
"""Added to the norm before dividing, as torch.nn.utils.clip_grad_norm_ does."""


class Decay(StrEnum):
    """How weight decay λ acts."""

    NONE = "none"
    L2 = "l2"  # g ← g + λθ, before the rule
    DECOUPLED = "decoupled"  # θ ← θ − η·direction − ηλθ
    INDEPENDENT = "independent"  # θ ← θ − η·direction − (schedule's multiplier)·λθ


class Update:
    """A rule with weight decay, learning rate, clipping and iterate around it: what the loop calls each step."""

    def __init__(
        self,
        rule: Rule,
        layout: Layout,
        *,
        decay: Decay = Decay.NONE,
        clip_norm: float | None = None,
        iterate: Iterate | None = None,
    ) -> None:
        self.iterate = iterate or Last()
        self.rule = self.iterate.prepare(rule)
        self.layout = layout
        self.decay = decay
        self.clip_norm = clip_norm
        # LAMB's trust ratio spans its decay: there `decoupled` means inside the rule. So it does where parameters have
        # factors of the learning rate, which then scale decay as well, as in torch's groups.
        self._decay_in_rule = decay is Decay.DECOUPLED and (self.rule.decays_inside or bool(layout.factors))
        self._factors: Tensor | None = None
        self._last = self.iterate if type(self.iterate) is Last else None

    @property
    def notes(self) -> Sequence[str]:
        """The rule's. Raises ValueError if it makes no sense on this model."""
        return self.rule.notes(self.layout)

    @property
    def floats(self) -> Mapping[str, Domain]:
        """Float hyperparameters of the composition beside `lr` and `weight_decay`."""
        return {**self.rule.floats, **self.iterate.floats}

    @property
    def relevant(self) -> frozenset[str]:
        """Hyperparameters that have an effect."""
        return self.rule.effective_floats | self.iterate.floats.keys() | {"lr", "weight_decay"}

    @property
    def identity(self) -> Mapping[str, Static]:
        """The rule's."""
        return self.rule.identity()

    @property
    def period(self) -> int:
        """Lanes start at multiples of this many steps."""
        return lcm(self.rule.period, self.iterate.period)

    def kind(self, tick: int) -> Hashable | None:
        """That of the rule and of the iterate."""
        rule, iterate = self.rule.kind(tick), self.iterate.kind(tick)
        return None if rule is None or iterate is None else (rule, iterate)

    @property
    def direct(self) -> bool:
        """Whether the gradient itself is what parameters move along, so that it needn't lie in a row."""
        changed = self.clip_norm is not None or self.decay is Decay.L2 or bool(self.layout.factors)
        return self.rule.gives_gradient and self._last is not None and not changed

    @property
    def host_coefficients(self) -> bool:
        """Numbers of lanes come as `[K, 1]` tensors."""
        return False

    def keep(self, lanes: Sequence[int]) -> None:
        """Nothing: all state is in `state`."""

    def put(self, lanes: Sequence[int], other: Any) -> None:
        """Nothing."""

    def held(self, lane: int) -> None:
        """Nothing."""

    def take_up(self, held: Sequence[None]) -> None:
        """Nothing."""

    def state_bytes(self, state: State, lane: int = 0) -> int:
        """Bytes of one lane's state."""
        return sum(tensor[0].numel() * tensor.element_size() for tensor in state.values())

    def init(self, params: Tensor) -> State:
        """State for parameters `[K, P]`; every tensor's first dimension is the lane."""
        rule_state, iterate_state = self.rule.init(params, self.layout), self.iterate.init(params)
        if clash := rule_state.keys() & iterate_state.keys():
            raise ValueError(f"state named twice: {sorted(clash)}")
        return {**rule_state, **iterate_state}

    def pieces(self, state: State) -> dict[str, State]:
        """The state of the one lane by parameter: views that don't depend on what else is in the row."""
        return self.rule.pieces(state, self.layout)

    def coefficients(
        self, hyper: Mapping[str, float], multipliers: Floats, past: Past = BEGINNING
    ) -> dict[str, Floats]:
        """Every number of the steps after `past`, in float64.

        `hyper` has `lr`, `weight_decay` and `floats`; `multipliers` are the schedule's at these steps.
        """
        lr = hyper["lr"] * multipliers
        steps: Steps = past.steps + np.arange(len(multipliers), dtype=np.int64)
        decay = 0.0 * multipliers
        if self.decay is Decay.DECOUPLED and not self._decay_in_rule:
            decay = lr * hyper["weight_decay"]
        elif self.decay is Decay.INDEPENDENT:
            decay = multipliers * hyper["weight_decay"]
        decay = np.where(self.rule.idle(steps), 0.0, decay)
        c = {
            **self.rule.coefficients(hyper, steps),
            **self.iterate.coefficients(hyper, lr, decay, multipliers, past),
        }
        if self.decay is Decay.L2:
            c["l2"] = 0.0 * multipliers + hyper["weight_decay"]
        if self._decay_in_rule:
            c["decay"] = 0.0 * multipliers + hyper["weight_decay"]
        return c

    @torch.no_grad()
    def step(self, params: Tensor, grads: Tensor, state: State, c: Coefficients, tick: int) -> None:
        """Move `params` by one step, in place; `grads` may be overwritten."""
        if self.clip_norm is not None:
            clip_(grads, self.clip_norm)
        base = self.iterate.base(params, state)
        if self.decay is Decay.L2:
            decayed = self.layout.decayed
            add_scaled(grads[:, :decayed], params[:, :decayed], c["l2"])
        direction = self.rule.update(grads, state, base, c, tick, self.layout)
        if self._decay_in_rule:
            decayed = self.layout.decayed
            direction = direction.clone() if self.layout.factors else direction  # it may be the rule's own state
            add_scaled(direction[:, :decayed], self.iterate.decaying(params, state)[:, :decayed], c["decay"])
        direction = self.rule.rescale(direction, base, self.layout)
        if self.layout.factors:
            if self._factors is None:
                self._factors = self.layout.factor_row(direction)
            direction = direction * self._factors
        self.iterate.advance(params, state, direction, self._decayed, c, tick)

    @torch.no_grad()
    def step_parts(self, params: Tensor, parts: list[Tensor], grads: list[Tensor], c: Coefficients) -> None:
        """As `step` with one lane, of gradients in pieces as `parts` of the row lie; for one that is `direct`."""
        assert self._last is not None
        self._last.advance_parts(params, parts, grads, self._decayed, c)

    @property
    def _decayed(self) -> int:
        """Elements of a row that the iterate lets decay."""
        decays = self.decay is Decay.INDEPENDENT or (self.decay is Decay.DECOUPLED and not self._decay_in_rule)
        return self.layout.decayed if decays else 0

    @torch.no_grad()
    def weights(self, params: Tensor, state: State, c: Coefficients) -> Tensor:
        """The weights one would ship, `[K, P]`; `params` itself or a new tensor, never a change in place."""
        return self.iterate.weights(params, state, c)


def norm_of(rows: Sequence[Tensor]) -> Tensor:
    """‖·‖ of every lane, `[K]`, over all its rows `[K, P_i]`."""
    norms = [torch.linalg.vector_norm(row, dim=1) for row in rows]
    norm: Tensor = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return norm


def clip_together(grads: Sequence[Tensor], max_norm: float) -> None:
    """Scale gradients `[1, P_i]` down to `max_norm` all told, in place, if they are longer."""
    scale = (max_norm / (norm_of(grads) + CLIP_EPS)).clamp_(max=1.0)
    for grad in grads:
        grad.mul_(scale)


def clip_(grads: Tensor, max_norm: float) -> None:
    """Scale each row of `grads [K, P]` down to `max_norm`, in place, if it is longer."""
    norm = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
    grads.mul_((max_norm / (norm + CLIP_EPS)).clamp_(max=1.0))
