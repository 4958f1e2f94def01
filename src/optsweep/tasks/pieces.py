"""A task made of pieces that a user has: a function that builds the model, data of any kind, a loss, a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from optsweep.checks import choice, flag, number, optional, text, whole
from optsweep.errors import UserError, located
from optsweep.groups import checked_groups
from optsweep.tasks import nest
from optsweep.tasks.base import UNNAMED, Facts, Full, Split, Task, are_classes, digest_of, equal
from optsweep.tasks.criteria import Criterion, metric_of, name_of
from optsweep.tasks.data import Data
from optsweep.tasks.meters import Means, Meter
from optsweep.tasks.nest import Nest
from optsweep.tasks.parts import Arrays, Items, Part, not_numbers, parts_of
from optsweep.tasks.random import undisturbed

TARGETS = ("labels", "label", "targets", "target")
"""Keys of a batch by name that are taken for its target, the first that is there."""

VAL, TEST = 0.2, 0.2
"""Shares of the data that become validation and test split where none is given."""

LOSS, METRIC = "loss", "metric"

BATCH_SIZE, STEPS = 64, 500
"""Of a trial, where nobody says it; as conf/task/own.yaml has them."""


class Pieces(Task):
    """A task of the pieces that are given; `optsweep.Task`. docs/own-model.md says what each may be."""

    def __init__(
        self,
        model: Callable[[], nn.Module],
        train: Any,
        val: Any = None,
        test: Any = None,
        *,
        loss: Callable[[Any, Any], Any] | None = None,
        metric: Any = None,
        metric_name: str | None = None,
        higher_is_better: bool = True,
        objective: str = LOSS,
        target: str | None = None,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        weights: Mapping[str, Tensor] | Callable[[nn.Module], Any] | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        workers: int = 0,
        samples: int | None = None,
        split_seed: int = 0,
        batch_size: int = BATCH_SIZE,
        steps: int = STEPS,
        name: str = UNNAMED,
        loss_unit: str | None = None,
        loss_floor: float | None = None,
        facts: Facts | None = None,
    ) -> None:
        self._build, self._weights, self._forward = _builder(model), weights, forward
        self._code = [found for found in (model, loss, metric, collate) if found is not None]
        self._target, self._facts, self.groups = target, facts, checked_groups(groups)
        self.name, self.batch_size, self.steps = (
            text("name", name),
            whole("batch_size", batch_size),
            whole("steps", steps),
        )
        self.split_seed = whole("task.split_seed", split_seed, low=0)
        if metric is None and loss is None:
            metric, metric_name = accuracy, metric_name or "accuracy"
        self._loss = Criterion.of_loss(cross_entropy if loss is None else loss)
        flag("task.higher_is_better", higher_is_better)
        if metric is None:
            metric_name, higher_is_better = metric_name or "mean loss", False
        self._metric = None if metric is None else metric_of(metric)
        self.metric = name_of(metric) if metric_name is None else text("task.metric_name", metric_name)
        self.higher_is_better = higher_is_better
        self.loss_unit = optional(text)("task.loss_unit", loss_unit) or ("nats" if loss is None else "")
        self.loss_floor = 0.0 if loss is None else optional(number)("task.loss_floor", loss_floor)
        given = {key: value for key, value in (("train", train), ("val", val), ("test", test)) if value is not None}
        if "train" not in given:
            raise UserError(
                "task.train: there is no data; give arrays, a Dataset or a function that makes a DataLoader"
            )
        parts = parts_of(given, collate=collate, workers=whole("task.workers", workers, low=0), samples=samples)
        self._parts, notes = _divided(parts, self.split_seed)
        self.notes = (*notes, *not_numbers(parts))
        self._let_decide(objective)

    def _let_decide(self, objective: str) -> None:
        """Have settings chosen by the loss or by the metric, as `objective` says."""
        self._by_metric = choice("task.objective", objective, (LOSS, METRIC)) == METRIC
        if not self._by_metric:
            return
        self.decides = f"1 − {self.metric}" if self.higher_is_better else self.metric
        self.loss_floor = 0.0
        self.notes = (
            *self.notes,
            f"task.objective: settings are chosen by {self.decides}, and the verdict is stated on it; while a "
            f"sweep goes on, 'loss' is this too",
        )

    # -- model --------------------------------------------------------------------------------------------------------

    def model(self) -> nn.Module:
        """The user's model, with the initial weights if there are some."""
        module = self._build()
        if not isinstance(module, nn.Module):
            raise UserError(
                f"task.model: it returns {type(module).__name__}; give a function that returns an nn.Module"
            )
        if self._weights is None:
            return module
        if not isinstance(self._weights, Mapping):
            self._weights(module)
            return module
        try:
            unknown = module.load_state_dict(self._weights, strict=False).unexpected_keys
        except RuntimeError as error:
            raise UserError(f"task.weights: they don't fit the model: {str(error).splitlines()[-1].strip()}") from None
        if unknown:
            raise UserError(f"task.weights: the model has no {unknown[0]}")
        return module

    @cached_property
    def facts(self) -> Facts:  # type: ignore[override]
        """As they were given, or as the model's layers and the data look."""
        if self._facts is not None:
            return self._facts
        with undisturbed():
            return facts_of_model(self.model(), self.batch_size, fine_tuning=self._weights is not None)

    def code(self) -> Sequence[Any]:
        """What of the user's own code decides a trial's numbers."""
        return (*self._code, *(() if self._forward is None else (self._forward,)))

    # -- data ---------------------------------------------------------------------------------------------------------

    def size(self, split: Split) -> int:
        """Number of samples."""
        return self._parts[split].size

    def data(self, split: Split) -> Data:
        """Who gives its batches."""
        return self._parts[split]

    def batch(self, split: Split, indices: Tensor) -> Any:
        """These samples as a batch, of data that lies on the device."""
        part = self._parts[split]
        if not isinstance(part, Arrays):
            raise UserError(f"task.{split}: it has no samples by index; ask for its batches")
        return nest.mapped(lambda tensor: tensor[indices], part.nest)

    def to(self, device: torch.device) -> None:
        """Move arrays; of other data, each batch is moved."""
        for part in self._parts.values():
            part.to(device)

    @cached_property
    def _digest(self) -> str:
        return digest_of(*(piece for part in self._parts.values() for piece in part.content()))

    def digest(self) -> str:
        """Hash of arrays, and of some samples of other data."""
        return self._digest

    # -- loss and metric ----------------------------------------------------------------------------------------------

    def cast(self, batch: Nest, dtype: torch.dtype) -> Nest:
        """All floating-point tensors in the dtype that parameters are computed with; targets in float32 at least."""
        if _is_plain(batch) and len(batch) > 1:
            at_least = torch.float32 if dtype is torch.bfloat16 else dtype
            return type(batch)([*nest.cast(batch[:-1], dtype), nest.cast(batch[-1], at_least)])
        return nest.cast(batch, dtype)

    def outputs(self, model: nn.Module, batch: Nest) -> Nest:
        """A forward pass; a loss that is given the model knows best what one is."""
        if self._loss.of_model and self._forward is None:
            return self._loss(model, self.targets(batch), batch)
        return self.called(model, batch)

    def called(self, model: nn.Module, batch: Nest) -> Nest:
        """What the model returns: as `forward` has it, or for all of a tuple but the last, or for the whole batch."""
        if self._forward is not None:
            return self._forward(model, batch)
        return model(*batch[:-1]) if _is_plain(batch) and len(batch) > 1 else model(batch)

    def targets(self, batch: Nest) -> Nest:
        """The last of a tuple; by name, `target` or what is called so; else the whole batch."""
        if isinstance(batch, Mapping):
            named = (self._target,) if self._target else TARGETS
            return next((batch[key] for key in named if key in batch), batch)
        if _is_plain(batch) and len(batch):
            return batch[-1]
        return batch

    def objective(self, model: nn.Module, batch: Nest, full: Full) -> Tensor:
        """The user's loss."""
        first = model if self._loss.of_model else full(self.called(model, batch))
        loss: Tensor = _scalar(self._loss(first, self.targets(batch), batch))
        return loss

    def evaluated(self, model: nn.Module, batch: Nest, full: Full) -> tuple[Tensor, Nest]:
        """The user's loss and what the metric wants to know; outputs are computed once."""
        targets = self.targets(batch)
        held: list[Nest] = []

        def outputs() -> Nest:
            if not held:
                held.append(full(self.called(model, batch)))
            return held[0]

        loss = _scalar(self._loss(model if self._loss.of_model else outputs(), targets, batch))
        return loss, loss if self._metric is None else self._metric.kept(model, outputs, targets, batch)

    def uninformed_loss(self, model: nn.Module, batch: Nest, full: Full) -> Tensor | None:
        """As `Task` has it; None too where the loss sees the model."""
        targets = self.targets(batch)
        if self._loss.of_model or not are_classes(targets):
            return None
        loss: Tensor = _scalar(self._loss(equal(full(self.called(model, batch))), targets, batch))
        return loss

    def meter(self, lanes: int, *, stacked: bool) -> Meter:
        """The metric's; without a metric, the loss again."""
        return Means(lanes) if self._metric is None else self._metric.meter(lanes, self.targets, stacked=stacked)

    def deciding(self, losses: Tensor, scores: Tensor) -> Tensor:
        """The loss, or 1 − metric, or the metric where lower is better."""
        if not self._by_metric:
            return losses
        return 1 - scores if self.higher_is_better else scores


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of logits `[..., classes]` and classes `[...]`. Raises UserError for what is neither."""
    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        found = f"shape {list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise _no_cross_entropy(f"the model to return logits of shape [samples, classes], not {found}")
    if targets.is_floating_point():
        raise _no_cross_entropy(f"classes 0, 1, 2 … as targets, not {str(targets.dtype).removeprefix('torch.')}")
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of logits `[..., classes]` and classes `[...]`, however shaped."""
    return (outputs.argmax(-1).flatten() == targets.flatten()).float().mean()


