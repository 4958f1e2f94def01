"""Two steps of a user's loop before anything is written: whether it fits together, and what it is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from optsweep.errors import UserError, located
from optsweep.groups import Patterns, checked_groups
from optsweep.optim.composition import Composition
from optsweep.optim.layout import Role, parameter_roles
from optsweep.optim.sgd import SGD
from optsweep.tasks.base import Facts
from optsweep.tasks.pieces import facts_of_model
from optsweep.train.own.batches import Seen
from optsweep.train.own.faults import LoopError, TrialOver
from optsweep.train.own.optimizer import TrialOptimizer
from optsweep.train.own.report import Listener, Reported
from optsweep.train.own.running import RunningTrial
from optsweep.train.own.terms import Terms
from optsweep.train.probe import Probe, TensorFacts, norm_of_value, norms_of_module, tensors_of_module
from optsweep.train.process import isolated
from optsweep.train.randomness import seed_construction

if TYPE_CHECKING:
    from optsweep.train.own.loop import Loop

STEPS = 2
TINY = 1e-6
"""Learning rate of a rehearsal, whose optimizer is plain SGD: it asks what the loop does, not what an arm does."""


@dataclass(frozen=True)
class Rehearsed:
    """What has been seen."""

    start: Start
    loss: float  # on the validation data
    grad_norm: float  # of the first step
    metrics: tuple[str, ...]  # beside the loss
    tested: bool | None  # None: its end was not seen
    seen: Seen

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the trainable parameters."""
        return {tensor.name: tensor.shape for tensor in self.start.tensors if tensor.trained}

    @property
    def probe(self) -> Probe:
        """What identifies the loop, its model and its data."""
        return Probe(self.start.tensors, self.start.norms, self.seen.digest, self.loss, self.grad_norm)

    def notes(self, loop: Loop) -> Iterator[str]:
        """What a user should know, a line each."""
        if self.seen.batch_size not in (None, loop.batch_size):
            yield (
                f"task.batch_size: the loop's batches have {self.seen.batch_size} samples, and suggestions go by "
                f"{loop.batch_size}; build them with trial.batch_size, or give that number"
            )
        if not self.seen.digest:
            yield (
                "task.train: the loop's batches don't come by trial.batches(loader), so their order is its own "
                "affair, and a sweep that goes on doesn't notice other data but by the first gradient"
            )
        if len(self.metrics) > 1:
            yield f"task.metric: of {', '.join(self.metrics)} only {loop.metric} is kept"


def rehearse(loop: Loop, device: torch.device) -> Rehearsed:
    """Run two steps and one evaluation. Raises UserError."""
    heard: list[Reported] = []
    terms = Terms(
        steps=loop.steps,
        rungs=(STEPS,),
        hyper={"lr": TINY, "weight_decay": 0.0},
        seed=0,
        batch_size=loop.batch_size,
        device=device,
        test=True,
        stop_after=STEPS,
        rehearsal=True,
    )

    def listen(report: Reported) -> bool:
        heard.append(report)
        return False

    trial = _Rehearsal(terms, Composition(SGD()), listen)
    try:
        called(loop, trial)
        if trial.done < STEPS:
            raise LoopError(returned_early(loop, trial))
        if not heard:
            raise LoopError(
                f"{loop.place}: it never reports; call trial.report(val_loss=…) where trial.rung(step) is true"
            )
        _check(heard[-1], trial.tested, loop.declared)
    except LoopError as error:
        raise UserError(f"task.train: {located(error).replace('LoopError: ', '')}") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task.train: {located(error)}") from error
    return trial.shown(heard[-1])


def called(loop: Loop, trial: RunningTrial) -> None:
    """Run the loop to its end, whichever. Raises what it, or its trial, has raised."""
    with isolated(trial.device):
        seed_construction(trial.seed, trial.device)
        with contextlib.suppress(TrialOver):
            loop.run(trial)
    if trial.failure is not None:
        raise trial.failure


def returned_early(loop: Loop, trial: RunningTrial) -> str:
    """What to say of a loop that returned before its end."""
    if not trial.optimizers:
        return f"{loop.place}: it never asked for trial.optimizer(model), which is what is compared"
    return f"{loop.place}: it returned after {trial.done} of {trial.steps} steps; the budget is to be used up"


def _check(val: Reported, test: Reported | None, declared: str | None) -> None:
    """Raise LoopError for a loss that is no number, or a metric that isn't told."""
    if not math.isfinite(val.loss):
        raise LoopError(f"trial.report(): val_loss is {val.loss} after {STEPS} steps of a learning rate of {TINY:g}")
    metric = declared or next(iter(val.metrics), None)
    for call, said in (("trial.report()", val), ("trial.finish()", test)):
        if metric is not None and said is not None and metric not in said.metrics:
            raise LoopError(f"{call}: the metric {metric} is missing; there is {', '.join(said.metrics) or 'none'}")


class _Rehearsal(RunningTrial):
    """A trial that remembers how it began."""

    def __init__(self, terms: Terms, composition: Composition, listen: Listener) -> None:
        super().__init__(terms, composition, listen)
        self.start: Start | None = None
        self.grad_norm = math.nan

    def optimizer(self, model: nn.Module, **options: Any) -> TrialOptimizer:
        """Look at the first model."""
        made = super().optimizer(model, **options)
        if self.start is None:
            groups = checked_groups(options.get("groups"))
            self.start = Start.of(model, groups, tuple(options.get("heads", ())), self.batch_size)
        return made

    def _before_step(self, place: int, done: int) -> None:
        super()._before_step(place, done)
        if place == done == 0:
            squares = (norm_of_value(p.grad) ** 2 for p in self.models[0].parameters() if p.grad is not None)
            self.grad_norm = math.sqrt(sum(squares))

    def shown(self, report: Reported) -> Rehearsed:
        """What it has seen."""
        assert self.start is not None
        seen = self.seen or Seen("", None, None)
        tested = None if not self.finished else self.tested is not None
        return Rehearsed(self.start, report.loss, self.grad_norm, tuple(report.metrics), tested, seen)


@dataclass(frozen=True)
class Start:
    """The model that the loop asks an optimizer for, before it is trained."""

    tensors: tuple[TensorFacts, ...]
    norms: Mapping[str, float]
    roles: Mapping[str, Role]
    classes: tuple[type[nn.Module], ...]
    facts: Facts
    dtype: torch.dtype
    groups: Patterns  # of parameters, that its optimizer was given
    heads: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, groups: Patterns, heads: tuple[str, ...], batch_size: int) -> Start:
        """Look at it."""
        return cls(
            tensors_of_module(model),
            norms_of_module(model),
            parameter_roles(model, heads),
            tuple({type(module): None for module in model.modules()}),
            facts_of_model(model, batch_size),
            next(parameter.dtype for parameter in model.parameters() if parameter.requires_grad),
            groups,
            heads,
        )
