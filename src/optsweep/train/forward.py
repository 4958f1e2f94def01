"""How a model is called: in which precision, on which samples, alone or stacked in lanes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from optsweep.tasks.base import Split, Task

Precision = Literal["fp32", "bf16"]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Forward:
    """Calls a task's model. `dtype` is that of its parameters; `stacked` lanes run under vmap, their rows cast."""

    task: Task
    device: torch.device
    dtype: torch.dtype
    precision: Precision
    stacked: bool

    @cached_property
    def low(self) -> torch.dtype | None:
        """dtype of the rows that lanes compute with, if it isn't `dtype`."""
        return torch.bfloat16 if self.precision == "bf16" and self.stacked else None

    @cached_property
    def computed(self) -> torch.dtype:
        """dtype of the parameters as a forward pass reads them."""
        return self.low or self.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 autocast on the plain path; under vmap autocast is silently different, there the rows are cast."""
        if self.precision == "bf16" and not self.stacked:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, floating-point ones in the dtype of the parameters as they are computed with, and targets."""
        inputs, targets = self.task.batch(split, indices)
        return (inputs.to(self.computed) if inputs.is_floating_point() else inputs), targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The task's loss, in float32 at least."""
        return self.task.loss(_full(outputs) if self.precision == "bf16" else outputs, targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The task's loss and metric, in float32 at least."""
        if self.precision == "bf16":
            outputs = _full(outputs)
        return self.task.loss(outputs, targets), self.task.score(outputs, targets)

    def lanes_loss(self, module: nn.Module) -> Callable[[Tensors, Tensors, Tensors, Tensor, Tensor], Tensor]:
        """(parameters, frozen ones, buffers, inputs, targets), each stacked, → losses `[K]`."""

        def loss(params: Tensors, frozen: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
            return self.loss(functional_call(module, (params, frozen, buffers), (x,)), y)

        return vmap(loss, randomness="error")

    def lanes_scores(
        self, module: nn.Module
    ) -> Callable[[Tensors, Tensors, Tensors, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """As `lanes_loss` for inputs and targets that lanes share, → losses and metrics `[K]`."""

        def scores(params: Tensors, frozen: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.scores(functional_call(module, (params, frozen, buffers), (x,)), y)

        return vmap(scores, in_dims=(0, 0, 0, None, None), randomness="error")


def _full(outputs: Tensor) -> Tensor:
    """bf16 outputs, or a tuple of them, in float32."""
    return tuple(map(_full, outputs)) if isinstance(outputs, tuple) else outputs.float()
