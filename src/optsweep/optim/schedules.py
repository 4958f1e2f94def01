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
from functools import cache
from importlib import import_module
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


def polynomial(steps: Steps, num_steps: int, *, power: float = 2.0, final: float = 0.0) -> Floats:
    """final + (1 − final)·(1 − p)^power."""
    return final + (1 - final) * (1 - _progress(steps, num_steps)) ** power


def exponential(steps: Steps, num_steps: int, *, final: float = 0.01, warmup_steps: int = 0) -> Floats:
    """final^(k/(T−1)), k the absolute step, warm-up included: a constant factor per step."""
    absolute = steps + warmup_steps
    return final ** (absolute / max(num_steps + warmup_steps - 1, 1))


def step(
    steps: Steps, num_steps: int, *, step_size: float = 1 / 3, gamma: float = 0.1, warmup_steps: int = 0
) -> Floats:
    """gamma^⌊k/step_size⌋, k the absolute step; a `step_size` below 1 is a fraction of the run."""
    total = num_steps + warmup_steps
    return gamma ** np.floor((steps + warmup_steps) / _in_steps(step_size, total))


def multi_step(
    steps: Steps,
    num_steps: int,
    *,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    warmup_steps: int = 0,
) -> Floats:
    """gamma^(milestones reached), by the absolute step; milestones below 1 are fractions of the run."""
    reached = sorted(_in_steps(milestone, num_steps + warmup_steps) for milestone in milestones)
    return gamma ** np.searchsorted(reached, steps + warmup_steps, side="right").astype(np.float64)


def cosine_restarts(
    steps: Steps, num_steps: int, *, first: float = 0.25, factor: float = 1.0, final: float = 0.0
) -> Floats:
    """Cosine cycles of `first` steps (below 1: a fraction), each `factor` times the one before (arXiv 1608.03983).

    A cycle begins at 1 and comes near `final` without reaching it, as SGDR and torch have it; where the run ends with
    a cycle, its last step is at `final` exactly. Raises ValueError if the first cycle is longer than the run.
    """
    if first <= 0:
        raise ValueError(f"schedule.first is {first:g}; give a number of steps, or a fraction of the run")
    length = max(1.0, first * num_steps) if first < 1 else float(first)
    if length > num_steps:
        raise ValueError(f"schedule.first is {length:g} steps, longer than the {num_steps} there are after warm-up")
    if factor < 1:
        raise ValueError(f"schedule.factor must be 1 or more, not {factor:g}")
    begins, lengths = [0.0], [length]  # not rounded: a quarter of the run, four times, is the run
    while begins[-1] + lengths[-1] < num_steps - 1e-6:
        begins.append(begins[-1] + lengths[-1])
        lengths.append(lengths[-1] * factor)
    cycle = np.searchsorted(np.array(begins) - 1e-6, steps, side="right") - 1
    progress = np.clip((steps - np.array(begins)[cycle]) / np.array(lengths)[cycle], 0, 1)
    multipliers = final + (1 - final) * 0.5 * (1 + np.cos(np.pi * progress))
    whole = abs(begins[-1] + lengths[-1] - num_steps) < 1e-6
    return np.where(whole & (steps == num_steps - 1), final, multipliers)


def one_cycle(
    steps: Steps,
    num_steps: int,
    *,
    rise: float = 0.3,
    start: float = 0.04,
    final: float = 4e-6,
    anneal: str = "cosine",
) -> Floats:
    """From `start` up to 1 in the share `rise` of the run, then down to `final` (Smith & Topin 2017, arXiv 1708.07120).

    `anneal` is cosine or linear, for both ways. Defaults as torch's (1/25, and 1/25/10⁴); momentum isn't cycled. It has
    its own warm-up, so another is refused.
    """
    if anneal not in ("cosine", "linear"):
        raise ValueError(f"schedule.anneal must be cosine or linear, not {anneal!r}")
    if not 0 < rise < 1:
        raise ValueError(f"schedule.rise must be between 0 and 1, not {rise:g}")
    top, last = max(rise * num_steps - 1, 0.0), max(num_steps - 1, 1)
    up = np.clip(steps / top, 0, 1) if top > 0 else np.ones(len(steps))
    down = np.clip((steps - top) / (last - top), 0, 1)
    if anneal == "cosine":
        up, down = 0.5 * (1 - np.cos(np.pi * up)), 0.5 * (1 - np.cos(np.pi * down))
    return np.where(steps <= top, start + (1 - start) * up, 1 + (final - 1) * down)


