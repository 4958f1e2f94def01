"""Classification of samples that are held in memory; the test split is fixed."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optsweep.tasks.base import Split, Task, digest_of
from optsweep.tasks.data import taken

SPLIT_SEED = 0
"""The split is part of the data, not of a trial."""

Rows = dict[Split, NDArray[np.int64]]


class Classification(Task):
    """Samples `inputs [N, …]` with classes `targets [N]`; loss is the cross-entropy.

    Inputs are standardised by the training rows, over `axis` (None: over everything, as for pixels).
    """

    resplits = True

    def __init__(
        self, raw: NDArray[np.generic], targets: NDArray[np.int64], rows: Rows, axis: tuple[int, ...] | None = None
    ) -> None:
        self._drawn_from = raw, targets, rows, axis
        inputs = standardized(raw, rows[Split.TRAIN], axis)
        self.num_classes = int(targets.max()) + 1
        self.chance_loss = float(np.log(self.num_classes))
        self._digest = digest_of(inputs, targets, *rows.values())
        self._data = {
            split: (torch.from_numpy(inputs[chosen]), torch.from_numpy(targets[chosen]))
            for split, chosen in rows.items()
        }

    def size(self, split: Split) -> int:
        """Number of samples."""
        return len(self._data[split][1])

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(inputs `[..., *features]`, classes `[...]`)."""
        inputs, targets = self._data[split]
        return taken(inputs, indices), taken(targets, indices)

    def to(self, device: torch.device) -> None:
        """Move inputs and targets."""
        self._data = {split: (x.to(device), y.to(device)) for split, (x, y) in self._data.items()}

    def resplit(self, seed: int) -> Classification:
        """Every class in the same shares."""
        raw, targets, rows, axis = self._drawn_from
        again = copy.copy(self)
        Classification.__init__(again, raw, targets, redrawn(targets, rows, seed), axis)
        return again

    def digest(self) -> str:
        """Hash of inputs, targets and splits."""
        return self._digest


def stratified(targets: NDArray[np.int64], val: float = 0.2, test: float = 0.2) -> Rows:
    """Rows of each split, sorted; every class is divided in the same shares, the rest is for training."""
    rows: dict[Split, list[NDArray[np.int64]]] = {split: [] for split in Split}
    rng = np.random.default_rng(SPLIT_SEED)
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        num_val, num_test = round(val * len(members)), round(test * len(members))
        rows[Split.VAL].append(members[:num_val])
        rows[Split.TEST].append(members[num_val : num_val + num_test])
        rows[Split.TRAIN].append(members[num_val + num_test :])
    return {split: np.sort(np.concatenate(parts)) for split, parts in rows.items()}


def redrawn(targets: NDArray[np.int64], rows: Rows, seed: int) -> Rows:
    """Training and validation rows divided anew, each with as many of every class as before; test as it is."""
    rng = np.random.default_rng([SPLIT_SEED, seed])
    found: dict[Split, list[NDArray[np.int64]]] = {Split.TRAIN: [], Split.VAL: []}
    for label in np.unique(targets):
        train, val = (rows[split][targets[rows[split]] == label] for split in found)
        members = rng.permutation(np.concatenate([train, val]))
        found[Split.TRAIN].append(members[: len(train)])
        found[Split.VAL].append(members[len(train) :])
    return {**rows, **{split: np.sort(np.concatenate(parts)) for split, parts in found.items()}}


def standardized(
    inputs: NDArray[np.generic], train: NDArray[np.int64], axis: tuple[int, ...] | None = None
) -> NDArray[np.float32]:
    """Inputs with mean 0 and variance 1 over `axis` of the training rows (None: over everything, as for pixels)."""
    values = inputs.astype(np.float64)
    mean, std = values[train].mean(axis, keepdims=True), values[train].std(axis, keepdims=True)
    result: NDArray[np.float32] = ((values - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    return result
