"""What an optimizer is here: a pure rule from gradients to a direction.

A rule is written once and runs for one trial or for many: parameters, gradients and state lie in rows `[K, P]`, K being
the number of lanes. Every number that a rule uses comes to it as a coefficient, computed in float64 on the host by
`coefficients`: a plain float with one lane, a `[K, 1]` tensor with several. So nothing is synchronised per step, a
hyperparameter may differ from lane to lane, and bias corrections have no float32 rounding.

A rule keeps nothing: its layout comes with every call and its state goes with the rows, so one object serves any number
of models and lanes, in any order. What it derives from a layout (spans, batches of matrices) is a pure function of the
layout, remembered outside the rule.

Around a rule, and no part of it: clipping, weight decay, the learning rate (`update.py`) and averaging.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from optsweep.optim.layout import Layout

State = dict[str, Tensor]
"""Named state tensors; the first dimension of each is the lane."""

Coefficient = float | Tensor
"""A number of one step: a float for one lane, `[K, 1]` for K lanes."""

Coefficients = Mapping[str, Coefficient]
Static = bool | int | float | str | None
"""A static option: part of the arm, the same in all lanes."""

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Domain:
    """The values that a float hyperparameter may take: low ≤ value < high (or ≤ high if `closed`)."""

    low: float
    high: float
    default: float
    closed: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value < self.high or (self.closed and value == self.high)

    def __str__(self) -> str:
        return f"{self.low:g} ≤ value {'≤' if self.closed else '<'} {self.high:g}"


UNIT = (0.0, 1.0)
EPS = Domain(0.0, 1.0, 1e-8)


class Rule(ABC):
    """An update rule. Subclasses take their static options (bool, str, int, None) in the constructor.

    What is special about one is declared in the attributes below; nobody asks for its name.
    """

    floats: ClassVar[Mapping[str, Domain]] = {}
    """Float hyperparameters by name: one value per lane, searchable."""

    momentum_floats: ClassVar[frozenset[str]] = frozenset()
    """Those of `floats` that mean nothing once momentum is off."""

    refused_decays: ClassVar[Mapping[str, str]] = {}
    """Modes of weight decay that it isn't defined with, each with the reason and what to give instead."""

    has_momentum: bool = False
    """Whether the rule keeps a first moment that schedule-free takes the place of."""

    decays_inside: ClassVar[bool] = False
    """Whether `decoupled` decay is part of the direction (LAMB): λθ is then added between `update` and `rescale`."""

    by_role: ClassVar[bool] = False
    """Whether it treats parameters by their role in the model, which their shape doesn't tell."""

    gives_gradient: ClassVar[bool] = False
    """Whether its direction is the gradient as it comes. Whoever overrides how it is made states it anew."""

    period: int = 1
    """Steps after which the rule's own rhythm repeats (SOAP's refresh); lanes start at multiples of it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """What was said of another direction doesn't hold for this one."""
        super().__init_subclass__(**kwargs)
        if {"update", "rescale"} & vars(cls).keys() and "gives_gradient" not in vars(cls):
            cls.gives_gradient = False

    @property
    def algorithm(self) -> str:
        """Its name; classes that are one algorithm share it."""
        return type(self).__qualname__

    @property
    def effective_floats(self) -> frozenset[str]:
        """Those of `floats` that have an effect."""
        return frozenset(self.floats) - (frozenset() if self.has_momentum else self.momentum_floats)

    def parts(self) -> Mapping[str, Rule]:
        """The rules that it is made of, by label."""
        return {}

    def identity(self) -> dict[str, Static]:
        """What tells it from other rules, flat: its algorithm and static options, and those of its parts."""
        own = {key: value for key, value in vars(self).items() if isinstance(value, Static)}
        identity = {"rule": self.algorithm, "has_momentum": self.has_momentum, **own}
        for label, part in self.parts().items():
            identity |= {f"{label}.{key}": value for key, value in part.identity().items()}
        return identity

    def without_momentum(self) -> Rule:
        """The rule with its first moment switched off and not stored, as schedule-free runs it."""
        other = copy.copy(self)
        other.has_momentum = False
        return other

    def notes(self, layout: Layout) -> list[str]:
        """What a user should know about the rule on this model, a line each. Raises ValueError if it makes no sense."""
        return []

    def pieces(self, state: State, layout: Layout) -> dict[str, State]:
        """Of a single lane's state, each parameter's part: views, under names that don't depend on the layout.

        Here every state tensor is taken to be a row, or rows, like the parameters.
        """
        result: dict[str, State] = {slot.name: {} for slot in layout.slots}
        for key, tensor in state.items():
            if tensor.shape[-1] != layout.size:
                raise ValueError(
                    f"{self.algorithm}: state {key!r} is no row, so the rule has to say whose it is: pieces()"
                )
            for name, view in layout.views(tensor[0]):
                result[name][key] = view
        return result

    @abstractmethod
    def init(self, params: Tensor, layout: Layout) -> State:
        """State for parameters `[K, P]` laid out by `layout`; the rule itself stays as it is."""

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """Every number `update` uses at the given 0-based steps, in float64, each an array like `steps` or a scalar."""
        return {name: np.full(len(steps), hyper[name]) for name in self.floats}

    def kind(self, tick: int) -> Hashable | None:
        """What kind of step the loop's `tick` is: all of one kind do the same, so one can be recorded and repeated.

        None: the step stands alone, as all do of a rule with a `period` that doesn't tell its kinds here.
        """
        return 0 if self.period == 1 else None

    def idle(self, steps: Steps) -> NDArray[np.bool_]:
        """At which of the given steps the parameters stay as they are, decay included."""
        return np.zeros(len(steps), dtype=np.bool_)

    @abstractmethod
    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """Direction `[K, P]`, to be multiplied by −LR; updates `state` in place and may return a state tensor.

        `tick` counts the loop's steps; it equals each lane's own step modulo `period`. A rule that `decays_inside`
        returns a new tensor.
        """

    def rescale(self, direction: Tensor, params: Tensor, layout: Layout) -> Tensor:
        """The direction as a whole, decay inside it included, brought to scale; may be done in place."""
        return direction


def per_matrix(coefficient: Coefficient) -> Coefficient:
    """A coefficient shaped to broadcast over `[K, count, rows, columns]`."""
    return coefficient.view(-1, 1, 1, 1) if isinstance(coefficient, Tensor) else coefficient


def add_scaled(target: Tensor, tensor: Tensor, scale: Coefficient) -> None:
    """target += scale × tensor, in place, in one kernel whether `scale` is a float or one value per lane."""
    if isinstance(scale, Tensor):
        target.addcmul_(tensor, scale)
    else:
        target.add_(tensor, alpha=scale)
