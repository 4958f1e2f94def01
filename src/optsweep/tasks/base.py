"""What a task is: a model, its data, its loss and one metric.

A user's own task is one subclass and one YAML in conf/task/ whose `_target_` names it (docs/extending.md).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import MappingProxyType, MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optsweep.groups import Patterns
from optsweep.tasks.data import Data, Indexed, chunks, epochs
from optsweep.tasks.meters import Means, Meter
from optsweep.tasks.nest import Nest, mapped

Full = Callable[[Nest], Nest]

IGNORED = -100
"""The target that torch's cross-entropy leaves out."""


class Split(StrEnum):
    """Training tunes the weights, validation the hyperparameters, test states the verdict."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


ARCHITECTURES = ("mlp", "cnn", "resnet", "transformer", "linear", "surface")
"""Those that published ranges are for; another one gets the ranges that are for none in particular."""


UNNAMED = "own"
"""Name of a task that nobody has named; `compare` then names it as the sweep."""


@dataclass(frozen=True)
class Facts:
    """What the suggestions ask about a task (deck: warm-up, LR adjustment and weight-decay tables)."""

    architecture: str  # one of ARCHITECTURES, or another
    data_type: str  # "simple" (linear) or "complex" (nonlinear), "" for neither
    reference_batch_size: int  # the batch size that the suggested LR ranges are taken to be for
    fine_tuning: bool = False
    deep: bool = False
    unstable: bool = False
    transfer_learning: bool = False
    fan_in: int | None = None  # columns of a typical hidden matrix (Muon's LR depends on them)
    like: str | None = None  # of ARCHITECTURES the one whose ranges are to hold for another one


class Trainable(ABC):
    """What an arm may train, as far as it can be known without training: a task, or a loop that somebody else wrote."""

    facts: Facts
    metric: str = "accuracy"
    higher_is_better: bool = True
    decides: str = ""
    """What trials and arms are compared by, where it is something else than the loss: "1 − auc"."""
    loss_unit: str = "nats"
    chance_loss: float | None = None
    """Loss of a uniform guess, if it is known; drawn in figures."""
    target_loss: float | None = None
    """Validation loss worth reaching within the default budget, if one is named; drawn in figures."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Keys of the config's task that arms may differ in, or search, with their values."""
    groups: Patterns = MappingProxyType({})
    """Parameter groups by pattern of name, such as {"backbone.*": {"lr_factor": 0.1}}."""
    notes: Sequence[str] = ()
    """What a user should know of it, a line each; they stand beside the verdict."""
    resplits: bool = False
    """Whether `resplit` is there."""

    @abstractmethod
    def size(self, split: Split) -> int | None:
        """Number of samples in a split, None if nobody knows."""

    @abstractmethod
    def digest(self) -> str:
        """Hash of the data, part of every fingerprint."""

    def on(self, device: torch.device) -> Trainable:
        """The same as it is on a device: what is above is asked of that."""
        return self

    def code(self) -> Sequence[Any]:
        """Classes and functions whose source files, if they are the user's own, decide a trial's numbers."""
        return (type(self),)

    def resplit(self, seed: int) -> Trainable:
        """The same, what isn't test divided anew into training and validation, of as many samples as before.

        Only asked of what `resplits`.
        """
        raise NotImplementedError(f"{type(self).__name__} says that it resplits, and has no resplit(seed)")