def _no_cross_entropy(wanted: str) -> UserError:
    """Why the loss that is taken where none is given can't be."""
    return UserError(f"task.loss: not given, so cross-entropy, which wants {wanted}; give loss=f(outputs, targets)")


def _is_plain(batch: Nest) -> bool:
    """Whether a batch is a tuple or a list, and none with names, as a packed sequence is one."""
    return type(batch) in (tuple, list)


def _scalar(value: Any) -> Any:
    """A loss of shape [1], such as some losses return, as a scalar; else as it is, to be refused."""
    return value.reshape(()) if isinstance(value, Tensor) and value.shape == (1,) else value


def _builder(model: Any) -> Callable[[], Any]:
    """What builds the model. Raises UserError for a model that is built already: every trial begins with its own."""
    if isinstance(model, nn.Module):
        raise UserError(
            "task.model: this is one model, and every trial begins with its own; give a function that builds it: "
            "model=Net, or model=lambda: Net(width=64); weights to start from go to weights="
        )
    if not callable(model):
        raise UserError(f"task.model: {type(model).__name__} builds nothing; give a function that returns an nn.Module")
    return partial(_built, model)


def _built(model: Callable[[], Any]) -> Any:
    try:
        return model()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task.model: it can't be built: {located(error)}") from error


# -- splits ------------------------------------------------------------------------------------------------------------


