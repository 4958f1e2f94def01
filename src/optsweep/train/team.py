"""A run of several ranks: rank 0 takes the others with it through its stretches of steps, and they follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from optsweep.train.checkpoint import Saved, packed
from optsweep.train.randomness import rank_seed, step_seeds
from optsweep.train.ranks import Ranks
from optsweep.train.record import Fetched, Record
from optsweep.train.steps import Take, backward_of, step_of
from optsweep.train.trial import Trial

if TYPE_CHECKING:  # whose team it is
    from optsweep.tasks.nest import Nest
    from optsweep.train.lanes import StepNumbers
    from optsweep.train.run import Run

FIRST_STEPS = 16
"""Of a stretch that is to pause at some time, as long as nobody knows how long a step takes."""


@dataclass(frozen=True)
class Begin:
    """A trial, and what it goes on from, `packed`."""

    trial: Trial
    saved: bytes | None

    def obey(self, follower: Any) -> None:
        """Have a run of it."""
        follower.begin(self.trial, self.saved)


@dataclass(frozen=True)
class Advance:
    """Steps up to a tick, and the validation losses that the schedule has been told."""

    end: int
    observed: tuple[float, ...]

    def obey(self, follower: Any) -> None:
        """Take them."""
        (lane,) = follower.run.lanes
        lane.multipliers.observed = list(self.observed)
        follower.run.advance(self.end)
        lane.points = []  # which rank 0 tells


class Team:
    """What a run that several ranks train does otherwise than one of one process."""

    def __init__(self, run: Run, group: Ranks, saved: Saved | None = None) -> None:
        self.run, self.group, self.saved = run, group, saved
        self._begun = not group.leads
        self._pace: float | None = None  # seconds a step

    def begin(self) -> None:
        """Of rank 0: let the others have the trial, once."""
        if not self._begun:
            self._begun = True
            self.group.tell(Begin(self.run.lanes[0].trial, None if self.saved is None else packed(self.saved)))
            self.saved = None  # which may be large

    @contextmanager
    def stretch(self, end: int) -> Iterator[int]:
        """All ranks take the steps up to `end` inside, or to where a pause is going to be due."""
        run = self.run
        self.begin()
        if self.group.leads and (steps := self._steps_until_due()) is not None:
            end = min(end, run.tick + steps)
        first, began = run.tick, perf_counter()
        with self.group.acting(Advance(end, tuple(run.lanes[0].multipliers.observed))):
            self.group.align([run.arena.params, *run.arena.state.values()])
            yield end
            self.group.align(list(run.arena.module.buffers()))  # which an evaluation has to have alike
        self._pace = (perf_counter() - began) / max(end - first, 1)

    def _steps_until_due(self) -> int | None:
        """Known beforehand: one rank's clock in the middle of a stretch is none that the others could follow."""
        due = self.run.checkpointer.due
        if due == math.inf:
            return None
        return FIRST_STEPS if self._pace is None else max(1, int((due - perf_counter()) / self._pace))

    def taking(self, batches: Iterator[Nest], tabled: Sequence[Any], plan: StepNumbers, record: Record) -> Take:
        """What takes the step of a tick, of ticks in their order: this rank's share, and the update of all."""
        run, group, (lane,) = self.run, self.group, self.run.lanes
        program, arena, parts = run.program, run.arena, run.program.accumulate
        backward = backward_of(program, arena, run.rare, group.size)
        step = step_of(arena, run.update, run.rare, lane, run.clip_norm)
        first = plan.first
        seeds = step_seeds(rank_seed(lane.trial.seed, group.rank), lane.step, lane.step + len(plan.rows[0]))
        seed: Callable[[int], object] = program.traits.generators.everything().seeder()

        def take(tick: int) -> Sequence[str]:
            mine = [group.part(next(batches)) for _ in range(parts)]  # drawn alike by all ranks, and before
            seed(seeds[tick - first])  # what differs between them
            record.loss(backward(iter(mine)))
            missing = arena.gather(parts)
            if missing := [*missing, *(one.name for one in run.rare if one.parameter.grad is not None)]:
                return missing
            group.add_up(arena.grads)
            step(tabled[tick - first], tick, record)
            return missing

        return take

    def averaged(self, fetched: Fetched) -> Fetched:
        """With the losses of whole batches: each rank's are divided by the number of ranks already."""
        losses = torch.from_numpy(fetched.losses.copy())
        self.group.add_up(losses)
        return replace(fetched, losses=losses.numpy())
