"""How a model is called: in which precision, alone or stacked in lanes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from optsweep.tasks.base import Task
from optsweep.tasks.nest import Nest, cast
from optsweep.train.vmapped import in_lanes

IN_LANES = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
"""Kinds of attention that lanes may take: the others leave out what a gradient through vmap needs."""

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

    def cast(self, batch: Nest) -> Nest:
        """A batch, its floating-point inputs in the dtype of the parameters as they are computed with."""
        return self.task.cast(batch, self.computed)

    def loss(self, module: nn.Module, batch: Nest) -> Tensor:
        """The task's loss, of outputs in float32 at least."""
        return self.task.objective(module, batch, self._full)

    def scores(self, module: nn.Module, batch: Nest) -> tuple[Tensor, Nest]:
        """The task's loss and what its meter is to know, of outputs in float32 at least."""
        return self.task.evaluated(module, batch, self._full)

    def lanes_outputs(self, module: nn.Module) -> Callable[[Tensors, Tensors, Tensors, Nest], Nest]:
        """(parameters, frozen ones, buffers), each stacked, and a batch that lanes share, → outputs."""
        return self._in_lanes(module, self.task.outputs, shared=True)

    def lanes_loss(self, module: nn.Module) -> Callable[[Tensors, Tensors, Tensors, Nest], Tensor]:
        """(parameters, frozen ones, buffers, batch), each stacked, → losses `[K]`."""
        if (losses := self.task.lane_losses) is None:
            return self._in_lanes(module, self.loss, shared=False)
        outputs = self._in_lanes(module, self._outputs, shared=False)
        return lambda params, frozen, buffers, batch: losses(outputs(params, frozen, buffers, batch), batch[1])

    def lanes_scores(self, module: nn.Module) -> Callable[[Tensors, Tensors, Tensors, Nest], tuple[Tensor, Nest]]:
        """As `lanes_loss` for a batch that lanes share, → losses `[K]` and what the meter is to know, stacked."""
        if (losses := self.task.lane_losses) is None:
            return self._in_lanes(module, self.scores, shared=True)
        scored = self._in_lanes(module, self._scored, shared=True)

        def run(params: Tensors, frozen: Tensors, buffers: Tensors, batch: Nest) -> tuple[Tensor, Nest]:
            outputs, score = scored(params, frozen, buffers, batch)
            return losses(outputs, batch[1].expand(len(outputs), *batch[1].shape)), score

        return run

    def _in_lanes(
        self, module: nn.Module, function: Callable[[nn.Module, Nest], Any], *, shared: bool
    ) -> Callable[..., Any]:
        """`in_lanes`, with attention as vmap can have it."""
        run = in_lanes(module, function, shared=shared)
        if self.device.type != "cuda":
            return run

        def on_gpu(params: Tensors, frozen: Tensors, buffers: Tensors, batch: Nest) -> Any:
            with sdpa_kernel(IN_LANES):
                return run(params, frozen, buffers, batch)

        return on_gpu

    def _outputs(self, module: nn.Module, batch: Nest) -> Nest:
        """Outputs in float32 at least."""
        return self._full(self.task.outputs(module, batch))

    def _scored(self, module: nn.Module, batch: Nest) -> tuple[Nest, Nest]:
        """Those, and what the meter is to know."""
        outputs = self._outputs(module, batch)
        return outputs, self.task.score(outputs, batch[1])

    def _full(self, outputs: Nest) -> Nest:
        """bf16 outputs in float32."""
        return cast(outputs, torch.float32) if self.precision == "bf16" else outputs
