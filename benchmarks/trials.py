"""Arms as the command line composes them, ready to be trained by hand or by optsweep's loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice

import torch
from torch import Tensor, nn

from optsweep.build.assemble import Built, build_arm
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.tasks.base import Split, Task
from optsweep.train.program import Program
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Trial

Batch = tuple[Tensor, Tensor]

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


def built(arm: Arm, device: torch.device, task: Task | None = None) -> Built:
    """The arm's objects on a device; `task` goes before the arm's own."""
    return build_arm(arm, task, device)


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

    def batches(first: int) -> Iterator[Batch]:
        indices = torch.from_numpy(task.train_indices(trial.seed, first, num_steps, program.batch_size)).to(device)
        return (task.batch(Split.TRAIN, batch) for batch in indices)

    return _by_hand(program, trial, num_steps, batches, task.loss)


def over_loader(program: Program, trial: Trial, num_steps: int, loader: Iterable[Batch]) -> Iterator[None]:
    """The same over the batches of a DataLoader, epoch after epoch."""
    device = program.device
    endless = (
        (inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True))
        for _ in count()
        for inputs, targets in loader
    )
    return _by_hand(program, trial, num_steps, lambda _: islice(endless, num_steps), nn.functional.cross_entropy)


def _by_hand(
    program: Program,
    trial: Trial,
    num_steps: int,
    batches: Callable[[int], Iterator[Batch]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[None]:
    module = program.model(trial.seed).to(program.device)
    optimizer = optimizer_by_hand(program, trial, module)
    multipliers = program.schedule.start(program.num_steps)
    for first in count(0, num_steps):
        ahead = batches(first)
        multipliers.extend(first + num_steps)
        lrs = (trial.hyper["lr"] * multipliers.values[first : first + num_steps]).tolist()
        losses = []
        yield  # what is above is preparation, what is below is timed
        for (inputs, targets), lr in zip(ahead, lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses.append(step_by_hand(module, optimizer, inputs, targets, loss_of))
        yield


def optimizer_by_hand(program: Program, trial: Trial, module: nn.Module) -> torch.optim.Optimizer:
    """torch's fused AdamW, over what decays and what doesn't."""
    decayed = {slot.name for slot in program.layout.slots if slot.offset < program.layout.decayed}
    named = list(module.named_parameters())
    groups = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": trial.hyper["weight_decay"]},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    betas = trial.hyper["beta1"], trial.hyper["beta2"]
    return torch.optim.AdamW(groups, lr=trial.hyper["lr"], betas=betas, eps=trial.hyper["eps"], fused=True)


def step_by_hand(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """One training step on a batch; its loss, on the device."""
    loss = loss_of(module(inputs), targets)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()
