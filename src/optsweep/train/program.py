"""What an arm trains, as objects: everything that its trials share. A trial adds numbers and a seed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import torch
from torch import nn

from optsweep.groups import Grouped, grouped
from optsweep.optim.layout import Layout, Role, parameter_roles
from optsweep.optim.schedules import Schedule
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Task
from optsweep.train.forward import Forward, Precision
from optsweep.train.process import deterministic
from optsweep.train.shares import check_shares
from optsweep.train.traits import ModelTraits, construct, traits_of

LARGE = 10_000_000
"""Parameters from which a model's step takes a GPU longer than Python takes to launch it."""

WORTH_COMPILING = 1000
"""Steps of such a model from which torch.compile takes less than it saves."""


@dataclass(frozen=True)
class Program:
    """An arm ready to train. Raises UserError, in one line, once it is asked about a model that can't be trained."""

    task: Task
    build_update: Callable[[Layout], Updater]
    schedule: Schedule
    num_steps: int
    batch_size: int
    num_rungs: int = 20
    log_every: int = 10  # steps between logged points of training loss, LR and norms
    accumulate: int = 1  # micro-batches per step
    ranks: int = 1  # processes that train one trial together, each its share of every micro-batch
    decay_all: bool = False
    precision: Precision = "fp32"
    vmapped: bool = False  # lanes under vmap, of which there are then always two or more, if the model can
    divergence_factor: float = (
        2.0  # a validation loss this many times as far above its floor as the initial one ends a trial
    )
    eval_batch_size: int = 64
    deterministic: bool = False  # deterministic algorithms and no TF32, or an error
    compile: bool | str = "auto"  # on a GPU: torch.compile, or "auto", where it pays; False: nor recorded steps
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def model(self, seed: int) -> nn.Module:
        """The task's model, built from `seed`; everything global in the process is left as it was."""
        return construct(self.task, seed, self.device).module

    @cached_property
    def traits(self) -> ModelTraits:
        """What kind of model it is, found by trying it."""
        with deterministic(self.deterministic):
            found = traits_of(
                self.task,
                self.device,
                precision=self.precision,
                batch_size=self.batch_size // self.accumulate,
                lanes=self.vmapped,
            )
            if self.ranks > 1:
                check_shares(self, found)
            return found

    def knowing(self, traits: ModelTraits) -> Program:
        """The program, which takes these for its model's instead of trying it again."""
        vars(self)["traits"] = traits  # where cached_property would put them
        return self

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the model's parameters."""
        return self.traits.dtype

    @cached_property
    def stacked(self) -> bool:
        """Whether trials train in lanes: that was wanted, and the model can."""
        return self.vmapped and not self.traits.alone

    @cached_property
    def large(self) -> bool:
        """Whether a step keeps a GPU busy by itself."""
        return self.num_parameters >= LARGE

    @cached_property
    def resident(self) -> bool:
        """Whether the numbers of steps lie on the device: on a GPU, where all steps are one process's same calls."""
        resident = self.device.type == "cuda" and self.compile is not False and self.ranks == 1
        return resident and not self.traits.unlike  # which takes a try of the model

    @property
    def compiled(self) -> bool:
        """Whether model and update go through torch.compile."""
        return self.resident and (self.compile is True or (self.large and self.num_steps >= WORTH_COMPILING))

    @property
    def execution(self) -> Mapping[str, str]:
        """What decides the last bits of its numbers, of how steps are computed; nothing on a CPU."""
        return {"computed": "by torch.compile" if self.compiled else "from resident numbers"} if self.resident else {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about this model, a line each."""
        return self.traits.notes

    @cached_property
    def forward(self) -> Forward:
        """How the model is called."""
        return Forward(self.task, self.device, self.dtype, self.precision, self.stacked)

    @cached_property
    def layout(self) -> Layout:
        """Layout of the row that every trial begins with: the parameters that get a gradient from the first batch.

        torch.optim skips a parameter without gradient; in the row it would still decay, so it is a row of its own, or
        in lanes, where nothing can change its lot, left out.
        """
        return self.layout_without(self.traits.missing)

    def layout_without(self, names: Collection[str]) -> Layout:
        """Layout of the trainable parameters but these, each tied one once; empty if these are all."""
        kept = {name: role for name, role in self._roles.items() if name not in names}
        groups = self._groups
        return Layout.build(
            {name: self._shapes[name] for name in kept},
            kept,
            decay_all=self.decay_all,
            undecayed={name for name, group in groups.items() if not group.decays},
            factors={name: group.lr_factor for name, group in groups.items()},
        )

    def layout_of_one(self, name: str) -> Layout:
        """Layout of a single parameter."""
        return self.layout_without(self._roles.keys() - {name})

    @cached_property
    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(prod(self._shapes[name]) for name in self._roles)

    @cached_property
    def _groups(self) -> Mapping[str, Grouped]:
        return grouped(self._roles, self.task.groups)

    @cached_property
    def _roles(self) -> dict[str, Role]:
        return parameter_roles(self.model(0), self.task.head_modules)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in self.model(0).named_parameters()}

    def rung_steps(self) -> list[int]:
        """Steps after which a trial is evaluated: about `num_rungs`, the last step; the same whatever the rule."""
        return rung_steps(self.num_steps, self.num_rungs)


def rung_steps(num_steps: int, num_rungs: int) -> list[int]:
    """About `num_rungs` steps at equal distances, the last one included."""
    stride = max(1, round(num_steps / num_rungs))
    steps = list(range(stride, num_steps, stride))
    if steps and num_steps - steps[-1] < stride / 2:
        steps.pop()  # rather one longer rung than a last one too short to tell anything
    return [*steps, num_steps]
