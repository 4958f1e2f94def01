"""Schedules composed: a function of `schedule_functions.py`, or of a user's module, behind a warm-up.

Step k of warm-up has the fraction (k + 1)/W of the way to the peak.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np

from optsweep.checks import Check, of_type
from optsweep.imported import imported
from optsweep.optim import schedule_functions
from optsweep.optim.schedule_functions import DECLARED, WARMUP, Floats, Steps, Traits

Option = float | int | str | bool | None | Sequence[float]

MOST_EVALUATIONS = 1000
"""Beyond these, no schedule that listens is expected to act."""

_ARGUMENTS = ("steps", "num_steps", "warmup_steps", "observed", "progress")
"""Arguments that composition supplies; all others are options."""


@cache
def _functions(*, warmups: bool) -> dict[str, Callable[..., Floats]]:
    """Functions of `schedule_functions` by name whose first argument marks them as a schedule or a warm-up."""
    first = "progress" if warmups else "steps"
    return {
        name.removeprefix(WARMUP) if warmups else name: function
        for name, function in inspect.getmembers(schedule_functions, inspect.isfunction)
        if function.__module__ == schedule_functions.__name__
        and not name.startswith("_")
        and next(iter(inspect.signature(function).parameters), None) == first
    }


@cache
def _schedule(name: str) -> Callable[..., Floats]:
    """The function of a schedule; a name with a dot is one of another module. Raises ValueError if there is none."""
    if "." not in name:
        if name not in schedule_names():
            raise ValueError(f"schedule={name} doesn't exist; there are {', '.join(schedule_names())}")
        return _functions(warmups=False)[name]
    function: Callable[..., Floats] = imported(name, "schedule._target_")
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = []
    if parameters[:2] != ["steps", "num_steps"]:
        raise ValueError(f"schedule._target_: {name} must be a function of (steps, num_steps, *, options)")
    return function


@cache
def _arguments(name: str) -> frozenset[str]:
    """Arguments of a schedule's function, options included."""
    return frozenset(inspect.signature(_schedule(name)).parameters)


def traits_of(name: str) -> Traits:
    """What is special about a schedule. Raises ValueError if there is none of that name."""
    return DECLARED.get(_schedule(name), Traits())


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


@cache
def _checks(name: str) -> Mapping[str, Check]:
    """The check of each option of a schedule: the one beside its annotation, or that the annotation's type holds."""
    function = _schedule(name)
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:  # a user's annotation that exists for type checkers only
        hints = {}

    def check(annotation: Any) -> Check:
        if get_origin(annotation) is Annotated and callable(get_args(annotation)[1]):
            stated: Check = get_args(annotation)[1]
            return stated
        return lambda key, value: of_type(key, value, annotation)

    return {option: check(hints[option]) for option in schedule_options(name) if option in hints}


@dataclass(frozen=True)
class Schedule:
    """A schedule behind a warm-up. Raises ValueError for a name, an option, a value or a combination that can't be."""

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
        checks = _checks(self.name)
        for option in self.options.keys() & checks.keys():
            checks[option](f"schedule.{option}", self.options[option])
        if self.traits.own_warmup and self.length:
            raise ValueError(f"warmup={self.warmup}: {self.name} has its own warm-up; give warmup=none")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup.steps must not be negative, and is {self.warmup_steps}")

    @property
    def traits(self) -> Traits:
        """What is special about it."""
        return traits_of(self.name)

    @property
    def length(self) -> int:
        """Steps of warm-up; 0 with none."""
        return 0 if self.warmup == "none" else self.warmup_steps

    @property
    def listens(self) -> bool:
        """Whether its multipliers depend on validation losses, so that every trial has its own."""
        return "observed" in _arguments(self.name)

    def multipliers(self, num_steps: int, upto: int, observed: Sequence[float] = ()) -> Floats:
        """Multipliers of steps 0 … upto − 1 of a run of `num_steps`, given the validation losses observed so far."""
        steps, length = np.arange(upto, dtype=np.int64), self.length
        if length > num_steps:
            raise ValueError(f"warmup.steps is {length}, longer than the run of {num_steps} steps")
        after = self._after(steps[length:] - length, num_steps - length, observed)
        if not length:
            return after
        rising = _functions(warmups=True)[self.warmup]((steps[:length] + 1) / length)
        return np.concatenate([rising, after])

    def _after(self, steps: Steps, num_steps: int, observed: Sequence[float]) -> Floats:
        """Multipliers after warm-up, of steps counted from its end."""
        supplied = {"warmup_steps": self.length, "observed": observed}
        wanted = {key: value for key, value in supplied.items() if key in _arguments(self.name)}
        return _schedule(self.name)(steps, num_steps, **self.options, **wanted)

    def patience(self, num_steps: int) -> int | None:
        """Evaluations without a new best after which it first changes the LR; None if it never does."""
        if not self.listens:
            return None
        last = np.array([num_steps - self.length - 1])
        unchanged = self._after(last, num_steps - self.length, ())
        for count in range(1, MOST_EVALUATIONS):
            if (self._after(last, num_steps - self.length, [1.0] * count) != unchanged).any():
                return count
        return None

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
        if self.traits.falls_at_steps and (multipliers[self.length :] == 1).all():
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
        """Compute up to step `end` (exclusive) at least: all at once unless later ones depend on observations."""
        begin = len(self.values)
        if end > begin:
            upto = end if self.schedule.listens else max(end, self.num_steps)
            more = self.schedule.multipliers(self.num_steps, upto, self.observed)[begin:]
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
