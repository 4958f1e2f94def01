"""The search space of an arm: which hyperparameters are searched, in which range, and from which source it comes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import optuna


@dataclass(frozen=True)
class Range:
    """The values to search for one hyperparameter."""

    low: float
    high: float
    log: bool = True
    source: str = ""

    def at(self, unit: float) -> float:
        """The value at `unit` in [0, 1), equally dense per decade on a log scale."""
        if self.log:
            return math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        return self.low + unit * (self.high - self.low)

    def including(self, value: float) -> Range:
        """The range, widened to hold `value`."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def distribution(self) -> optuna.distributions.FloatDistribution:
        """The range as Optuna has it."""
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Space:
    """Searched ranges and fixed values; together they are all float hyperparameters of the arm."""

    ranges: Mapping[str, Range]
    fixed: Mapping[str, float] = field(default_factory=dict)

    def hyper(self, params: Mapping[str, float]) -> dict[str, float]:
        """All hyperparameters of a trial with searched values `params`."""
        return {**self.fixed, **params}
