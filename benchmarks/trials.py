"""Arms as the command line composes them, ready to be trained by hand or by optsweep's loop."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch

from optsweep.build.assemble import Built, build_arm
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.tasks.base import Split
from optsweep.train.program import Program
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Trial

LR = 1e-3
WEIGHT_DECAY = 0.01
STEPS = 100_000
"""Length of a trial that a benchmark doesn't come to the end of."""


def arm(task: str, *overrides: str, steps: int = STEPS) -> Arm:
    """AdamW with cosine and warm-up on a task, one lane, everything else by default."""
    return arm_of(
        compose(
            [
                f"task={task}",
                "optimizer=adamw",
                "weight_decay=decoupled",
                f"optimizer.lr={LR}",
                f"weight_decay.value={WEIGHT_DECAY}",
                f"trainer.steps={steps}",
                "search=none",
                "sweep.name=benchmark",
                *overrides,
            ]
        )
    )


def built(arm: Arm, device: torch.device) -> Built:
    """The arm's objects on a device."""
    return build_arm(arm, None, device)


def program_of(built: Built) -> Program:
    """The program of an arm that trains a task."""
    assert isinstance(built.program, Program)
    return built.program


def trial(built: Built, seed: int = 0) -> Trial:
    """A trial with the arm's own numbers."""
    return Trial(built.space.hyper({}), seed=seed)


def run_of(program: Program, trials: list[Trial]) -> Run:
    """optsweep's loop over these trials, before its first step."""
    return Run(program, trials, Silent(), rare=program.traits.missing)


def by_hand(program: Program, trial: Trial, num_steps: int) -> Iterator[None]:
    """The loop that a careful practitioner writes, `num_steps` steps per `next`.

    torch's fused AdamW over two groups, a learning rate set from a list, samples drawn beforehand and on the device,
    losses kept on the device. Evaluation and logging are left out.
    """
    task, device = program.task, program.device
    module = program.model(trial.seed).to(device)
    decayed = {slot.name for slot in program.layout.slots if slot.offset < program.layout.decayed}
    named = list(module.named_parameters())
    groups = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": trial.hyper["weight_decay"]},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    betas = trial.hyper["beta1"], trial.hyper["beta2"]
    optimizer = torch.optim.AdamW(groups, lr=trial.hyper["lr"], betas=betas, eps=trial.hyper["eps"], fused=True)
    multipliers = program.schedule.start(program.num_steps)
    for first in count(0, num_steps):
        indices = torch.from_numpy(task.train_indices(trial.seed, first, num_steps, program.batch_size)).to(device)
        multipliers.extend(first + num_steps)
        lrs = (trial.hyper["lr"] * multipliers.values[first : first + num_steps]).tolist()
        losses = []
        yield  # what is above is preparation, what is below is timed
        for batch, lr in zip(indices, lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr
            inputs, targets = task.batch(Split.TRAIN, batch)
            loss = task.loss(module(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        yield
