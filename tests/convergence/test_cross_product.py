"""The whole cross product optimizer × schedule × decay mode through the door and the training loop, on a convex task.

tests/convergence/test_convex.py has a sample of it at the level of an update, in float64 and with more steps.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arms import arm_with, names_in
from optsweep.build.assemble import build_arm, check_arm
from optsweep.build.named_task import build_task
from optsweep.errors import UserError
from optsweep.optim.schedules import traits_of
from optsweep.optim.update import Decay
from optsweep.tasks.base import Facts, Split, Task, digest_of
from optsweep.train.run import Silent
from optsweep.train.trial import End, Trial

LEARNING_RATES = {
    "sgd": 0.3,
    "momentum": 0.05,
    "nesterov": 0.05,
    "adadelta": 1.0,
    "adagrad": 0.1,
    "lamb": 0.1,
    "muon": 0.1,
}
STEPS, RUNGS = 20, 5
OPTIMIZERS = sorted({*names_in("optimizer")} - {"external"})


class LeastSquares(Task):
    """Linear regression of 4 targets on 4 inputs: a hidden matrix and a bias, one minimum, batches of everything."""

    facts = Facts("linear", "simple", 32)
    metric = "error"
    higher_is_better = False
    head_modules = ("none",)

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        inputs = rng.standard_normal((32, 4))
        targets = inputs @ rng.standard_normal((4, 4)) + 1.0
        self._inputs = torch.from_numpy(inputs).float()
        self._targets = torch.from_numpy(targets).float()

    def model(self) -> nn.Module:
        linear = nn.Linear(4, 4)
        for parameter in linear.parameters():
            nn.init.constant_(parameter, 0.3)  # LAMB's steps are in proportion to the weights
        return linear

    def size(self, split: Split) -> int:
        return 32

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._inputs[indices], self._targets[indices]

    def to(self, device: torch.device) -> None:
        pass

    def digest(self) -> str:
        return digest_of(self._inputs.numpy(), self._targets.numpy())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets)


def initial_loss(task: Task) -> float:
    inputs, targets = task.batch(Split.VAL, torch.arange(32))
    return float(task.loss(task.model()(inputs), targets).detach())


TASK = LeastSquares()
INITIAL = initial_loss(TASK)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", names_in("schedule"))
@pytest.mark.parametrize("decay", [str(mode) for mode in Decay])
def test_every_combination_trains_or_is_refused(optimizer: str, schedule: str, decay: str) -> None:
    choices = {
        "optimizer": optimizer,
        "schedule": schedule,
        "warmup": "none" if traits_of(schedule).own_warmup else "linear",
        "weight_decay": decay,
    }
    values = {
        "optimizer__lr": LEARNING_RATES.get(optimizer, 0.03),
        "weight_decay__value": 0.0 if decay == "none" else 1e-3,
        "task__batch_size": "full",
        "trainer__steps": STEPS,
        "trainer__rungs": RUNGS,
        "trainer__device": "cpu",
    }
    arm = arm_with(choices, **values)
    if (optimizer, decay) == ("adamw", "l2"):
        with pytest.raises(UserError, match="give optimizer=adam"):
            build_arm(arm, TASK)
        return
    built = build_arm(arm, TASK)
    (outcome,) = built.workload_for({}).train([Trial(built.space.hyper({}), seed=0)], Silent())
    assert outcome.end is End.FINISHED
    assert math.isfinite(outcome.val_loss)
    assert (
        outcome.val_loss < (0.995 if optimizer == "adadelta" else 0.9) * INITIAL
    )  # AdaDelta's first steps are √ε long


@pytest.mark.parametrize(
    ("choices", "values", "said"),
    [
        ({"schedule": "one_cycle", "warmup": "cosine"}, {}, "warmup=cosine: one_cycle has its own warm-up"),
        ({"schedule": "one_cycle", "warmup": "suggested"}, {}, "one_cycle has its own warm-up"),
        ({"schedule": "inverse_sqrt", "warmup": "none"}, {}, "needs schedule.time_scale"),
        ({"schedule": "cosine_restarts"}, {"schedule__first": 1000}, "schedule.first is 1000 steps, longer than"),
        ({"schedule": "plateau"}, {"trainer__rungs": 1}, "trainer.rungs"),
        ({"schedule": "plateau"}, {"schedule__final": "suggested"}, "schedule.final"),
        ({"optimizer": "muon", "task": "iris"}, {}, "optimizer=muon: this model has no hidden matrices"),
        ({"schedule": "schedule_free", "averaging": "ema"}, {}, "averaging=ema: schedule_free averages already"),
        ({"optimizer": "adamw", "weight_decay": "l2"}, {}, "weight_decay=l2: AdamW is Adam with decoupled decay"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_what_has_no_meaning_is_refused_in_one_line(
    choices: dict[str, str], values: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_arm(build_arm(arm_with(choices, **values)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_soap_says_which_sides_it_does_not_rotate() -> None:
    built = build_arm(arm_with({"optimizer": "soap"}, optimizer__max_size=32))
    assert any("over optimizer.max_size=32" in note for note in check_arm(built))


def test_a_plateau_that_can_not_come_is_noted() -> None:
    task = build_task(arm_with({}).task)

    def notes(optimizer: str, **values: object) -> list[str]:
        return check_arm(build_arm(arm_with({"optimizer": optimizer, "schedule": "plateau"}, **values), task))

    assert notes("adam") == []
    assert "never reduces" in notes("adam", trainer__rungs=4)[0]
    assert notes("soap", optimizer__refresh=200) == []  # rungs are asked for, whatever the rule's period
    with pytest.raises(UserError, match=r"trainer\.rungs"):
        notes("soap", trainer__rungs=1)
