"""A trial of a model with everything in it is the same, bit by bit, wherever and whenever a sweep trains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import kinds
from optsweep import api
from optsweep.config.arm import Arm
from optsweep.config.sections import OptimizerConfig, SearchConfig, TaskConfig, TrainerConfig
from optsweep.search.studies import Studies
from optsweep.train.trial import Phase


class EverythingNet(nn.Module):
    """A frozen layer, dropout, tied weights, batch norm, a reassigned buffer, a rare expert and one nobody uses."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(4, 8).requires_grad_(False)
        self.drop, self.norm = nn.Dropout(0.3), nn.BatchNorm1d(8)
        self.down, self.up = nn.Linear(8, 8), nn.Linear(8, 8)
        self.up.weight = self.down.weight
        self.common, self.rare, self.never = nn.Linear(8, 1), nn.Linear(8, 1), nn.Linear(8, 1)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        hidden = self.drop(torch.tanh(self.norm(self.features(x - self.mean))))
        hidden = torch.tanh(self.up(torch.tanh(self.down(hidden))))
        seldom = x[..., 3] > 1.6
        out: Tensor = self.common(hidden)
        return out + self.rare(hidden) * seldom.unsqueeze(-1) if seldom.any() else out


class Everything(kinds.Experts):
    """Targets that the rare expert is for."""

    def model(self) -> nn.Module:
        return EverythingNet()


ADAM = OptimizerConfig("adam", "optsweep.optim.adam.Adam", 1e-2)
SGD = OptimizerConfig("sgd", "optsweep.optim.sgd.SGD", 1e-2)


def arms(folder: Path, optimizers: Sequence[OptimizerConfig], lanes: int) -> list[Arm]:
    where = f"sqlite:///{folder}"
    return [
        Arm(
            task=TaskConfig(name="everything", target="test_anywhere.Everything", batch_size=16, steps=12),
            optimizer=optimizer,
            search=SearchConfig(trials=0),
            trainer=TrainerConfig(device="cpu", rungs=3, lanes=lanes),
            confirm_seeds=3,
            sweep="anywhere",
            tracking_uri=f"{where}/mlflow.db",
            storage=f"{where}/optuna.db",
        )
        for optimizer in optimizers
    ]


def losses(
    folder: Path, optimizers: Sequence[OptimizerConfig], *, workers: int, lanes: int = 1
) -> list[tuple[object, object]]:
    """Validation and test losses of the trials of the arm with Adam."""
    folder.mkdir()
    grid = arms(folder, optimizers, lanes)
    finished = api.run(grid, workers=workers, report=False)
    assert finished.result.trials == 3 * len(grid)
    studies = Studies.open(grid[0].storage, "anywhere")
    name = next(arm.name for arm in grid if arm.optimizer is ADAM)
    slots = studies.history(name, Phase.CONFIRM, 1).prefix()
    return [(slot.value, slot.test_loss) for slot in slots]


def test_a_trial_is_the_same_at_any_place_in_any_sweep_in_one_or_two_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = losses(tmp_path / "alone", [ADAM], workers=0)
    assert len(set(alone)) == 3
    assert losses(tmp_path / "last", [SGD, ADAM], workers=0) == alone
    assert losses(tmp_path / "one", [ADAM], workers=1, lanes=2) == alone
    assert losses(tmp_path / "two", [ADAM, SGD], workers=2) == alone
    assert capsys.readouterr() == ("", "")  # a silent observer hears, and nobody else speaks
