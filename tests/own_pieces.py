"""Data and small models for tests of tasks of one's own pieces."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from optsweep.optim.adam import AdamW
from optsweep.optim.schedules import Schedule
from optsweep.optim.update import Update
from optsweep.tasks.pieces import Pieces
from optsweep.train.loop import train_all
from optsweep.train.own.loop import Loop
from optsweep.train.own.running import RunningTrial
from optsweep.train.program import Program
from optsweep.train.trial import Outcome, Trial

HYPER = {"lr": 1e-2, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
CPU = torch.device("cpu")
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(200, 4))  # float64, as numpy has it
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(np.int64)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def program(task: Pieces, **changes: Any) -> Program:
    settings: dict[str, Any] = {"num_steps": 12, "batch_size": 16, "num_rungs": 2, **changes}
    schedule = Schedule("cosine", {}, "none", 0)
    return Program(task=task, build_update=lambda layout: Update(AdamW(), layout), schedule=schedule, **settings)


def outcomes(task: Pieces, seeds: tuple[int, ...] = (1,), **changes: Any) -> list[Outcome]:
    return train_all(program(task, **changes), [Trial(HYPER, seed=seed, test=True) for seed in seeds])


def numbers(task: Pieces, **changes: Any) -> tuple[Any, ...]:
    (out,) = outcomes(task, **changes)
    return out.val_loss, out.val_score, out.test_loss, out.test_score


class Noisy(Dataset[Any]):
    """Augments with all three generators."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(4) + random.gauss(0, 1) + np.random.normal()  # noqa: NPY002
        return torch.tensor(X[index], dtype=torch.float32) + 0.1 * noise, int(Y[index])


def stream(seed: int, batch_size: int) -> DataLoader[Any]:
    del seed  # torch's generator is seeded from it
    data = TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor(Y))
    return DataLoader(data, batch_size, shuffle=True, drop_last=True)


def of_width(width: int) -> Pieces:
    """A task with an option that has no default."""
    return sized(width)


def _wide_or_narrow(trial: RunningTrial, width: int = 4) -> None:
    """A loop with an option, which is looked at and never run."""


narrow = Loop(_wide_or_narrow, options={"width": 8})


def sized(width: int = 8, dropout: float = 0.0, activation: str = "Tanh") -> Pieces:
    """A task with options, and with a length of its own."""

    def model() -> nn.Module:
        inner = vars(nn)[activation]()
        return nn.Sequential(nn.Linear(4, width), inner, nn.Dropout(dropout), nn.Linear(width, 2))

    return Pieces(model, (X, Y), steps=40)
