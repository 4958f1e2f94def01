"""What one step does: batches become gradients, gradients an update, and some of it a record."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from optsweep.optim.rule import Coefficients
from optsweep.optim.update import clip_together
from optsweep.optim.updater import Updater
from optsweep.tasks.nest import Nest
from optsweep.train.arena import Arena
from optsweep.train.lanes import Lane
from optsweep.train.program import Program
from optsweep.train.rare import Rare
from optsweep.train.record import Record

# Gradients of lanes come back contiguous, the row's views are strided: accumulating in place is what is wanted here.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")

Take = Callable[[int], Sequence[str]]
"""Takes the step of a tick; returns the parameters that got no gradient."""


class MissedGradientError(Exception):
    """A step gave no gradient to parameters that every step before had: they are rare, and the trial begins again."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"no gradient for {', '.join(names)}")
        self.names = tuple(names)


def backward_of(
    program: Program, arena: Arena, rare: Sequence[Rare], ranks: int = 1
) -> Callable[[Iterator[Nest]], Tensor]:
    """A function of the step's batches that leaves gradients at the leaves and returns the mean loss, `[K]`.

    Both are divided by `ranks`, over which they are yet to be summed.
    """
    forward, parts = program.forward, program.accumulate
    divisor = parts * ranks
    module, leaves, frozen, buffers = arena.module, arena.leaves, arena.frozen, arena.buffers
    stacked = program.stacked
    lanes_loss = forward.lanes_loss(module) if stacked else None
    plain_loss = torch.compile(forward.loss, dynamic=False) if program.compiled else forward.loss

    def autocast_loss(batch: Nest) -> Tensor:
        with forward.autocast():
            return plain_loss(module, batch)

    def loss_of(batch: Nest) -> Tensor:
        if lanes_loss is not None:
            return lanes_loss(leaves, frozen, buffers, batch)
        return plain_loss(module, batch) if program.precision == "fp32" else autocast_loss(batch)

    def backward(batches: Iterator[Nest]) -> Tensor:
        arena.open_step()
        for one in rare:
            one.open_step()
        total: Tensor | None = None
        for _ in range(parts):
            loss = loss_of(forward.cast(next(batches)))
            if divisor > 1:
                loss = loss / divisor
            (loss.sum() if stacked else loss).backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    return backward


def step_of(
    arena: Arena, update: Updater, rare: Sequence[Rare], lane: Lane, clip_norm: float | None
) -> Callable[[Coefficients, int, Record], None]:
    """A function of a tick's numbers and the tick: one update, whose norms go into the record where it is logged.

    With `rare` parameters, those of the only `lane` that have a gradient are updated too, all clipped to `clip_norm`
    together.
    """

    def step(c: Coefficients, tick: int, record: Record) -> None:
        logged = tick in record.logged
        if logged:
            before = arena.params.clone()
            record.grad_norm([arena.grads])
        update.step(arena.params, arena.grads, arena.state, c, tick)
        if logged:
            record.update_ratio([before], [arena.params])

    def rarely(c: Coefficients, tick: int, record: Record) -> None:
        for one in rare:
            one.gather()
        present = [one for one in rare if one.present]
        rows = [arena.params, *(one.row for one in rare)]
        grads = [arena.grads, *(one.grad for one in present)]
        logged = tick in record.logged
        if logged:
            before = [row.clone() for row in rows]
            record.grad_norm(grads)
        if clip_norm is not None:
            clip_together(grads, clip_norm)
        if arena.layout.slots:
            update.step(arena.params, arena.grads, arena.state, c, tick)
        for one in present:
            one.step(lane.trial.hyper, float(lane.multipliers.values[tick - lane.start]))
        if logged:
            record.update_ratio(before, rows)

    return rarely if rare else step


def miss(program: Program, names: Sequence[str], tick: int) -> None:
    """Raise what a missing gradient means."""
    if program.ranks > 1:
        raise RuntimeError(
            f"whether parameter {names[0]} gets a gradient changes from step to step (step {tick}), which ranks can't "
            f"follow; give trainer.ranks=1"
        )
    if program.stacked:
        raise RuntimeError(
            f"parameter {names[0]} gets no gradient at step {tick}: what the model uses changes from step to step, "
            f"which lanes can't follow; give trainer.lanes=1"
        )
    raise MissedGradientError(names)
