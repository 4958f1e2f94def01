"""Loss and metric of given weights on a split: on a module of its own, in eval mode, without a trace in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from optsweep.optim.batch_norm import cumulative, running_norms
from optsweep.tasks.base import Split
from optsweep.train.arena import Arena
from optsweep.train.forward import Tensors
from optsweep.train.program import Program
from optsweep.train.randomness import EVALUATION_SEED, RECALIBRATION_SEED, step_seeds
from optsweep.train.traits import numbers_of

RECALIBRATION_BATCHES = 16
"""Training batches from which batch-norm statistics are recomputed at the evaluated weights."""

RECALIBRATION_SAMPLES = 64
"""Samples of each, or the whole training split if it is smaller."""

TEST_BLOCKS = 32
"""Parts of the test split whose losses are kept, at most: enough to tell what other samples would change."""

SPREAD_GROUPS = 16
"""Groups of samples, at least, from which the spread of losses is estimated where there are as many."""


@torch.no_grad()
def evaluate(program: Program, arena: Arena, scratch: nn.Module, weights: Tensors, split: Split) -> Tensor:
    """Mean loss and metric of every lane on a split, `[2, K]` in float64, on the host.

    `scratch` is a module like the one that trains, `weights` its parameters by name as `Arena.views` has them. Whatever
    a forward pass draws at random is the same in every evaluation.
    """
    chunks = program.task.eval_indices(split, program.eval_batch_size)
    total = torch.zeros(2, arena.lanes, dtype=torch.float64)
    for result, indices in zip(_scored(program, arena, scratch, weights, split, chunks), chunks, strict=True):
        total += result * len(indices)
    return total / program.task.size(split)


@torch.no_grad()
def spread(program: Program, arena: Arena, scratch: nn.Module, weights: Tensors) -> Tensor:
    """Standard deviation of the validation samples' losses in every lane, `[K]`; arguments as those of `evaluate`.

    Estimated from equal groups of two samples or more, as a loss is defined for batches; 0 where there is one only.
    """
    groups = _equal(program, Split.VAL, SPREAD_GROUPS)
    if len(groups) < 2:
        return torch.zeros(arena.lanes, dtype=torch.float64)
    losses = _scored(program, arena, scratch, weights, Split.VAL, groups)[:, 0]
    return losses.std(0) * math.sqrt(len(groups[0]))


@torch.no_grad()
def block_losses(program: Program, arena: Arena, scratch: nn.Module, weights: Tensors) -> Tensor:
    """Mean losses of about equal parts of the test split, in its order, in every lane: `[blocks, K]`."""
    groups = _equal(program, Split.TEST, TEST_BLOCKS)
    if len(groups) < 2:
        return torch.zeros(0, arena.lanes, dtype=torch.float64)
    losses = _scored(program, arena, scratch, weights, Split.TEST, groups)[:, 0]
    return torch.stack([part.mean(0) for part in losses.tensor_split(min(TEST_BLOCKS, len(groups)))])


def _equal(program: Program, split: Split, count: int) -> list[NDArray[np.int64]]:
    """Groups of one size, two samples or more, as a loss is defined for batches; at least so many where that can be."""
    size = min(max(2, program.task.size(split) // count), program.eval_batch_size)
    return [indices for indices in program.task.eval_indices(split, size) if len(indices) == size]


def _scored(
    program: Program,
    arena: Arena,
    scratch: nn.Module,
    weights: Tensors,
    split: Split,
    chunks: Sequence[NDArray[np.int64]],
) -> Tensor:
    """Mean loss and metric of every chunk and lane, `[chunks, 2, K]` in float64, on the host."""
    forward, generators = program.forward, program.traits.generators
    scores = (_stacked if program.stacked else _plain)(program, arena, scratch, weights)
    seeds = step_seeds(EVALUATION_SEED, 0, len(chunks) + 1)
    generators.everything().seeder()(seeds[-1])
    seed = generators.seeder()
    results: list[Tensor] = []
    scratch.eval()
    with forward.autocast():
        for number, indices in zip(seeds, chunks, strict=False):
            seed(number)
            loss, score = scores(*forward.batch(split, torch.from_numpy(indices).to(arena.device)))
            results.append(torch.stack([loss.expand(arena.lanes), score.expand(arena.lanes)]))
    return torch.stack(results).cpu().double()


def _plain(
    program: Program, arena: Arena, scratch: nn.Module, weights: Tensors
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Scores by `scratch`, which takes up the weights and the state of the module that trains."""
    forward = program.forward
    load(scratch, arena.module, weights)
    norms = running_norms(scratch)
    if norms:
        _recalibrate(program, scratch, scratch)
        statistics = {name: dict(norm.named_buffers()) for name, norm in norms.items()}
        load(scratch, arena.module, weights)  # what else those batches have changed
        for name, norm in norms.items():
            for key, buffer in statistics[name].items():
                setattr(norm, key, buffer)
    return lambda x, y: forward.scores(scratch(x), y)


