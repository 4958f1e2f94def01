"""Lion against pytorch_optimizer, float64, state included."""

from __future__ import annotations

import pytorch_optimizer
import torch

from drive import LAYOUT_DECAY_ALL, defaults, largest, noisy, run, run_oracle, state_difference
from optsweep.optim.lion import Lion
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.update import Decay, Update

LAYOUT = LAYOUT_DECAY_ALL


def test_lion_equals_pytorch_optimizer() -> None:
    update = Update(Lion(), LAYOUT, decay=Decay.DECOUPLED)
    ours, state, _ = run(update, [defaults(update.floats, weight_decay=0.2)])
    theirs, leaves, optimizer = run_oracle(
        lambda p: pytorch_optimizer.Lion(p, betas=(0.9, 0.99), weight_decay=0.2, weight_decouple=True), layout=LAYOUT
    )
    assert largest(ours, theirs) <= 1e-13
    assert state_difference(LAYOUT, state["m"], leaves, optimizer, "exp_avg") <= 1e-13


def test_under_schedule_free_it_is_sign_sgd() -> None:
    update = Update(Lion(), LAYOUT, iterate=ScheduleFree())
    _, state, _ = run(update, [defaults(update.floats)], num_steps=1)
    assert state.keys() == {"z"}
    before, gradient = run(update, [defaults(update.floats)], num_steps=0)[0], noisy(LAYOUT)
    assert largest(state["z"], before - 1e-2 * torch.sign(gradient(0, before))) <= 1e-15