def inverse_sqrt(steps: Steps, num_steps: int, *, time_scale: float | None = None, warmup_steps: int = 0) -> Floats:
    """√(s/(s + k − W)): 1 at the end of warm-up (Vaswani et al. 2017, arXiv 1706.03762).

    The time scale s is the length of warm-up unless given, in steps or, below 1, as a fraction of the run. Raises
    ValueError where there is neither.
    """
    scale = float(warmup_steps) if time_scale is None else _in_steps(time_scale, num_steps + warmup_steps)
    if not scale:
        raise ValueError("schedule=inverse_sqrt without warm-up needs schedule.time_scale, in steps")
    multipliers: Floats = np.sqrt(scale / (scale + steps))
    return multipliers


def wsd(steps: Steps, num_steps: int, *, cooldown: float = 0.2, shape: str = "sqrt", final: float = 0.0) -> Floats:
    """Warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395): 1, then down in the last `cooldown` of the run.

    `cooldown` is a share of the steps after warm-up, or a number of them; `shape` is sqrt, 1 − √x (Hägele et al. 2024,
    arXiv 2405.18392), or linear. The cooldown's first step is below 1 already, its last is `final`.
    """
    if shape not in ("sqrt", "linear"):
        raise ValueError(f"schedule.shape must be sqrt or linear, not {shape!r}")
    length = min(_in_steps(cooldown, num_steps), num_steps)
    x = np.clip((steps - (num_steps - length) + 1) / length, 0, 1)
    lost: Floats = np.sqrt(x) if shape == "sqrt" else x
    return 1 - (1 - final) * lost


def plateau(
    steps: Steps,
    num_steps: int,
    *,
    factor: float = 0.1,
    patience: int = 2,
    threshold: float = 1e-4,
    cooldown: int = 0,
    final: float = 0.0,
    observed: Sequence[float] = (),
) -> Floats:
    """Times `factor` after more than `patience` evaluations in a row without a new best, never below `final`.

    As torch.optim.lr_scheduler.ReduceLROnPlateau: a best is below (1 − threshold) × the old one, evaluations during the
    `cooldown` after a reduction don't count as bad. The deck's slide reduces at `patience` already.
    """
    multiplier, best, bad, cooling = 1.0, np.inf, 0, 0
    for value in observed:
        if value < best * (1 - threshold):
            best, bad = value, 0
        else:
            bad += 1
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            multiplier, cooling, bad = max(multiplier * factor, final), cooldown, 0
    return np.full(len(steps), multiplier)


def _in_steps(value: float, total: int) -> float:
    """A number of steps; below 1 it is a fraction of `total`, at least one step."""
    if value <= 0:
        raise ValueError(f"a length in the schedule is {value:g}; give a number of steps, or a fraction of the run")
    return max(1.0, float(round(value * total))) if value < 1 else float(value)


def _progress(steps: Steps, num_steps: int) -> Floats:
    """0 at the first step, 1 at the last; 0 where there is only one."""
    return steps / max(num_steps - 1, 1)


# -- warm-ups: from the fraction p of the way, (k + 1)/W, to a multiplier ----------------------------------------------


def warmup_linear(progress: Floats) -> Floats:
    """p (Goyal et al. 2017, arXiv 1706.02677)."""
    return progress


def warmup_cosine(progress: Floats) -> Floats:
    """½(1 − cos πp)."""
    return 0.5 * (1 - np.cos(np.pi * progress))


def warmup_exponential(progress: Floats) -> Floats:
    """0.01^(1 − p): a constant factor per step, over two orders of magnitude."""
    return 0.01 ** (1 - progress)


WARMUP = "warmup_"
"""Prefix of the functions that are warm-ups, by the names in conf/warmup/."""


# -- composition -------------------------------------------------------------------------------------------------------

_ARGUMENTS = ("steps", "num_steps", "warmup_steps", "observed", "progress")
"""Arguments that composition supplies; all others are options."""


