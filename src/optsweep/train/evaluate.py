"""Loss and metric of given weights on a split: on a module of its own, in eval mode, without a trace in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from optsweep.optim.batch_norm import cumulative, running_norms
from optsweep.tasks.base import Split
from optsweep.tasks.data import Stretch
from optsweep.tasks.meters import Means
from optsweep.tasks.nest import Nest, moved
from optsweep.train.arena import Arena, SomeLanes
from optsweep.train.forward import Tensors
from optsweep.train.program import Program
from optsweep.train.randomness import EVALUATION_SEED, RECALIBRATION_SEED, seed_stream, step_seeds
from optsweep.train.ranks import Ranks
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


@dataclass(frozen=True)
class Shown:
    """Lanes as they are evaluated, apart from how they train.

    `weights` are their parameters by name, as `Arena.views` has them; `scratch` is a module like the one that trains.
    With `recordings`, what a forward pass gives may be one of these.
    """

    program: Program
    arena: Arena | SomeLanes
    scratch: nn.Module
    weights: Tensors
    recordings: Recordings | None = None
    group: Ranks | None = None  # of ranks that evaluate together


@torch.no_grad()
def evaluate(shown: Shown, split: Split) -> Tensor:
    """What decides, the metric and the mean loss of every lane on a split, `[3, K]` in float64, on the host.

    Whatever a forward pass draws at random is the same in every evaluation.
    """
    task, lanes = shown.program.task, shown.arena.lanes
    losses, score = Means(lanes), task.meter(lanes, stacked=shown.program.stacked)
    for loss, kept, batch, count in _scored(shown, _Portions(split, shown.program.eval_batch_size)):
        losses.add(loss, batch, count)
        score.add(kept, batch, count)
    mean, found = losses.values(), score.values()
    return torch.stack([task.deciding(mean, found), found, mean])


@torch.no_grad()
def spread(shown: Shown) -> Tensor:
    """Standard deviation of the validation samples' losses in every lane, `[K]`.

    Estimated from equal groups of two samples or more, as a loss is defined for batches; 0 where there is one only.
    """
    losses = _of_equal(shown, Split.VAL, SPREAD_GROUPS)
    if len(losses.counts) < 2:
        return torch.zeros(shown.arena.lanes, dtype=torch.float64)
    return losses.each().std(0) * math.sqrt(losses.counts[0])


@torch.no_grad()
def block_losses(shown: Shown) -> Tensor:
    """Mean losses of about equal parts of the test split, in its order, in every lane: `[blocks, K]`.

    None where a metric decides: that of a whole split is no mean of its parts'.
    """
    none = torch.zeros(0, shown.arena.lanes, dtype=torch.float64)
    if shown.program.task.decides:
        return none
    losses = _of_equal(shown, Split.TEST, TEST_BLOCKS)
    if len(losses.counts) < 2:
        return none
    return torch.stack([part.mean(0) for part in losses.each().tensor_split(min(TEST_BLOCKS, len(losses.counts)))])


def _of_equal(shown: Shown, split: Split, count: int) -> Means:
    """Losses of equal groups of two samples or more, as a loss is defined for batches; so many groups at least."""
    program, losses = shown.program, Means(shown.arena.lanes)
    size = min(max(2, program.task.size(split) // count), program.eval_batch_size)
    for loss, _, batch, held in _scored(shown, _Portions(split, size, equal=True)):
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


def _scored(shown: Shown, batches: _Portions) -> Iterator[Scored]:
    """Loss `[K]` and what the meter is to know of every batch, the batch, and its number of samples."""
    program, arena, scratch = shown.program, shown.arena, shown.scratch
    scores_by = _stacked if program.stacked else _plain
    if shown.recordings is not None and not running_norms(scratch):  # whose statistics are made of batches drawn anew

        def scores_of(inputs: Inputs) -> Callable[[Nest], tuple[Tensor, Nest]]:
            weights, *others = inputs
            scratch.eval()
            return scores_by(replace(shown, arena=SomeLanes(arena.module, arena.params, {}, *others), weights=weights))

        inputs = shown.weights, arena.frozen, arena.buffers
        found = shown.recordings.scored((batches, arena.lanes), inputs, lambda: batches.of(program), scores_of)
        if found is not None:
            yield from found
            return
    if shown.group is not None:
        yield from _scored_by_ranks(shown, shown.group, batches)
        return
    scores = scores_by(shown)
    for batch, count in _seeded(shown, batches):
        yield *scores(batch), batch, count


def _seeded(shown: Shown, batches: _Portions) -> Iterator[tuple[Nest, int]]:
    """The batches, each with its number of samples; before each the generators are seeded."""
    generators = shown.program.traits.generators
    generators.everything().seeder()(EVALUATION_SEED)
    seed = generators.seeder()
    shown.scratch.eval()
    remaining = batches.of(shown.program)
    for number in seed_stream(EVALUATION_SEED):
        seed(number)
        following = next(remaining, None)
        if following is None:
            return
        yield following


@dataclass(frozen=True)
class _Score:
    """The order to evaluate, each rank every so manieth batch."""

    batches: _Portions

    @torch.no_grad()
    def obey(self, follower: Any) -> None:
        """Do so; what comes of it is rank 0's."""
        for _ in _scored(follower.run.shown([0]), self.batches):
            pass


def _scored_by_ranks(shown: Shown, group: Ranks, batches: _Portions) -> Iterator[Scored]:
    """In rank 0 as `_scored` has it, from all ranks, which take turns: each batch is scored as one process does it."""
    with group.acting(_Score(batches)):
        scores, device = _plain(shown), shown.program.device
        round_: list[tuple[Nest, int]] = []
        mine: Nest = None
        for batch, count in _seeded(shown, batches):
            if len(round_) == group.rank:
                mine = moved(scores(batch), torch.device("cpu"))
            round_.append((batch, count))
            if len(round_) == group.size:
                yield from _gathered(group, mine, round_, device)
                round_, mine = [], None
        if round_:
            yield from _gathered(group, mine, round_, device)


def _gathered(group: Ranks, mine: Nest, round_: Sequence[tuple[Nest, int]], device: torch.device) -> Iterator[Scored]:
    """The scores of as many batches as there are ranks, or fewer, in rank 0."""
    for found, (batch, count) in zip(group.collected(mine), round_, strict=False):
        loss, kept = moved(found, device)
        yield loss, kept, batch, count


def _plain(shown: Shown) -> Callable[[Nest], tuple[Tensor, Nest]]:
    """Scores by `scratch`, which takes up the weights and the state of the module that trains."""
    program, arena, scratch, weights = shown.program, shown.arena, shown.scratch, shown.weights
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


def _stacked(shown: Shown) -> Callable[[Nest], tuple[Tensor, Nest]]:
    """Scores of all lanes by `scratch` as a template."""
    program, arena, scratch, weights = shown.program, shown.arena, shown.scratch, shown.weights
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
