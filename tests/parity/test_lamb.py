"""LAMB against a float64 reference, tensor by tensor, as the paper's algorithm 2 has it.

The libraries at hand differ from the paper: pytorch_optimizer clamps ‖θ‖ at 10, adds ε to ‖u‖, and has no bias
correction unless asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from drive import LAYOUT, defaults, largest, noisy, run, run_oracle, start
from optsweep.optim.lamb import LAMB, trust_ratio
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.update import Decay, Update


class ReferenceLAMB(torch.optim.Optimizer):
    def __init__(
        self,
        params: Iterable[Tensor],
        decays: Sequence[float],
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": 1.0})
        self.decays, self.beta1, self.beta2, self.eps = decays, beta1, beta2, eps

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for theta, decay in zip(self.param_groups[0]["params"], self.decays, strict=True):
            state = self.state[theta]
            state["t"] = t = state.get("t", 0) + 1
            state["m"] = m = self.beta1 * state.get("m", 0) + (1 - self.beta1) * theta.grad
            state["v"] = v = self.beta2 * state.get("v", 0) + (1 - self.beta2) * theta.grad**2
            u = (m / (1 - self.beta1**t)) / ((v / (1 - self.beta2**t)).sqrt() + self.eps) + decay * theta
            norms = theta.norm(), u.norm()
            ratio = norms[0] / norms[1] if norms[0] > 0 and norms[1] > 0 else 1.0
            theta -= self.param_groups[0]["lr"] * ratio * u


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lamb_equals_the_paper(weight_decay: float) -> None:
    update = Update(LAMB(), LAYOUT, decay=Decay.DECOUPLED)
    ours, _, _ = run(update, [defaults(update.floats, weight_decay=weight_decay)])
    decays = [weight_decay * (slot.offset < LAYOUT.decayed) for slot in LAYOUT.slots]
    theirs, _, _ = run_oracle(lambda p: ReferenceLAMB(p, decays), layout=LAYOUT)
    assert largest(ours, theirs) <= 1e-13


@pytest.mark.parametrize("decay_at", ["y", "z"])
def test_under_schedule_free_decay_is_inside_and_where_it_was_asked_for(decay_at: Literal["y", "z"]) -> None:
    """Written out: β₁ gives way to the average, norms are z's, λ is times y or z within the ratio."""
    update = Update(LAMB(), LAYOUT, decay=Decay.DECOUPLED, iterate=ScheduleFree(decay_at))
    hyper = defaults(update.floats, weight_decay=0.1, beta2=0.9)
    steps, beta, gradient = 40, hyper["averaging_beta"], noisy(LAYOUT)
    y, z, x, v = start(), start(), start(), torch.zeros_like(start())
    for t in range(steps):
        g = gradient(t, y)
        v = 0.9 * v + 0.1 * g**2
        u = g / ((v / (1 - 0.9 ** (t + 1))).sqrt() + hyper["eps"])
        u[:, : LAYOUT.decayed] += 0.1 * (y if decay_at == "y" else z)[:, : LAYOUT.decayed]
        for (_, weights), (_, direction) in zip(LAYOUT.views(z.clone()), LAYOUT.views(u), strict=True):
            direction *= weights.norm() / direction.norm()
        z = z - hyper["lr"] * u
        x = x + (z - x) / (t + 1)
        y = beta * x + (1 - beta) * z
    ours, state, c = run(update, [hyper], num_steps=steps)
    assert max(largest(ours, y), largest(state["z"], z), largest(update.weights(ours, state, c), x)) <= 1e-13


def test_ratio_is_one_where_a_norm_is_zero() -> None:
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert trust_ratio(zero, one) == trust_ratio(one, zero) == trust_ratio(one, one) == 1