def _divided(given: Mapping[str, Part], seed: int) -> tuple[dict[Split, Part], tuple[str, ...]]:
    """Three splits from one, two or three, and what the user should know of it.

    What is missing is taken from the training data; the test split from the validation split, if there is one.
    """
    train, val, test = (given.get(split.value) for split in Split)
    notes: list[str] = []
    assert train is not None
    if val is None:
        if not isinstance(train, (Arrays, Items)):
            raise UserError("task.val: train is a stream, of which no validation split can be taken; give val=")
        shares = (VAL, TEST) if test is None else (VAL, 0.0)
        first, second, third = divided(train.size, train.labels(), shares, seed)
        if not len(second) or (test is None and not len(third)):
            raise UserError(f"task.val: {train.size} samples are too few to part in three; give val= and test=")
        val, test, train = train.only(second), train.only(third) if test is None else test, train.only(first)
        taken = {"val": val.size} | ({} if "test" in given else {"test": test.size})
        notes += [
            f"task.{key}: not given; {n:,} samples of the training data were set aside for it"
            for key, n in taken.items()
        ]
    elif test is None:
        if isinstance(val, (Arrays, Items)) and val.size > 1:
            first, second, _ = divided(val.size, val.labels(), (0.5, 0.0), seed)
            val, test = val.only(first), val.only(second)
            notes.append(f"task.test: not given; {test.size:,} samples of the validation data were set aside for it")
        else:
            test = val
            notes.append(
                "task.test: not given, and none can be taken: the verdict rests on the validation data, on which the "
                "settings were chosen, so every arm looks better than it is"
            )
    return {Split.TRAIN: train, Split.VAL: val, Split.TEST: test}, tuple(notes)


def divided(
    size: int, labels: NDArray[np.int64] | None, shares: tuple[float, float], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a rest and of two shares, sorted, drawn from `seed`; every label is divided alike."""
    rng = np.random.default_rng(seed)
    parts: list[list[NDArray[np.int64]]] = [[], [], []]
    labels = np.zeros(size, dtype=np.int64) if labels is None else labels
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum([round(share * len(members)) for share in shares])
        for part, rows in zip(parts, (members[ends[1] :], members[: ends[0]], members[ends[0] : ends[1]]), strict=True):
            part.append(rows)
    first, second, third = (np.sort(np.concatenate(part)) for part in parts)
    return first, second, third


# -- facts -------------------------------------------------------------------------------------------------------------

_ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def facts_of_model(module: nn.Module, batch_size: int, *, fine_tuning: bool = False) -> Facts:
    """What the suggestions ask, by the kinds of a model's layers."""
    layers = list(module.modules())
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    named = {type(layer).__name__.lower() for layer in layers}
    if any(isinstance(layer, _ATTENTION) for layer in layers) or any("attention" in name for name in named):
        kind = "transformer"
    elif any(isinstance(layer, _CONVOLUTION) for layer in layers):
        kind = "cnn"
    elif any(isinstance(layer, nn.RNNBase) for layer in layers):
        kind = "rnn"
    else:
        kind = "linear" if len(linear) == 1 and len(layers) <= 2 else "mlp"
    like = "mlp" if kind == "rnn" else None  # no table has recurrent networks
    facts = Facts(kind, "simple" if kind == "linear" else "complex", batch_size, fine_tuning=fine_tuning, like=like)
    hidden = sorted(layer.in_features for layer in linear[:-1])
    return replace(facts, fan_in=hidden[len(hidden) // 2]) if hidden else facts
