"""Learning-rate schedules as pure functions of the step, warm-up as composition.

A schedule is a function `name(steps, num_steps, **options) -> multipliers` of the peak learning rate, float64. `steps`
counts from the end of warm-up (k − W) and `num_steps` is T − W, so the final multiplier is reached exactly at step
T − 1. A schedule that asks for `warmup_steps` or `observed` by naming it among its arguments gets it. Step k of warm-up
has the fraction (k + 1)/W of the way to the peak. Adding a schedule is one function here and one YAML.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
Option = float | int | str | bool | None | Sequence[float]


# -- schedules ---------------------------------------------------------------------------------------------------------


def constant(steps: Steps, num_steps: int) -> Floats:
    """1."""
    return np.ones(len(steps))


def schedule_free(steps: Steps, num_steps: int) -> Floats:
    """1: the averaging of Schedule-Free (optim/schedule_free.py) takes the place of a decay."""
    return np.ones(len(steps))


def linear(steps: Steps, num_steps: int, *, final: float = 0.0) -> Floats:
    """1 − (1 − final)·p, p the progress from 0 to 1."""
    return 1 - (1 - final) * _progress(steps, num_steps)


def cosine(steps: Steps, num_steps: int, *, final: float = 0.0) -> Floats:
    """final + (1 − final)·½(1 + cos πp) (Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts)."""
    return final + (1 - final) * 0.5 * (1 + np.cos(np.pi * _progress(steps, num_steps)))


def _progress(steps: Steps, num_steps: int) -> Floats:
    """0 at the first step, 1 at the last; 0 where there is only one."""
    return steps / max(num_steps - 1, 1)


# -- warm-ups: from the fraction p of the way, (k + 1)/W, to a multiplier ----------------------------------------------


def warmup_linear(progress: Floats) -> Floats:
    """p (Goyal et al. 2017, arXiv 1706.02677)."""
    return progress


WARMUP = "warmup_"
"""Prefix of the functions that are warm-ups, by the names in conf/warmup/."""


# -- composition -------------------------------------------------------------------------------------------------------

_ARGUMENTS = ("steps", "num_steps", "warmup_steps", "observed", "progress")
"""Arguments that composition supplies; all others are options."""


def _functions(*, warmups: bool) -> dict[str, Callable[..., Floats]]:
    """Functions of this module by name whose first argument marks them as a schedule or a warm-up."""
    first = "progress" if warmups else "steps"
    return {
        name.removeprefix(WARMUP) if warmups else name: function
        for name, function in inspect.getmembers(sys.modules[__name__], inspect.isfunction)
        if function.__module__ == __name__
        and not name.startswith("_")
        and next(iter(inspect.signature(function).parameters), None) == first
    }


def schedule_names() -> list[str]:
    """Every schedule, by the names in conf/schedule/."""
    return sorted(_functions(warmups=False))


def warmup_names() -> list[str]:
    """Every warm-up, by the names in conf/warmup/."""
    return sorted(["none", *_functions(warmups=True)])


def schedule_options(name: str) -> dict[str, Any]:
    """Options of a schedule with their defaults."""
    parameters = inspect.signature(_functions(warmups=False)[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in _ARGUMENTS}


@dataclass(frozen=True)
class Schedule:
    """A schedule behind a warm-up. Raises ValueError for a name, an option or a combination that doesn't exist."""

    name: str = "constant"
    options: Mapping[str, Option] = field(default_factory=dict)
    warmup: str = "none"
    warmup_steps: int = 0  # optimizer steps

    def __post_init__(self) -> None:
        for kind, name, names in (
            ("schedule", self.name, schedule_names()),
            ("warmup", self.warmup, warmup_names()),
        ):
            if name not in names:
                raise ValueError(f"{kind}={name} doesn't exist; there are {', '.join(names)}")
        known = schedule_options(self.name)
        if unknown := sorted(self.options.keys() - known.keys()):
            allowed = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"schedule.{unknown[0]} is no option of schedule={self.name}; {allowed}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup.steps must not be negative, and is {self.warmup_steps}")

    @property
    def length(self) -> int:
        """Steps of warm-up; 0 with none."""
        return 0 if self.warmup == "none" else self.warmup_steps

    def multipliers(self, num_steps: int, upto: int, observed: Sequence[float] = ()) -> Floats:
        """Multipliers of steps 0 … upto − 1 of a run of `num_steps`, given the validation losses observed so far."""
        steps, length = np.arange(upto, dtype=np.int64), self.length
        if length > num_steps:
            raise ValueError(f"warmup.steps is {length}, longer than the run of {num_steps} steps")
        function = _functions(warmups=False)[self.name]
        supplied = {"warmup_steps": length, "observed": observed}
        wanted = {k: v for k, v in supplied.items() if k in inspect.signature(function).parameters}
        after = function(steps[length:] - length, num_steps - length, **self.options, **wanted)
        if not length:
            return after
        rising = _functions(warmups=True)[self.warmup]((steps[:length] + 1) / length)
        return np.concatenate([rising, after])

    def start(self, num_steps: int) -> Multipliers:
        """The multipliers of one trial of `num_steps`, to be extended from rung to rung."""
        return Multipliers(self, num_steps)


class Multipliers:
    """One trial's multipliers so far. What was applied is never changed by what is observed later."""

    def __init__(self, schedule: Schedule, num_steps: int) -> None:
        self.schedule = schedule
        self.num_steps = num_steps
        self.values: Floats = np.empty(0)
        self.observed: list[float] = []

    def extend(self, end: int) -> None:
        """Compute up to step `end` (exclusive)."""
        begin = len(self.values)
        if end > begin:
            more = self.schedule.multipliers(self.num_steps, end, self.observed)[begin:]
            self.values = np.concatenate([self.values, more])

    def observe(self, value: float) -> None:
        """Take note of a validation loss; evaluations before the end of warm-up don't count."""
        if len(self.values) > self.schedule.length:
            self.observed.append(value)

    def copy(self) -> Multipliers:
        """An independent copy."""
        return Multipliers.restored(self.schedule, self.num_steps, self.state())

    def state(self) -> dict[str, list[float]]:
        """Everything a checkpoint needs, as JSON can hold it."""
        return {"values": self.values.tolist(), "observed": list(self.observed)}

    @classmethod
    def restored(cls, schedule: Schedule, num_steps: int, state: Mapping[str, Sequence[float]]) -> Multipliers:
        """Multipliers as `state` describes them."""
        multipliers = cls(schedule, num_steps)
        multipliers.values = np.array(state["values"], dtype=np.float64)
        multipliers.observed = list(state["observed"])
        return multipliers
