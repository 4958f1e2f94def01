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
from optsweep.train.record import Fetched
from optsweep.train.trial import End, Point, Trial

LEAST_ROWS = 2
"""Of the vmapped path, because one alone would be other arithmetic."""


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
    past: Past = BEGINNING  # the steps that it has taken
    last: Mapping[str, float] = field(default_factory=dict)  # the numbers of the last step
    points: list[Point] = field(default_factory=list)  # since the last rung
    losses: Floats = field(default_factory=lambda: np.empty(0))  # of the steps since the last point

    @property
    def next_tick(self) -> int:
        """The tick of its next rung."""
        return self.start + self.rungs[0]

    def state(self) -> dict[str, Any]:
        """What goes on with it, as plain data; of rungs observed and steps taken the coming multipliers are made."""
        return {
            **{name: vars(self)[name] for name in _NUMBERS},
            "rungs": list(self.rungs),
            "observed": list(self.multipliers.observed),
            "past": [self.past.steps, self.past.largest, self.past.total],
            "last": dict(self.last),
            "points": [list(vars(point).values()) for point in self.points],
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
        self.past = Past(*saved["past"])
        self.points = [Point(*numbers) for numbers in saved["points"]]
        self.losses = np.array(saved["losses"], dtype=np.float64)

    def advance(self, tick: int, last: Mapping[str, float]) -> None:
        """It was trained up to this tick; `last` are the numbers of the last step."""
        step = tick - self.start
        self.past, self.last = self.past.after(self.multipliers.values[self.step : step]), last
        self.step = step

    def note(self, place: int, fetched: Fetched, every: int) -> None:
        """Make points of what its steps have left, at every `every`-th and at its rungs."""
        losses, begin = fetched.losses[place], 0
        for i, tick in enumerate(fetched.logged):
            step = tick + 1 - self.start
            if step % every and step not in self.rungs:
                continue  # another's
            end = tick + 1 - fetched.first
            window = np.concatenate([self.losses, losses[begin:end]])
            lr = float(self.trial.hyper["lr"] * self.multipliers.values[step - 1])
            norms = float(fetched.norms[place, i]), float(fetched.ratios[place, i])
            self.points.append(Point(step, float(window.mean()), lr, *norms))
            self.losses, begin = losses[:0], end
        self.losses = np.concatenate([self.losses, losses[begin:]])

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
    phases, ends = {lane.start % every for lane in lanes}, {lane.start + rung for lane in lanes for rung in lane.rungs}
    ticks = (t for t in range(first, end) if t + 1 in ends or any((t + 1 - phase) % every == 0 for phase in phases))
    return dict.fromkeys(ticks)


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of the ticks from `first` on: every lane's `tables`, `[n]` each by name."""

    first: int
    tables: Sequence[Mapping[str, Floats]]

    def of_lane(self, place: int, tick: int) -> dict[str, float]:
        """A lane's at this tick."""
        return {name: float(values[tick - self.first]) for name, values in self.tables[place].items()}

    def stacked(self, lanes: int) -> Floats:
        """Of all lanes, `[n, names, lanes]`; one alone is there as often as its row."""
        rows = self.tables if len(self.tables) == lanes else [*self.tables] * lanes
        return np.stack([np.stack([table[name] for table in rows], 1) for name in rows[0]], 1)


def numbers(lanes: Sequence[Lane], update: Updater, first: int, end: int) -> StepNumbers:
    """The numbers of ticks `first` to `end`."""
    tables: list[dict[str, Floats]] = []
    for lane in lanes:
        lane.multipliers.extend(end - lane.start)
        now = lane.multipliers.values[lane.step : end - lane.start]
        tables.append(update.coefficients(lane.trial.hyper, now, lane.past))
    return StepNumbers(first, tables)


def coefficients(program: Program, update: Updater, numbers: StepNumbers) -> Sequence[Coefficients]:
    """Per tick, as the update takes them: floats for one lane, `[K, 1]` tensors for several."""
    names = list(numbers.tables[0])
    if not program.stacked:
        columns = [numbers.tables[0][name].tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    array = numbers.stacked(max(len(numbers.tables), LEAST_ROWS))
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
