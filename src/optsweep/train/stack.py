"""Trials side by side: their lanes, the rows that they train in, and the update of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optsweep.optim.layout import Layout
from optsweep.train.arena import Arena, SomeLanes
from optsweep.train.checkpoint import Saved
from optsweep.train.forward import Tensors
from optsweep.train.lanes import LEAST_ROWS, Lane, last_coefficients, open_lane
from optsweep.train.program import Program
from optsweep.train.trial import Trial


@dataclass(frozen=True)
class Arrival:
    """A trial that is to enter a lane, and what it goes on from."""

    trial: Trial
    saved: Saved | None = None

    @property
    def step(self) -> int:
        """Steps that it has done."""
        return 0 if self.saved is None else int(self.saved["lane"]["step"])


class Stack:
    """Row k of the arena is that of lane k; rows behind the lanes, and those of lanes that have ended, are free."""

    def __init__(self, program: Program, layout: Layout, trials: Sequence[Trial], tick: int = 0) -> None:
        self.program = program
        self.lanes = [open_lane(program, trial, tick) for trial in trials]
        # Where every parameter is rare, the row is empty: then this update lends only its numbers.
        self.update = program.build_update(layout if layout.slots else program.layout_without(()))
        self.arena = Arena(
            [program.model(trial.seed) for trial in trials],
            layout,
            stacked=program.stacked,
            device=program.device,
            dtype=program.dtype,
            low=program.forward.low,
        )
        self.arena.state = self.update.init(self.arena.params) if layout.slots else {}

    @property
    def training(self) -> list[Lane]:
        """The lanes that haven't ended."""
        return [lane for lane in self.lanes if not lane.ended]

    def put(self, other: Stack) -> None:
        """Take over all lanes of another one of the program, in free rows as far as there are any."""
        behind = range(len(self.lanes), self.arena.lanes)
        free = [*(k for k, lane in enumerate(self.lanes) if lane.ended), *behind][: len(other.lanes)]
        self.arena.put(free, other.arena)
        self.update.put(free, other.update)
        for place, lane in zip(free, other.lanes, strict=False):
            self.lanes[place : place + 1] = [lane]
        self.lanes += other.lanes[len(free) :]

    def compact(self) -> None:
        """Drop free rows; without a lane that trains, all stay, to be taken."""
        kept = [k for k, lane in enumerate(self.lanes) if not lane.ended]
        self.lanes = [self.lanes[k] for k in kept]
        rows = kept * LEAST_ROWS if self.program.stacked and len(kept) < LEAST_ROWS else kept
        in_place = kept == [*range(len(kept))] and len(rows) == self.arena.lanes
        if kept and not in_place:
            self.arena.keep(rows)
            self.update.keep(rows)

    def shown(self, places: Sequence[int]) -> tuple[Arena | SomeLanes, Tensors]:
        """These lanes, a single one twice where lanes are vmapped, and the weights one would ship of them, by name.

        The weights lie apart from those that train.
        """
        arena, rows = self.arena, list(places)
        if self.program.stacked and len(rows) < LEAST_ROWS:
            rows *= LEAST_ROWS
        whole = len(rows) == arena.lanes and (len(places) == len(self.lanes) or not self.program.stacked)
        part: Arena | SomeLanes = arena if whole else arena.part(rows)
        lanes, row = [self.lanes[k] for k in rows], part.params
        if lanes[0].last and arena.layout.slots:
            row = self.update.weights(row, part.state, last_coefficients(self.program, lanes))
        return part, arena.views(row.clone() if arena.low is None else row.to(arena.low))

    def state_of(self, place: int) -> dict[str, Any]:
        """What a lane has come to, as plain data."""
        held = self.update.held(place) if self.arena.layout.slots else None
        return {"lane": self.lanes[place].state(), "arena": self.arena.state_of(place), "held": held}

    def restore(self, saved: Saved, tick: int) -> None:
        """Let the only lane go on at this tick from what `state_of` has kept of one."""
        (lane,) = self.lanes
        lane.restore(saved["lane"])
        lane.start = tick - lane.step
        self.arena.restore(saved["arena"])
        if self.arena.layout.slots:
            self.update.take_up([saved["held"]])
