"""A trial in training: its own first tick, its own schedule, data and numbers, and when and how it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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


@dataclass
class Lane:
    """A trial whose step is the loop's tick less `start`; `rungs` are the steps at which it is still to be evaluated.

    A lane is `padding` if it only fills the vmapped path up to two, and nobody hears of it.
    """

    trial: Trial
    multipliers: Multipliers
    rungs: list[int]
    start: int = 0
    padding: bool = False
    initial_loss: float = math.nan
    best_loss: float = math.inf
    spread: float = 0.0  # of the samples' losses before the first step, for a task without a floor
    step: int = 0
    train_seconds: float = 0.0
    past: Past = BEGINNING  # the steps that it has numbers for
    before: Past = BEGINNING  # those before its last numbers
    last: Coefficients = field(default_factory=dict)  # of the last step
    points: list[Point] = field(default_factory=list)  # since the last rung

    @property
    def next_tick(self) -> int:
        """The tick of its next rung."""
        return self.start + self.rungs[0]

    def shadow(self) -> Lane:
        """A lane that does the same, as padding."""
        return replace(self, padding=True, multipliers=self.multipliers.copy(), rungs=list(self.rungs), points=[])

    def state(self, *, past: Past) -> dict[str, Any]:
        """What goes on with it, as plain data; the numbers of the steps after `past` are computed again."""
        numbers = {name: vars(self)[name] for name in _NUMBERS}
        return {
            **numbers,
            "rungs": list(self.rungs),
            "observed": list(
                self.multipliers.observed
            ),  # of which, and the step, the coming multipliers are a function
            "past": [past.steps, past.largest, past.total],
            "last": dict(self.last),
            "points": [list(vars(point).values()) for point in self.points],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state` has kept."""
        for name in _NUMBERS:
            setattr(self, name, saved[name])
        schedule, num_steps = self.multipliers.schedule, self.multipliers.num_steps
        observed = {"values": [], "observed": saved["observed"]}
        self.multipliers = Multipliers.restored(schedule, num_steps, observed)
        self.rungs, self.last = list(saved["rungs"]), dict(saved["last"])
        self.past = self.before = Past(*saved["past"])
        self.points = [Point(*numbers) for numbers in saved["points"]]

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


_NUMBERS = ("start", "initial_loss", "best_loss", "spread", "step", "train_seconds")
"""What else of a lane changes in training."""


def open_lane(program: Program, trial: Trial, start: int = 0) -> Lane:
    """A lane before its first step, at a rung of the others and a multiple of the update's period."""
    return Lane(trial, program.schedule.start(program.num_steps), [0, *program.rung_steps()], start)


def tables_of(lanes: Sequence[Lane], update: Updater, first: int, end: int) -> list[dict[str, Floats]]:
    """The numbers of ticks `first` to `end` of every lane, `[n]` each by name; the lanes have had them then."""
    tables: list[dict[str, Floats]] = []
    for lane in lanes:
        lane.multipliers.extend(end - lane.start)
        now = lane.multipliers.values[first - lane.start : end - lane.start]
        table = update.coefficients(lane.trial.hyper, now, lane.past)
        lane.before, lane.past = lane.past, lane.past.after(now)
        lane.last = {name: float(values[-1]) for name, values in table.items()}
        tables.append(table)
    return tables


def coefficients(
    program: Program, lanes: Sequence[Lane], update: Updater, first: int, end: int
) -> Sequence[Coefficients]:
    """The numbers of ticks `first` to `end`, per tick: floats for one lane, `[K, 1]` tensors for several."""
    tables = tables_of(lanes, update, first, end)
    names = list(tables[0])
    if not program.stacked:
        columns = [tables[0][name].tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    if update.host_coefficients:
        stacked = {name: np.stack([table[name] for table in tables], 1).tolist() for name in names}
        return [{name: stacked[name][i] for name in names} for i in range(end - first)]
    array = np.stack([np.stack([table[name] for table in tables], 1) for name in names], 1)  # [n, names, K]
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