@cache
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


@cache
def _schedule(name: str) -> Callable[..., Floats]:
    """The function of a schedule; a name with a dot is one of another module. Raises ValueError if there is none."""
    module, _, attribute = name.rpartition(".")
    if not module:
        if name not in schedule_names():
            raise ValueError(f"schedule={name} doesn't exist; there are {', '.join(schedule_names())}")
        return _functions(warmups=False)[name]
    try:
        function: Callable[..., Floats] = getattr(import_module(module), attribute)
        parameters = list(inspect.signature(function).parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"schedule._target_: {name!r} can't be imported ({error})") from None
    if parameters[:2] != ["steps", "num_steps"]:
        raise ValueError(f"schedule._target_: {name} must be a function of (steps, num_steps, *, options)")
    return function


def schedule_names() -> list[str]:
    """Every schedule, by the names in conf/schedule/."""
    return sorted(_functions(warmups=False))


def warmup_names() -> list[str]:
    """Every warm-up, by the names in conf/warmup/."""
    return sorted(["none", *_functions(warmups=True)])


def schedule_options(name: str) -> dict[str, Any]:
    """Options of a schedule with their defaults."""
    parameters = inspect.signature(_schedule(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in _ARGUMENTS}


@dataclass(frozen=True)
class Schedule:
    """A schedule behind a warm-up. Raises ValueError for a name, an option or a combination that doesn't exist."""

    name: str = "constant"  # of a function above, or the dotted path of one elsewhere
    options: Mapping[str, Option] = field(default_factory=dict)
    warmup: str = "none"
    warmup_steps: int = 0  # optimizer steps

    def __post_init__(self) -> None:
        if self.warmup not in warmup_names():
            raise ValueError(f"warmup={self.warmup} doesn't exist; there are {', '.join(warmup_names())}")
        known = schedule_options(self.name)
        if unknown := sorted(self.options.keys() - known.keys()):
            allowed = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"schedule.{unknown[0]} is no option of schedule={self.name}; {allowed}")
        if self.name == "one_cycle" and self.length:
            raise ValueError(f"warmup={self.warmup}: one_cycle has its own warm-up; give warmup=none")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup.steps must not be negative, and is {self.warmup_steps}")

    @property
    def length(self) -> int:
        """Steps of warm-up; 0 with none."""
        return 0 if self.warmup == "none" else self.warmup_steps

    @property
    def listens(self) -> bool:
        """Whether its multipliers depend on validation losses, so that every trial has its own."""
        return "observed" in inspect.signature(_schedule(self.name)).parameters

    def multipliers(self, num_steps: int, upto: int, observed: Sequence[float] = ()) -> Floats:
        """Multipliers of steps 0 … upto − 1 of a run of `num_steps`, given the validation losses observed so far."""
        steps, length = np.arange(upto, dtype=np.int64), self.length
        if length > num_steps:
            raise ValueError(f"warmup.steps is {length}, longer than the run of {num_steps} steps")
        function = _schedule(self.name)
        supplied = {"warmup_steps": length, "observed": observed}
        wanted = {k: v for k, v in supplied.items() if k in inspect.signature(function).parameters}
        after = function(steps[length:] - length, num_steps - length, **self.options, **wanted)
        if not length:
            return after
        rising = _functions(warmups=True)[self.warmup]((steps[:length] + 1) / length)
        return np.concatenate([rising, after])

    def notes(self, num_steps: int) -> list[str]:
        """What a user should know about the schedule in a run of `num_steps`. Raises ValueError if it can't be."""
        try:
            multipliers = self.multipliers(num_steps, num_steps)
        except TypeError as error:
            raise ValueError(f"schedule={self.name}: an option has the wrong type ({error})") from None
        if not (np.isfinite(multipliers).all() and (multipliers >= 0).all() and multipliers.any()):
            raise ValueError(
                f"schedule={self.name}: with these options the LR is negative, zero throughout or infinite"
            )
        if self.name in ("step", "multi_step") and (multipliers[self.length :] == 1).all():
            return [
                f"schedule={self.name} never reduces the LR in {num_steps} steps; give fractions of the run instead"
            ]
        return []

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