class Task(Trainable):
    """A model with data. Instances are built once per process; nothing here depends on a trial but what takes a seed.

    Class attributes `metric` (name of the task's metric), `higher_is_better` and `loss_unit` label curves and tables.
    """

    loss_floor: float | None = 0.0
    """What the loss can't be below, from which divergence is judged; None: by the spread of the samples' losses.

    Whoever overrides `loss` states it anew, else it is None.
    """
    reads: tuple[str, ...] | None = None
    """Files that the data are read from, beside those of Python and of installed packages; None: that isn't known."""
    head_modules: tuple[str, ...] = ()
    """Names of the model's output layers; empty: its last `nn.Linear`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """The floor belongs to the loss that it was stated for."""
        super().__init_subclass__(**kwargs)
        if "loss" in vars(cls) and "loss_floor" not in vars(cls):
            cls.loss_floor = None

    @abstractmethod
    def model(self) -> nn.Module:
        """A freshly built model, of which no tensor is shared with another; no lazy layers.

        The caller has seeded all generators, and seeds them again before every step: dropout, noise and layer drop are
        a function of the trial's seed and the step. Such a model trains one trial at a time, as does one that assigns
        its buffers anew or branches on the values of tensors.
        """

    @abstractmethod
    def size(self, split: Split) -> int:
        """Number of samples in a split; an epoch of the training split is this many."""

    @abstractmethod
    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of samples `indices [...]`, on their device, leading dimensions `[...]` kept.

        May draw from torch's, Python's or numpy's generators (augmentation): they are seeded before every step.
        """

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move all data to `device`, once."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar; runs under torch.func.vmap where trials train in lanes."""
        return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean metric of a batch, a scalar; runs under torch.func.vmap where trials train in lanes."""
        return (outputs.argmax(-1) == targets).float().mean()

    def artifacts(self, buffers: Mapping[str, Tensor]) -> Mapping[str, str]:
        """Text files by name that a trial leaves behind, from its model's buffers at the end, on the CPU."""
        return {}

    def train_indices(self, seed: int, first: int, num_steps: int, batch_size: int) -> NDArray[np.int64]:
        """Samples of `num_steps` batches from step `first` on, `[num_steps, batch_size]`: pure in its arguments.

        Every epoch is a fresh permutation; a batch may span two.
        """
        return epochs(self.size(Split.TRAIN), seed, first, num_steps, batch_size)

    def eval_indices(self, split: Split, batch_size: int) -> Sequence[NDArray[np.int64]]:
        """The whole split in equal order, in chunks of at most `batch_size`."""
        return chunks(self.size(split), batch_size)

    # -- what the loop asks, answered for one tensor of inputs and one of targets -------------------------------------

    def data(self, split: Split) -> Data:
        """Who gives the batches of a split."""
        return Indexed(self.train_indices, partial(self.eval_indices, split), partial(self.batch, split))

    def cast(self, batch: Nest, dtype: torch.dtype) -> Nest:
        """A batch with its inputs, floating-point ones, in the dtype that parameters are computed with."""
        inputs, targets = batch
        return (inputs.to(dtype) if inputs.is_floating_point() else inputs), targets

    def outputs(self, model: nn.Module, batch: Nest) -> Nest:
        """A forward pass."""
        return model(batch[0])

    def objective(self, model: nn.Module, batch: Nest, full: Full) -> Tensor:
        """The loss of a batch, a scalar; `full` brings what a model returned into full precision."""
        return self.loss(full(model(batch[0])), batch[1])

    def evaluated(self, model: nn.Module, batch: Nest, full: Full) -> tuple[Tensor, Nest]:
        """The loss of a batch, and what `meter` is to know of it; runs under torch.func.vmap as `objective` does."""
        outputs = full(model(batch[0]))
        return self.loss(outputs, batch[1]), self.score(outputs, batch[1])

    @property
    def lane_losses(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """(outputs, targets) of all lanes → losses `[K]`, as by `objective` under vmap in fewer calls; None: not so."""
        own = self.outputs, self.objective, self.evaluated, self.loss
        usual = Task.outputs, Task.objective, Task.evaluated, Task.loss
        return cross_entropies if own == tuple(MethodType(function, self) for function in usual) else None

    def uninformed_loss(self, model: nn.Module, batch: Nest, full: Full) -> Tensor | None:
        """The loss of equal outputs for all classes; None where targets are no classes."""
        return self.loss(equal(full(model(batch[0]))), batch[1]) if are_classes(batch[1]) else None

    def meter(self, lanes: int, *, stacked: bool) -> Meter:
        """A new meter of the metric."""
        return Means(lanes)

    def deciding(self, losses: Tensor, scores: Tensor) -> Tensor:
        """What trials and arms are compared by, lower is better, from loss and metric of a split, `[K]` each."""
        return losses


def cross_entropies(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of every lane, `[K]`: bitwise as under vmap, which takes it apart in Python in each call."""
    each = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
    counted = (targets.flatten(1) != IGNORED).sum(1)
    return each.view(len(outputs), -1).sum(1) / counted


def are_classes(targets: Nest) -> bool:
    """Whether targets are whole numbers, not all the same."""
    return isinstance(targets, Tensor) and not targets.is_floating_point() and bool((targets != targets[:1]).any())


def equal(outputs: Nest) -> Nest:
    """Outputs that prefer no class: zeros."""
    return mapped(torch.zeros_like, outputs)


def digest_of(*arrays: NDArray[np.generic] | bytes) -> str:
    """SHA-256 of data, 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]
