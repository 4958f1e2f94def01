"""The search space of an arm: which keys are searched, among which values, and from which source those come.

A key is a number of the lane (learning rate, decay, a rule's float: trials that differ in it train together), or a
choice of the program (batch size, precision, a task's option: a program is built for each combination).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

Value = float | int | str | bool | None
"""One value of a searched key; None is a choice like any other (`trainer.clip_norm: null`)."""

Params = Mapping[str, Value]
"""A setting: the searched keys with their values."""

Number = FloatDistribution | IntDistribution


class Scope(StrEnum):
    """What a searched key belongs to."""

    LANE = "lane"
    PROGRAM = "program"


@dataclass(frozen=True)
class Dimension:
    """The values to search for one key, as an Optuna distribution of any kind."""

    distribution: Number | CategoricalDistribution
    scope: Scope = Scope.LANE
    source: str = ""
    limits: tuple[float, float] | None = None  # between which a range of numbers may grow; None: it stays as it is

    @property
    def number(self) -> Number | None:
        """The distribution of a number; None for one of choices."""
        return None if isinstance(self.distribution, CategoricalDistribution) else self.distribution

    @property
    def choices(self) -> tuple[Value, ...]:
        """The values to choose from; none for a number."""
        return self.distribution.choices if isinstance(self.distribution, CategoricalDistribution) else ()

    @property
    def ends(self) -> tuple[Value, ...]:
        """What stands for all values: both ends of a range, or every choice."""
        found = self.number
        return self.choices if found is None else tuple(dict.fromkeys((found.low, found.high)))

    @property
    def content(self) -> list[Value]:
        """The values in plain numbers and strings, to compare and to store: [low, high, log], or the choices."""
        found = self.number
        return list(self.choices) if found is None else [found.low, found.high, found.log]

    def at(self, unit: float) -> Value:
        """The value at `unit` in [0, 1): equally dense per decade on a log scale, every choice alike."""
        found = self.number
        if found is None:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if isinstance(found, IntDistribution) and found.log:
            between = round(_between(found.low - 0.5, found.high + 0.5, unit, log=True))
            return min(max(between, found.low), found.high)
        if found.step is None:
            return _between(found.low, found.high, unit, log=found.log)
        count = round((found.high - found.low) / found.step) + 1
        return found.low + found.step * min(int(unit * count), count - 1)

    def including(self, value: Value) -> Dimension:
        """The dimension, a range widened to hold `value`; choices are what they are."""
        match self.distribution, value:
            case FloatDistribution(low=low, high=high, log=log, step=None), float() | int():
                return replace(self, distribution=FloatDistribution(min(low, value), max(high, value), log=log))
            case IntDistribution(low=low, high=high, log=log, step=1), int():
                return replace(self, distribution=IntDistribution(min(low, value), max(high, value), log=log))
        return self


def numbers(
    low: float,
    high: float,
    *,
    log: bool = True,
    whole: bool = False,
    scope: Scope = Scope.LANE,
    source: str = "",
    limits: tuple[float, float] | None = None,
) -> Dimension:
    """A range of numbers, ends included; `whole` ones only, where that is asked for."""
    distribution = IntDistribution(int(low), int(high), log=log) if whole else FloatDistribution(low, high, log=log)
    return Dimension(distribution, scope, source, limits)


def choices(values: Sequence[Value], *, scope: Scope = Scope.PROGRAM, source: str = "") -> Dimension:
    """Values to choose from, in no order."""
    return Dimension(CategoricalDistribution(values), scope, source)


@dataclass(frozen=True)
class Space:
    """Searched keys, and the float hyperparameters that are not searched."""

    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, float] = field(default_factory=dict)

    def hyper(self, params: Params) -> dict[str, float]:
        """All float hyperparameters of a trial with the setting `params`: what its lane trains with."""
        lane = {key: number_of(params, key) for key in params if self._scope(key) is Scope.LANE}
        return {**self.fixed, **lane}

    def values(self, params: Params) -> dict[str, Value]:
        """Everything that is said of a trial with the setting `params`."""
        return {**self.fixed, **params}

    def restored(self, stored: Params) -> dict[str, Value]:
        """A setting as trials have it from one that was stored, where whole numbers of a range became floats."""
        whole = {key for key, found in self.dimensions.items() if isinstance(found.distribution, IntDistribution)}
        return {key: int(number_of(stored, key)) if key in whole else value for key, value in stored.items()}

    def program_values(self, params: Params) -> dict[str, Value]:
        """The part of a setting that decides which program trains it."""
        return {key: value for key, value in params.items() if self._scope(key) is Scope.PROGRAM}

    @property
    def program(self) -> dict[str, Dimension]:
        """Searched choices of the program."""
        return {key: found for key, found in self.dimensions.items() if found.scope is Scope.PROGRAM}

    @property
    def first(self) -> dict[str, Value]:
        """The low end or the first choice of everything: a setting to stand for all."""
        return {key: found.ends[0] for key, found in self.dimensions.items()}

    def _scope(self, key: str) -> Scope:
        return self.dimensions[key].scope if key in self.dimensions else Scope.LANE


def number_of(params: Params, key: str) -> float:
    """A value that is a number. Raises TypeError for any other."""
    value = params[key]
    if not isinstance(value, (int, float)):
        raise TypeError(f"{key}={value!r} is no number")
    return value


def as_typed(value: Value) -> str:
    """A value as a command line has it, numbers in three digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _between(low: float, high: float, unit: float, *, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    return low + unit * (high - low)
