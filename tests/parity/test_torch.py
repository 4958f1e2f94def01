"""Rules against torch.optim, float64, 60 steps of random gradients, state included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from drive import LAYOUT_DECAY_ALL, defaults, largest, run, run_oracle, state_difference
from optsweep.optim.adam import Adam
from optsweep.optim.adaptive import AdaDelta, AdaGrad, RMSprop
from optsweep.optim.rule import Rule
from optsweep.optim.sgd import SGD, Momentum, Nesterov
from optsweep.optim.update import Decay, Update

LAYOUT = LAYOUT_DECAY_ALL  # torch decays every parameter
MULTIPLIERS = np.linspace(1.0, 0.1, 60)

CASES: dict[str, tuple[type[Rule], dict[str, float], Any, dict[str, Any], dict[str, str]]] = {
    "sgd": (SGD, {}, torch.optim.SGD, {}, {}),
    "momentum": (Momentum, {"momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8}, {"v": "momentum_buffer"}),
    "momentum_dampened": (
        Momentum,
        {"momentum": 0.8, "dampening": 0.8},
        torch.optim.SGD,
        {"momentum": 0.8, "dampening": 0.8},
        {"v": "momentum_buffer"},
    ),
    "nesterov": (
        Nesterov,
        {"momentum": 0.8},
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
        {"v": "momentum_buffer"},
    ),
    "adam": (
        Adam,
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "eps": 1e-3},
        {"m": "exp_avg", "v": "exp_avg_sq"},
    ),
    "adagrad": (AdaGrad, {"eps": 1e-3}, torch.optim.Adagrad, {"eps": 1e-3}, {"r": "sum"}),
    "rmsprop": (
        RMSprop,
        {"alpha": 0.9, "eps": 1e-3},
        torch.optim.RMSprop,
        {"alpha": 0.9, "eps": 1e-3},
        {"r": "square_avg"},
    ),
    "adadelta": (
        AdaDelta,
        {"rho": 0.8, "eps": 1e-4},
        torch.optim.Adadelta,
        {"rho": 0.8, "eps": 1e-4},
        {"r": "square_avg", "u": "acc_delta"},
    ),
}


@pytest.mark.parametrize("decay", [Decay.NONE, Decay.L2])
@pytest.mark.parametrize("case", CASES)
def test_rule_equals_torch(case: str, decay: Decay) -> None:
    rule, hyper, oracle, kwargs, names = CASES[case]
    weight_decay = 0.0 if decay is Decay.NONE else 0.1
    update = Update(rule(), LAYOUT, decay=decay)
    hypers = [defaults(update.floats, weight_decay=weight_decay, **hyper)]
    ours, state, _ = run(update, hypers, multipliers=MULTIPLIERS)
    theirs, leaves, optimizer = run_oracle(
        lambda p: oracle(p, lr=1.0, weight_decay=weight_decay, **kwargs), layout=LAYOUT, multipliers=MULTIPLIERS
    )
    assert largest(ours, theirs) <= 1e-13
    for name, their_name in names.items():
        assert state_difference(LAYOUT, state[name], leaves, optimizer, their_name) <= 1e-12


def test_adam_with_decoupled_decay_is_adamw() -> None:
    update = Update(Adam(), LAYOUT, decay=Decay.DECOUPLED)
    hyper = defaults(update.floats, weight_decay=0.3)
    ours, state, _ = run(update, [hyper], multipliers=MULTIPLIERS)
    theirs, leaves, optimizer = run_oracle(
        lambda p: torch.optim.AdamW(p, weight_decay=0.3), layout=LAYOUT, multipliers=MULTIPLIERS
    )
    assert largest(ours, theirs) <= 1e-13
    assert state_difference(LAYOUT, state["m"], leaves, optimizer, "exp_avg") <= 1e-13
    assert state_difference(LAYOUT, state["v"], leaves, optimizer, "exp_avg_sq") <= 1e-13


def test_clipping_is_that_of_torch() -> None:
    clipped = Update(SGD(), LAYOUT, clip_norm=0.7)
    ours, _, _ = run(clipped, [defaults({})])

    class ClippedSGD(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.7)
            return super().step(closure)

    theirs, _, _ = run_oracle(ClippedSGD, layout=LAYOUT)
    assert largest(ours, theirs) <= 1e-13


def test_independent_decay_is_not_scaled_by_the_learning_rate() -> None:
    update = Update(SGD(), LAYOUT, decay=Decay.INDEPENDENT)
    multipliers = np.array([1.0, 0.5])
    grads = torch.zeros(1, LAYOUT.size, dtype=torch.float64)
    for lr in (1e-3, 1e-1):
        params, _, _ = run(
            update,
            [defaults({}, lr=lr, weight_decay=0.2)],
            num_steps=2,
            params=torch.ones(1, LAYOUT.size, dtype=torch.float64),
            gradient=lambda step, p: grads.clone(),
            multipliers=multipliers,
        )
        assert largest(params, torch.full_like(params, 0.8 * 0.9)) <= 1e-15
