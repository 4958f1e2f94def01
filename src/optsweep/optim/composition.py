"""A rule and what is composed around it, apart from any parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import Layout, Role
from optsweep.optim.rule import Domain, Rule
from optsweep.optim.schedules import Schedule
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Separable


@dataclass(frozen=True)
class Composition:
    """What is the same for all parameters of an optimizer."""

    rule: Rule
    iterate: Iterate = field(default_factory=Last)
    decay: Decay = Decay.DECOUPLED
    decay_all: bool = False
    clip_norm: float | None = None
    schedule: Schedule | None = None  # None: whoever sets the learning rates is the schedule
    num_steps: int = 0  # of the schedule

    @property
    def floats(self) -> Mapping[str, Domain]:
        """Float hyperparameters beside lr and weight_decay."""
        return {**self.rule.floats, **self.iterate.floats}

    def update(self, layout: Layout, weight_decay: float) -> Separable:
        """The update of a row. It doesn't clip, which goes by the norm of all rows."""
        return Update(self.rule, layout, decay=self.decay if weight_decay else Decay.NONE, iterate=self.iterate)

    def layout(self, parameters: Sequence[Tensor], labels: Mapping[Tensor, Label]) -> Layout:
        """Of a row of these parameters."""
        shapes = {labels[parameter].name: tuple(parameter.shape) for parameter in parameters}
        roles = {labels[parameter].name: labels[parameter].role for parameter in parameters}
        return Layout.build(shapes, roles, decay_all=self.decay_all)


@dataclass(frozen=True)
class Label:
    """A parameter's name and role."""

    name: str
    role: Role
