"""What an arm trains, as objects: everything that its trials share. A trial adds numbers and a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from optsweep.optim.layout import Layout, layout_of
from optsweep.optim.schedules import Schedule
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Split, Task

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Program:
    """An arm ready to train."""

    task: Task
    build_update: Callable[[Layout], Updater]
    schedule: Schedule
    num_steps: int
    batch_size: int
    num_rungs: int = 20
    log_every: int = 10  # steps between logged points of training loss, LR and norms
    accumulate: int = 1  # micro-batches per step
    decay_all: bool = False
    precision: Precision = "fp32"
    vmapped: bool = False  # lanes under vmap, of which there are then always two or more
    divergence_factor: float = 2.0  # a validation loss this many times the initial one ends a trial
    eval_batch_size: int = 64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    def model(self, seed: int) -> nn.Module:
        """The task's model, initialised from `seed`; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.task.model().to(self.dtype)

    @cached_property
    def layout(self) -> Layout:
        """Layout of the model's parameters without those that its loss doesn't use.

        torch.optim skips a parameter without gradient; in a row it would still decay, so it stays out.
        """
        model = self.model(0)
        indices = torch.from_numpy(self.task.train_indices(0, 0, 1, min(self.batch_size, 8))[0]).to(self.device)
        inputs, targets = self.task.batch(Split.TRAIN, indices)
        model.to(self.device)
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        loss = self.task.loss(model(cast_inputs(inputs, self.dtype)), targets)
        grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        unused = frozenset(name for name, grad in zip(named, grads, strict=True) if grad is None)
        return layout_of(model, decay_all=self.decay_all, unused=unused, heads=self.task.head_modules)

    def rung_steps(self, period: int) -> list[int]:
        """Steps after which all lanes are evaluated: about `num_rungs`, multiples of `period`, the last step."""
        stride = max(1, round(self.num_steps / self.num_rungs))
        stride = -(-stride // period) * period
        steps = list(range(stride, self.num_steps, stride))
        if steps and self.num_steps - steps[-1] < stride / 2:
            steps.pop()  # rather one longer rung than a last one too short to tell anything
        return [*steps, self.num_steps]


def cast_inputs(inputs: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Floating-point inputs in the model's dtype; indices as they are."""
    return inputs.to(dtype) if inputs.is_floating_point() else inputs
