"""Loss and metric of given weights on a split: out of place, in eval mode, without a trace in the training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from optsweep.tasks.base import Split
from optsweep.train.arena import Arena
from optsweep.train.program import Program, cast_inputs

RECALIBRATION_BATCHES = 16
"""Training batches from which batch-norm statistics are recomputed at the evaluated weights."""

RECALIBRATION_SEED = 0x0B57


def autocast(program: Program) -> AbstractContextManager[object]:
    """bf16 autocast on the plain path; under vmap autocast is silently different, there the rows are cast."""
    if program.precision == "bf16" and not program.vmapped:
        return torch.autocast(program.device.type, dtype=torch.bfloat16)
    return nullcontext()


def forward_dtype(program: Program) -> torch.dtype:
    """dtype of floating-point inputs."""
    return torch.bfloat16 if program.precision == "bf16" and program.vmapped else program.dtype


def score_function(program: Program, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """(params, buffers, inputs, targets) → (loss, metric) of one model."""

    def call(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        outputs = (
            functional_call(module, (params, buffers), (x,)).float()
            if program.precision == "bf16"
            else (functional_call(module, (params, buffers), (x,)))
        )
        return program.task.loss(outputs, y), program.task.score(outputs, y)

    return call


@torch.no_grad()
def evaluate(program: Program, arena: Arena, weights: Tensor, split: Split) -> Tensor:
    """Mean loss and metric of every lane on a split, `[2, K]` in float64, on the device."""
    module, task = arena.module, program.task
    params = arena.views(weights if arena.low is None else weights.to(arena.low))
    buffers = recalibrated(program, arena, params)
    call = score_function(program, module)
    if arena.vmapped:
        call = vmap(call, in_dims=(0, 0, None, None), randomness="error")
    total = torch.zeros(2, arena.lanes, dtype=torch.float64, device=arena.device)
    was_training = module.training
    module.eval()
    with autocast(program):
        for indices in task.eval_indices(split, program.eval_batch_size):
            x, y = task.batch(split, torch.from_numpy(indices).to(arena.device))
            loss, score = call(params, buffers, cast_inputs(x, forward_dtype(program)), y)
            total += torch.stack([loss.expand(arena.lanes), score.expand(arena.lanes)]).double() * len(indices)
    module.train(was_training)
    return total / task.size(split)


def recalibrated(program: Program, arena: Arena, params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The buffers to evaluate with: a copy, whose batch-norm statistics are recomputed at `params`.

    A running average lags behind the weights, and at averaged weights (schedule-free, EMA) it belongs to other ones
    altogether. So every arm is scored with the cumulative mean over the same seeded batches.
    """
    module = arena.module
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    buffers = {name: b.clone() if arena.vmapped else b[0].clone() for name, b in arena.buffers.items()}
    if not norms:
        return buffers

    def call(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        out = functional_call(module, (params, buffers), (x,))
        assert isinstance(out, Tensor)
        return out

    run = vmap(call, in_dims=(0, 0, None), randomness="error") if arena.vmapped else call
    size = min(program.eval_batch_size, program.task.size(Split.TRAIN))
    indices = program.task.train_indices(RECALIBRATION_SEED, 0, RECALIBRATION_BATCHES, size)
    momenta = [m.momentum for m in norms]
    was_training = module.training
    module.train()
    with autocast(program):
        for i, batch in enumerate(indices):
            for norm in norms:
                norm.momentum = 1.0 / (i + 1)  # a cumulative mean; momentum=None does not run under vmap
            x, _ = program.task.batch(Split.TRAIN, torch.from_numpy(batch).to(arena.device))
            run(params, buffers, cast_inputs(x, forward_dtype(program)))
    module.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return buffers
