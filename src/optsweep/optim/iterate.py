"""How parameters move along a rule's direction, and which weights one would ship.

`Last` is plain descent. `ScheduleFree` (schedule_free.py) and the averages move the same way or another and ship an
average. An iterate is composed around any rule by `update.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.rule import Coefficients, Domain, Floats, Rule, State, add_scaled


@dataclass(frozen=True)
class Past:
    """What the numbers of a step depend on of the steps before it: how many, and the multipliers' weight in an average.

    A step's weight is the square of the largest multiplier so far.
    """

    steps: int = 0
    largest: float = 0.0
    total: float = 0.0

    def weights(self, multipliers: Floats) -> tuple[Floats, Floats]:
        """The weight of each of the next steps, and the sum of all weights up to and with it."""
        largest: Floats = np.maximum.accumulate(np.concatenate([[self.largest], multipliers]))[1:]
        return largest**2, np.cumsum(np.concatenate([[self.total], largest**2]))[1:]

    def after(self, multipliers: Floats) -> Past:
        """The past after these steps, to the last bit the same however they are cut."""
        if not len(multipliers):
            return self
        total = float(self.weights(multipliers)[1][-1])
        return Past(self.steps + len(multipliers), max(self.largest, float(multipliers.max())), total)


BEGINNING = Past()


class Iterate(ABC):
    """Strategy for the last stage of an update."""

    floats: ClassVar[Mapping[str, Domain]] = {}
    """Float hyperparameters by name: one value per lane, searchable."""

    replaces_momentum: ClassVar[str | None] = None
    """The float that takes the place of the rule's momentum, which is then off; None where the rule keeps its own."""

    period: int = 1
    """Steps after which the iterate's own rhythm repeats; lanes start at multiples of it."""

    def prepare(self, rule: Rule) -> Rule:
        """The rule as this iterate runs it."""
        return rule.without_momentum() if self.replaces_momentum and rule.has_momentum else rule

    def init(self, params: Tensor) -> State:
        """State beside the rule's."""
        return {}

    @abstractmethod
    def coefficients(
        self, hyper: Mapping[str, float], lr: Floats, decay: Floats, multipliers: Floats, past: Past
    ) -> dict[str, Floats]:
        """Numbers for `advance` of the steps after `past`: their LRs, the shares of a weight that decay takes, and the
        schedule's multipliers."""

    def base(self, params: Tensor, state: State) -> Tensor:
        """The parameters that the rule sees as its own."""
        return params

    def decaying(self, params: Tensor, state: State) -> Tensor:
        """The parameters that decay is taken of where it is part of the direction; `advance` does it otherwise."""
        return params

    def kind(self, tick: int) -> Hashable | None:
        """What kind of step the loop's `tick` is, as `Rule.kind` has it."""
        return 0 if self.period == 1 else None

    @abstractmethod
    def advance(
        self, params: Tensor, state: State, direction: Tensor, decayed: int, c: Coefficients, tick: int
    ) -> None:
        """Move along −LR × direction, and let decay shrink the first `decayed` elements of each row."""

    def weights(self, params: Tensor, state: State, c: Coefficients) -> Tensor:
        """The weights to evaluate and ship, out of place where they are not `params` itself."""
        return params


class Last(Iterate):
    """θ ← θ − η·direction − decay·θ, and the last θ is what one ships."""

    def coefficients(
        self, hyper: Mapping[str, float], lr: Floats, decay: Floats, multipliers: Floats, past: Past
    ) -> dict[str, Floats]:
        """−η and 1 − decay."""
        return {"-lr": -lr, "keep": 1 - decay}

    def advance(
        self, params: Tensor, state: State, direction: Tensor, decayed: int, c: Coefficients, tick: int
    ) -> None:
        """Decay first: `direction` was taken before, so the order changes nothing but rounding, and torch's is this."""
        if decayed:
            params[:, :decayed].mul_(c["keep"])
        add_scaled(params, direction, c["-lr"])

    def advance_parts(
        self, params: Tensor, parts: list[Tensor], directions: list[Tensor], decayed: int, c: Coefficients
    ) -> None:
        """As `advance` with one lane, where the direction lies in pieces as `parts` of the row do."""
        if decayed:
            params[:, :decayed].mul_(c["keep"])
        torch._foreach_add_(parts, directions, alpha=float(c["-lr"]))