def load(scratch: nn.Module, trained: nn.Module, weights: Tensors) -> None:
    """Give `scratch` the weights, and of `trained` its other parameters, its buffers and numbers it keeps beside them.

    Buffers are copied, shared ones once; forward passes may assign them anew.
    """
    others = dict(trained.named_parameters())
    for name, parameter in scratch.named_parameters():
        parameter.data = weights[name] if name in weights else others[name].data
    copies: dict[int, Tensor] = {}
    for ours, theirs in zip(scratch.modules(), trained.modules(), strict=True):
        for name, buffer in theirs.named_buffers(recurse=False, remove_duplicate=False):
            if id(buffer) not in copies:
                copies[id(buffer)] = buffer.detach().clone()
            setattr(ours, name, copies[id(buffer)])
        for name, value in numbers_of(theirs):
            setattr(ours, name, value.detach() if isinstance(value, Tensor) else value)


def _stacked(
    program: Program, arena: Arena, scratch: nn.Module, weights: Tensors
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Scores of all lanes by `scratch` as a template."""
    buffers = {name: buffer.clone() for name, buffer in arena.buffers.items()}
    norms = running_norms(scratch)
    if norms:

        def call(params: Tensors, frozen: Tensors, buffers: Tensors, x: Tensor) -> object:
            return functional_call(scratch, (params, frozen, buffers), (x,))

        run = vmap(call, in_dims=(0, 0, 0, None), randomness="error")
        changed = {name: buffer.clone() for name, buffer in buffers.items()}
        _recalibrate(program, scratch, lambda x: run(weights, arena.frozen, changed, x))
        statistics = {f"{name}.{key}".lstrip(".") for name, norm in norms.items() for key, _ in norm.named_buffers()}
        buffers |= {name: changed[name] for name in statistics}
    scores = program.forward.lanes_scores(scratch)
    return lambda x, y: scores(weights, arena.frozen, buffers, x, y)


def _recalibrate(program: Program, module: nn.Module, run: Callable[[Tensor], object]) -> None:
    """Recompute batch-norm statistics at the evaluated weights, by calls of `run`, a forward pass of the module.

    A running average lags behind the weights, and at averaged weights (schedule-free, EMA) it belongs to other ones
    altogether. So every arm is scored with the cumulative mean over the same seeded batches.
    """
    forward, task = program.forward, program.task
    size = min(RECALIBRATION_SAMPLES, task.size(Split.TRAIN))
    indices = task.train_indices(RECALIBRATION_SEED, 0, RECALIBRATION_BATCHES, size)
    seeds = step_seeds(RECALIBRATION_SEED, 0, len(indices))
    program.traits.generators.everything().seeder()(seeds[0])
    seed = program.traits.generators.seeder()
    module.train()
    with cumulative(running_norms(module).values()), forward.autocast():
        for number, batch in zip(seeds, indices, strict=True):
            seed(number)
            x, _ = forward.batch(Split.TRAIN, torch.from_numpy(batch).to(program.device))
            run(x)
