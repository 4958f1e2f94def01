"""Loss and metric of given weights on a split: on a module of its own, in eval mode, without a trace in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optsweep.optim.batch_norm import cumulative, running_norms
from optsweep.tasks.base import Split
from optsweep.tasks.data import Stretch
from optsweep.tasks.meters import Means
from optsweep.tasks.nest import Nest
from optsweep.train.arena import Arena, SomeLanes
from optsweep.train.forward import Tensors
from optsweep.train.program import Program
from optsweep.train.randomness import EVALUATION_SEED, RECALIBRATION_SEED, seed_stream, step_seeds
from optsweep.train.recordings import Inputs, Recordings, Scored
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
def evaluate(
    program: Program,
    arena: Arena | SomeLanes,
    scratch: nn.Module,
    weights: Tensors,
    split: Split,
    recordings: Recordings | None = None,
) -> Tensor:
    """What decides, the metric and the mean loss of every lane on a split, `[3, K]` in float64, on the host.

    `scratch` is a module like the one that trains, `weights` its parameters by name as `Arena.views` has them. Whatever
    a forward pass draws at random is the same in every evaluation. With `recordings`, it may be one of these.
    """
    task = program.task
    losses, score = Means(arena.lanes), task.meter(arena.lanes, stacked=program.stacked)
    batches = _Portions(split, program.eval_batch_size)
    for loss, kept, batch, count in _scored(program, arena, scratch, weights, batches, recordings):
        losses.add(loss, batch, count)
        score.add(kept, batch, count)
    mean, found = losses.values(), score.values()
    return torch.stack([task.deciding(mean, found), found, mean])


@torch.no_grad()
def spread(
    program: Program,
    arena: Arena | SomeLanes,
    scratch: nn.Module,
    weights: Tensors,
    recordings: Recordings | None = None,
) -> Tensor:
    """Standard deviation of the validation samples' losses in every lane, `[K]`; arguments as those of `evaluate`.

    Estimated from equal groups of two samples or more, as a loss is defined for batches; 0 where there is one only.
    """
    losses = _of_equal(program, arena, scratch, weights, Split.VAL, SPREAD_GROUPS, recordings)
    if len(losses.counts) < 2:
        return torch.zeros(arena.lanes, dtype=torch.float64)
    return losses.each().std(0) * math.sqrt(losses.counts[0])


@torch.no_grad()
def block_losses(
    program: Program,
    arena: Arena | SomeLanes,
    scratch: nn.Module,
    weights: Tensors,
    recordings: Recordings | None = None,
) -> Tensor:
    """Mean losses of about equal parts of the test split, in its order, in every lane: `[blocks, K]`.

    None where a metric decides: that of a whole split is no mean of its parts'.
    """
    if program.task.decides:
        return torch.zeros(0, arena.lanes, dtype=torch.float64)
    losses = _of_equal(program, arena, scratch, weights, Split.TEST, TEST_BLOCKS, recordings)
    if len(losses.counts) < 2:
        return torch.zeros(0, arena.lanes, dtype=torch.float64)
    return torch.stack([part.mean(0) for part in losses.each().tensor_split(min(TEST_BLOCKS, len(losses.counts)))])


def _of_equal(
    program: Program,
    arena: Arena | SomeLanes,
    scratch: nn.Module,
    weights: Tensors,
    split: Split,
    count: int,
    recordings: Recordings | None,
) -> Means:
    """Losses of equal groups of two samples or more, as a loss is defined for batches; so many groups at least."""
    task, losses = program.task, Means(arena.lanes)
    size = min(max(2, task.size(split) // count), program.eval_batch_size)
    groups = _Portions(split, size, equal=True)
    for loss, _, batch, held in _scored(program, arena, scratch, weights, groups, recordings):
        losses.add(loss, batch, held)
    return losses


@dataclass(frozen=True)
class _Portions:
    """Those of a whole split, with `equal` only those of full size."""

    split: Split
    size: int
    equal: bool = False

    def of(self, program: Program) -> Iterator[tuple[Nest, int]]:
        """The batches, each with its number of samples."""
        for batch, count in program.task.data(self.split).whole(self.size, program.device):
            if count == self.size or not self.equal:
                yield program.forward.cast(batch), count


def _scored(
    program: Program,
    arena: Arena | SomeLanes,
    scratch: nn.Module,
    weights: Tensors,
    batches: _Portions,
    recordings: Recordings | None,
) -> Iterator[Scored]:
    """Loss `[K]` and what the meter is to know of every batch, the batch, and its number of samples."""
    generators = program.traits.generators
    if recordings is not None and not running_norms(scratch):  # whose statistics are made of batches drawn anew

        def scores_of(inputs: Inputs) -> Callable[[Nest], tuple[Tensor, Nest]]:
            part = SomeLanes(arena.module, arena.params, {}, *inputs[1:])
            scratch.eval()
            return (_stacked if program.stacked else _plain)(program, part, scratch, inputs[0])

        inputs = weights, arena.frozen, arena.buffers
        found = recordings.scored((batches, arena.lanes), inputs, lambda: batches.of(program), scores_of)
        if found is not None:
            yield from found
            return
    scores = (_stacked if program.stacked else _plain)(program, arena, scratch, weights)
    generators.everything().seeder()(EVALUATION_SEED)
    seed = generators.seeder()
    scratch.eval()
    remaining = batches.of(program)
    for number in seed_stream(EVALUATION_SEED):
        seed(number)
        following = next(remaining, None)
        if following is None:
            return
        batch, count = following
        yield *scores(batch), batch, count


def _plain(
    program: Program, arena: Arena | SomeLanes, scratch: nn.Module, weights: Tensors
) -> Callable[[Nest], tuple[Tensor, Nest]]:
    """Scores by `scratch`, which takes up the weights and the state of the module that trains."""
    forward = program.forward
    load(scratch, arena.module, weights)
    norms = running_norms(scratch)
    if norms:
        _recalibrate(program, scratch, lambda batch: program.task.outputs(scratch, batch))
        statistics = {name: dict(norm.named_buffers()) for name, norm in norms.items()}
        load(scratch, arena.module, weights)  # what else those batches have changed
        for name, norm in norms.items():
            for key, buffer in statistics[name].items():
                setattr(norm, key, buffer)

    def scores(batch: Nest) -> tuple[Tensor, Nest]:
        with forward.autocast():
            return forward.scores(scratch, batch)

    return scores


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
    program: Program, arena: Arena | SomeLanes, scratch: nn.Module, weights: Tensors
) -> Callable[[Nest], tuple[Tensor, Nest]]:
    """Scores of all lanes by `scratch` as a template."""
    buffers = {name: buffer.clone() for name, buffer in arena.buffers.items()}
    norms = running_norms(scratch)
    if norms:
        run = program.forward.lanes_outputs(scratch)
        changed = {name: buffer.clone() for name, buffer in buffers.items()}
        _recalibrate(program, scratch, lambda batch: run(weights, arena.frozen, changed, batch))
        statistics = {f"{name}.{key}".lstrip(".") for name, norm in norms.items() for key, _ in norm.named_buffers()}
        buffers |= {name: changed[name] for name in statistics}
    scores = program.forward.lanes_scores(scratch)
    return lambda batch: scores(weights, arena.frozen, buffers, batch)


def _recalibrate(program: Program, module: nn.Module, run: Callable[[Nest], object]) -> None:
    """Recompute batch-norm statistics at the evaluated weights, by calls of `run`, a forward pass of the module.

    A running average lags behind the weights, and at averaged weights (schedule-free, EMA) it belongs to other ones
    altogether. So every arm is scored with the cumulative mean over the same seeded batches.
    """
    forward, task = program.forward, program.task
    size = min(RECALIBRATION_SAMPLES, task.size(Split.TRAIN))
    span = Stretch(RECALIBRATION_SEED, 0, RECALIBRATION_BATCHES)
    batches = task.data(Split.TRAIN).training([span], size, 1, program.device)
    seeds = step_seeds(RECALIBRATION_SEED, span.first, span.end)
    program.traits.generators.everything().seeder()(seeds[0])
    seed = program.traits.generators.seeder()
    module.train()
    with cumulative(running_norms(module).values()), forward.autocast():
        for number in seeds:
            seed(number)
            run(forward.cast(next(batches)))
