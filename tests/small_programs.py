"""Programs of the small tasks in kinds.py, and what they train to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

import kinds
from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout
from optsweep.optim.schedules import Schedule
from optsweep.optim.update import Update
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Task
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.trial import Trial

EVERY_FLOAT = {
    **{"lr": 3e-3, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "momentum": 0.95},
    **{"damping": 1e-3, "shampoo_beta": 0.95, "averaging_beta": 0.9},
    **{"aux_lr_factor": 1.0, "aux_beta1": 0.9, "aux_beta2": 0.95, "aux_eps": 1e-8},
}
"""Of AdamW, SOAP, Muon and what averages."""

HYPER = {"lr": 1e-2, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


def adam(layout: Layout) -> Updater:
    return Update(Adam(), layout)


def program(task: Task, **changes: Any) -> Program:
    return replace(Program(task, adam, Schedule("cosine"), 12, batch_size=32, num_rungs=3, log_every=2), **changes)


def loss(p: Program, seed: int = 0) -> float:
    (outcome,) = train_all(p, [Trial(HYPER, seed=seed)])
    return outcome.val_loss


def built_by(build: Callable[[], nn.Module]) -> Task:
    """The plain task with another model."""

    class Other(kinds.Plain):
        def model(self) -> nn.Module:
            return build()

    return Other()
