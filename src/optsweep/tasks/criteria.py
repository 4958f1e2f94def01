"""A loss and a metric as functions that a user has: what they want to see is declared by their parameters' names.

The first is what the model returned, or the model itself if it is called `model`; the second is the target, or the
whole batch if it is called `batch`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from optsweep.errors import UserError, located
from optsweep.tasks.meters import Means, Meter
from optsweep.tasks.nest import Nest, joined, mapped


@dataclass(frozen=True)
class Criterion:
    """A function of (outputs or model, targets or batch)."""

    function: Callable[[Any, Any], Any]
    of_model: bool
    of_batch: bool

    @staticmethod
    def of(key: str, function: Any) -> Criterion:
        """As its parameters' names declare. Raises UserError for what can't be called with two arguments."""
        if not callable(function):
            raise UserError(f"{key}: {type(function).__name__} is no function; give one of (outputs, targets)")
        names = _parameters(function)
        if names is not None and len(names) < 2:
            raise UserError(
                f"{key}: it takes {len(names)} argument{'s' * (len(names) != 1)}; give one of (outputs, targets), "
                f"(outputs, batch) or (model, batch)"
            )
        first, second = (names or ["outputs", "targets"])[:2]
        return Criterion(function, first == "model", second == "batch")

    @staticmethod
    def of_loss(function: Any) -> Criterion:
        """As `of`. Raises UserError for a loss with parameters of its own: only the model's are trained."""
        if isinstance(function, nn.Module):
            own = [name for name, parameter in function.named_parameters() if parameter.requires_grad]
            if own:
                raise UserError(
                    f"task.loss: {type(function).__name__} has parameters of its own ({own[0]}), and only the model's "
                    f"are trained; make it a part of the model, as model.loss, and give loss=f(model, batch); what is "
                    f"to stay as it is: requires_grad_(False)"
                )
        return Criterion.of("task.loss", function)

    def __call__(self, first: Any, targets: Nest, batch: Nest) -> Any:
        """Its value; `first` are outputs, or the model if it asks for that."""
        return self.function(first, batch if self.of_batch else targets)


def _parameters(function: Any) -> list[str] | None:
    """Names of the positional parameters; None where nobody can tell, or any number is taken."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()):
        return None
    return [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


class Metric(Protocol):
    """Which number of a split's evaluation stands beside the loss."""

    def kept(self, model: nn.Module, outputs: Callable[[], Nest], targets: Nest, batch: Nest) -> Nest:
        """What is to be known of a batch; may run under torch.func.vmap."""

    def meter(self, lanes: int, targets_of: Callable[[Nest], Nest], *, stacked: bool) -> Meter:
        """A new meter."""


@dataclass(frozen=True)
class PerBatch:
    """A metric of each batch, a scalar; over the split, their mean weighted by samples: right for means only.

    It keeps no outputs, so it is for those that are too large, such as a language model's.
    """

    criterion: Criterion

    def kept(self, model: nn.Module, outputs: Callable[[], Nest], targets: Nest, batch: Nest) -> Nest:
        """The metric of the batch."""
        value = self.criterion(model if self.criterion.of_model else outputs(), targets, batch)
        return value if isinstance(value, Tensor) else torch.tensor(float(value))

    def meter(self, lanes: int, targets_of: Callable[[Nest], Nest], *, stacked: bool) -> Meter:
        """Their mean."""
        return Means(lanes)


@runtime_checkable
class Accumulating(Protocol):
    """A metric object as torchmetrics has them."""

    def reset(self) -> Any:
        """Forget everything."""

    def update(self, outputs: Any, targets: Any, /) -> Any:
        """Take in a batch."""

    def compute(self) -> Any:
        """The metric of all of them."""


@dataclass(frozen=True)
class WholeSplit:
    """A metric of all outputs and targets of a split together, on the host; a function, or an accumulating object."""

    criterion: Criterion

    def kept(self, model: nn.Module, outputs: Callable[[], Nest], targets: Nest, batch: Nest) -> Nest:
        """The outputs."""
        return outputs()

    def meter(self, lanes: int, targets_of: Callable[[Nest], Nest], *, stacked: bool) -> Meter:
        """Gathers."""
        return _WholeSplit(self.criterion, lanes, targets_of, stacked=stacked)


class _WholeSplit:
    """All outputs and targets of a split."""

    def __init__(self, criterion: Criterion, lanes: int, targets_of: Callable[[Nest], Nest], *, stacked: bool) -> None:
        self.criterion, self.lanes, self.stacked = criterion, lanes, stacked
        self._targets_of: Callable[[Nest], Nest] = (lambda batch: batch) if criterion.of_batch else targets_of
        self._outputs: list[Nest] = []
        self._targets: list[Nest] = []

    def add(self, kept: Nest, batch: Nest, count: int) -> None:
        """Outputs, those of all lanes if they are stacked, and the batch."""
        self._outputs.append(mapped(_on_host, kept))
        self._targets.append(mapped(_on_host, self._targets_of(batch)))

    def values(self) -> Tensor:
        """The metric of each lane."""
        return torch.tensor([self._value(lane) for lane in range(self.lanes)], dtype=torch.float64)

    def _value(self, lane: int) -> float:
        outputs = [mapped(lambda t: t[lane], kept) for kept in self._outputs] if self.stacked else self._outputs
        try:
            whole = joined(outputs), joined(self._targets)
        except ValueError as error:
            raise UserError(
                f"task.metric: it is of a whole split, and {error}; give optsweep.per_batch(metric)"
            ) from None
        try:
            value = self.criterion.function(*whole)
        except Exception as error:
            raise UserError(f"task.metric: it fails for a whole split: {located(error)}") from error
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"task.metric: it returns {found} for a whole split; give one number") from None


def _on_host(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


@dataclass(frozen=True)
class _Accumulated:
    """An accumulating object as a function of everything at once."""

    held: Accumulating

    def __call__(self, outputs: Nest, targets: Nest) -> Any:
        self.held.reset()
        self.held.update(outputs, targets)
        return self.held.compute()


def per_batch(metric: Callable[[Any, Any], Any]) -> PerBatch:
    """A metric of (outputs, targets) that is computed of each batch and averaged over samples: right for means only."""
    return PerBatch(Criterion.of("task.metric", metric))


def metric_of(metric: Any) -> Metric:
    """A user's metric. Raises UserError for what is none."""
    if isinstance(metric, PerBatch):
        return metric
    if isinstance(metric, Accumulating):
        return WholeSplit(Criterion(_Accumulated(metric), of_model=False, of_batch=False))
    criterion = Criterion.of("task.metric", metric)
    return PerBatch(criterion) if criterion.of_model else WholeSplit(criterion)


def name_of(metric: Any) -> str:
    """What a metric is called where nobody has said it."""
    found = metric.criterion.function if isinstance(metric, PerBatch) else metric
    name = found.__name__ if inspect.isroutine(found) else type(found).__name__
    return "metric" if name == "<lambda>" else name.replace("_", " ")
