"""Small classification data sets that scikit-learn ships, held in memory."""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optsweep.errors import UserError
from optsweep.tasks.base import Facts, Split, Task, digest_of
from optsweep.tasks.options import whole

SPLIT_SEED = 0
"""The split is fixed: it is part of the data, not of a trial."""

SHARES = {Split.VAL: 0.2, Split.TEST: 0.2}


class Classification(Task):
    """Samples `inputs [N, …]` with class `targets [N]`, split 60/20/20 with every class in the same proportion."""

    def __init__(self, inputs: NDArray[np.float32], targets: NDArray[np.int64]) -> None:
        self._rows = stratified(targets)
        self._digest = digest_of(inputs, targets, *self._rows.values())
        self.num_classes = int(targets.max()) + 1
        self.chance_loss = float(np.log(self.num_classes))
        self._data = {
            split: (torch.from_numpy(inputs[rows]), torch.from_numpy(targets[rows]))
            for split, rows in self._rows.items()
        }

    def size(self, split: Split) -> int:
        """Number of samples."""
        return len(self._rows[split])

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(inputs `[..., features]`, classes `[...]`)."""
        inputs, targets = self._data[split]
        return inputs[indices], targets[indices]

    def to(self, device: torch.device) -> None:
        """Move inputs and targets."""
        self._data = {split: (x.to(device), y.to(device)) for split, (x, y) in self._data.items()}

    def digest(self) -> str:
        """Hash of inputs, targets and splits."""
        return self._digest


class DigitsMLP(Classification):
    """8 × 8 handwritten digits (UCI, 1797 samples) with a multilayer perceptron."""

    facts = Facts("mlp", "complex", reference_batch_size=64)
    head_modules = ("head",)

    def __init__(self, *, width: int = 64, layers: int = 2) -> None:
        self.width, self.layers = whole("width", width), whole("layers", layers)
        inputs, targets = read_digits()
        super().__init__(inputs, targets)

    def model(self) -> nn.Module:
        """Hidden layers with ReLU."""
        return MLP(64, self.width, self.layers, 10)


class MLP(nn.Module):
    """Inputs `[B, num_inputs]` → logits `[B, num_outputs]` through `layers` hidden layers with ReLU; 0 is linear."""

    def __init__(self, num_inputs: int, width: int, layers: int, num_outputs: int) -> None:
        super().__init__()
        widths = [num_inputs, *[width] * layers]
        self.hidden = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        self.head = nn.Linear(widths[-1], num_outputs)
        for linear in self.hidden:
            assert isinstance(linear, nn.Linear)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.head.weight, std=0.01)  # so that the loss starts at chance
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        hidden = inputs
        for linear in self.hidden:
            hidden = linear(hidden).relu()
        logits: Tensor = self.head(hidden)
        return logits


def stratified(targets: NDArray[np.int64]) -> dict[Split, NDArray[np.int64]]:
    """Rows of each split, sorted; each class is divided alike."""
    rows: dict[Split, list[NDArray[np.int64]]] = {split: [] for split in Split}
    rng = np.random.default_rng(SPLIT_SEED)
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        num_val, num_test = (round(SHARES[split] * len(members)) for split in (Split.VAL, Split.TEST))
        rows[Split.VAL].append(members[:num_val])
        rows[Split.TEST].append(members[num_val : num_val + num_test])
        rows[Split.TRAIN].append(members[num_val + num_test :])
    return {split: np.sort(np.concatenate(parts)) for split, parts in rows.items()}


@lru_cache(maxsize=1)
def read_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Inputs `[1797, 64]` with mean 0 and variance 1 over all pixels, and targets."""
    table = read_table("digits.csv.gz")
    pixels = table[:, :-1] / 16.0
    return ((pixels - pixels.mean()) / pixels.std()).astype(np.float32), table[:, -1].astype(np.int64)


def read_table(name: str, skip: int = 0) -> NDArray[np.float64]:
    """A table of numbers that scikit-learn ships, `skip` lines left out.

    Read from its file, because importing scikit-learn takes every worker over two seconds; a test holds the result
    against scikit-learn's own loader.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("task: this task's data comes with scikit-learn, which is not installed")
    path = Path(spec.submodule_search_locations[0], "datasets", "data", name)
    if not path.is_file():
        raise UserError(f"task: scikit-learn's data file {path} is missing; reinstall scikit-learn")
    raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    return np.array([line.split(b",") for line in raw.split()[skip:]], dtype=np.float64)
