"""A trial in training: its own first tick, its own schedule, data and numbers, and when and how it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.iterate import BEGINNING, Past
from optsweep.optim.rule import Coefficients, Floats
from optsweep.optim.schedules import Multipliers
from optsweep.optim.updater import Updater
from optsweep.train.divergence import limit
from optsweep.train.program import Program
from optsweep.train.trial import End, Point, Trial

AHEAD = 1024
"""Steps whose numbers are computed at once, where they don't depend on what is observed meanwhile."""

LEAST_ROWS = 2
"""Of the vmapped path, because one alone would be other arithmetic."""


@dataclass(frozen=True)
class StepTable:
    """Numbers of a trial's steps from step `first` on: `rows [steps, names]`."""

    first: int
    names: tuple[str, ...]
    rows: Floats

    @property
    def end(self) -> int:
        """The step behind the last one."""
        return self.first + len(self.rows)


@dataclass
class Lane:
    """A trial whose step is the loop's tick less `start`; `rungs` are the steps at which it is still to be evaluated.

    What is told of it depends on its own steps only, never on its company, which may cut its training anywhere.
    """

    trial: Trial
    multipliers: Multipliers
    rungs: list[int]
    start: int = 0
    ended: bool = False
    initial_loss: float = math.nan
    best_loss: float = math.inf
    spread: float = 0.0  # of the samples' losses before the first step, for a task without a floor
    step: int = 0
    last_rung: int = 0  # the step of the rung before
    train_seconds: float = 0.0  # its share
    rung_seconds: float = 0.0  # of all lanes, since the rung before
    origin: Past = BEGINNING  # steps that it has taken, not all of them
    table: StepTable | None = None  # numbers of steps, these among them
    last: Mapping[str, float] = field(default_factory=dict)  # the numbers of the last step
    points: list[Point] = field(default_factory=list)  # since the last rung
    losses: Floats = field(default_factory=lambda: np.empty(0))  # of the steps since the last point

    @property
    def past(self) -> Past:
        """The steps that it has taken."""
        return self.origin.after(self.multipliers.values[self.origin.steps : self.step])

    @property
    def next_tick(self) -> int:
        """The tick of its next rung."""
        return self.start + self.rungs[0]

    def state(self) -> dict[str, Any]:
        """What goes on with it, as plain data; of rungs observed and steps taken the coming multipliers are made."""
        past = self.past
        return {
            **{name: vars(self)[name] for name in _NUMBERS},
            "rungs": list(self.rungs),
            "observed": list(self.multipliers.observed),
            "past": [past.steps, past.largest, past.total],
            "last": dict(self.last),
            "points": [list(point) for point in self.points],
            "losses": self.losses.tolist(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state` has kept."""
        for name in _NUMBERS:
            setattr(self, name, saved[name])
        schedule, num_steps = self.multipliers.schedule, self.multipliers.num_steps
        observed = {"values": [], "observed": saved["observed"]}
        self.multipliers = Multipliers.restored(schedule, num_steps, observed)
        self.rungs, self.last = list(saved["rungs"]), dict(saved["last"])
        self.origin, self.table = Past(*saved["past"]), None
        self.points = [Point(*numbers) for numbers in saved["points"]]
        self.losses = np.array(saved["losses"], dtype=np.float64)

    def advance(self, tick: int, last: Mapping[str, float]) -> None:
        """It was trained up to this tick; `last` are the numbers of the last step."""
        self.step, self.last = tick - self.start, last

    def numbers(self, update: Updater, end: int) -> StepTable:
        """The numbers of its next steps, up to tick `end` at least."""
        end -= self.start
        if self.table is None or end > self.table.end:
            listens = self.multipliers.schedule.listens
            self.multipliers.extend(end)
            self.origin = self.past
            upto = end if listens else max(end, self.step + AHEAD)
            numbers = update.coefficients(self.trial.hyper, self.multipliers.values[self.step : upto], self.origin)
            self.table = StepTable(self.step, tuple(numbers), np.stack([*numbers.values()], 1))
        return self.table

    def point(self, step: int, loss: float, grad_norm: float, update_ratio: float) -> None:
        """A point at a step that it has done."""
        lr = float(self.trial.hyper["lr"] * self.multipliers.values[step - 1])
        self.points.append(Point(step, loss, lr, grad_norm, update_ratio))

    def verdict(self, program: Program, val_loss: float, points: Sequence[Point]) -> tuple[End, str] | None:
        """Whether, how and why it ends at this rung."""
        if not math.isfinite(val_loss) or any(
            point.loss is not None and not math.isfinite(point.loss) for point in points
        ):
            return End.DIVERGED, f"non-finite loss by step {self.step}"
        if val_loss > limit(
            program.divergence_factor, self.initial_loss, self.best_loss, program.task.loss_floor, self.spread
        ):
            return End.DIVERGED, f"validation loss {val_loss:.3g} at step {self.step}, {self.initial_loss:.3g} at start"
        if self.step >= program.num_steps:
            return End.FINISHED, ""
        threshold = self.trial.prune_above.get(self.step)
        if threshold is not None and val_loss > threshold:
            return End.PRUNED, f"validation loss {val_loss:.4g} above {threshold:.4g} at step {self.step}"
        return None


_NUMBERS = ("initial_loss", "best_loss", "spread", "step", "last_rung", "train_seconds", "rung_seconds")
"""What else of a lane changes in training."""


def open_lane(program: Program, trial: Trial, start: int = 0) -> Lane:
    """A lane before its first step, at a rung of the others and a multiple of the update's period."""
    return Lane(trial, program.schedule.start(program.num_steps), [0, *program.rung_steps()], start)


def logged(lanes: Sequence[Lane], every: int, first: int, end: int) -> dict[int, None]:
    """The ticks from `first` to `end` that are logged of any lane, in order."""
    phases = {lane.start % every for lane in lanes}
    rungs = {lane.start: lane.rungs for lane in lanes}  # who began together has them together
    ends = {start + rung for start, steps in rungs.items() for rung in steps}
    ticks = (t for t in range(first, end) if t + 1 in ends or any((t + 1 - phase) % every == 0 for phase in phases))
    return dict.fromkeys(ticks)


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of the ticks from `first` on, by name: every lane's `rows [n, names]`."""

    first: int
    names: tuple[str, ...]
    rows: Sequence[Floats]

    def of_lane(self, place: int, tick: int) -> dict[str, float]:
        """A lane's at this tick."""
        return dict(zip(self.names, self.rows[place][tick - self.first].tolist(), strict=True))

    def stacked(self, lanes: int) -> Floats:
        """Of all lanes, `[n, names, lanes]`; one alone is there as often as its row."""
        return np.stack(self.rows if len(self.rows) == lanes else [*self.rows] * lanes, 2)


def numbers(lanes: Sequence[Lane], update: Updater, first: int, end: int) -> StepNumbers:
    """The numbers of ticks `first` to `end`."""
    tables = [lane.numbers(update, end) for lane in lanes]
    rows = [
        table.rows[lane.step - table.first : end - lane.start - table.first]
        for lane, table in zip(lanes, tables, strict=True)
    ]
    return StepNumbers(first, tables[0].names, rows)


def coefficients(program: Program, update: Updater, numbers: StepNumbers) -> Sequence[Coefficients]:
    """Per tick, as the update takes them: floats for one lane, `[K, 1]` tensors for several."""
    names = numbers.names
    if not program.stacked:
        return [dict(zip(names, values, strict=True)) for values in numbers.rows[0].tolist()]
    array = numbers.stacked(max(len(numbers.rows), LEAST_ROWS))
    if update.host_coefficients:
        return [dict(zip(names, step, strict=True)) for step in array.tolist()]
    # Rounded on the host: not every device has float64.
    uploaded = torch.from_numpy(array).to(program.dtype).to(program.device).unsqueeze(-1)
    return [dict(zip(names, step.unbind(0), strict=True)) for step in uploaded]


def last_coefficients(program: Program, lanes: Sequence[Lane]) -> dict[str, float | Tensor]:
    """Those of the last tick again, as `coefficients` has them."""
    if not program.stacked:
        return dict(lanes[0].last)
    names = list(lanes[0].last)
    values = torch.tensor([[lane.last[name] for lane in lanes] for name in names], dtype=torch.float64)
    return dict(zip(names, values.to(program.dtype).to(program.device).unsqueeze(-1).unbind(0), strict=True))
