"""The small sweeps that are disturbed, one kind of training each: seconds long, so that a kill falls anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

NAME = "chaos"
SHORT = "confirm.seeds=2 trainer.rungs=6 trainer.log_every=50"
KEPT = "trainer.checkpoint_seconds=0.2"
"""At the default, a minute, no trial of a second would go on from a checkpoint."""


@dataclass(frozen=True)
class Sweep:
    """A command, and the files of a user's that it needs."""

    kind: str
    overrides: str
    files: Mapping[str, str] = field(default_factory=dict)
    name: str = NAME

    def command(self, address: str | None = None) -> list[str]:
        """What is typed, with another place for what is tracked if one is given."""
        tracking = [] if address is None else [f"tracking.uri={address}"]
        return ["-m", *self.overrides.split(), f"sweep.name={self.name}", *tracking]

    def lay_out(self, folder: Path) -> None:
        """Write the user's files."""
        for name, text in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


LOOP = """\
import optsweep
import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

x, y = load_iris(return_X_y=True)
FLOWERS = TensorDataset(torch.tensor(x).float(), torch.tensor(y))
TRAIN, VALIDATION, TEST = random_split(FLOWERS, [90, 30, 30], torch.Generator().manual_seed(0))


def train(trial: optsweep.RunningTrial) -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 3))
    optimizer = trial.optimizer(model)
    loader = DataLoader(TRAIN, trial.batch_size, shuffle=True, drop_last=True)
    for step, (inputs, classes) in trial.batches(loader):
        loss = nn.functional.cross_entropy(model(inputs), classes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trial.log(train_loss=loss)
        if trial.rung(step):
            trial.report(**scores(trial, model, "val_loss", VALIDATION[:]))
    trial.finish(**scores(trial, model, "test_loss", TEST[:]))


def scores(trial, model, name, batch):
    inputs, classes = batch
    with trial.evaluating(model):
        outputs = model(inputs)
        accuracy = (outputs.argmax(-1) == classes).float().mean()
        return {name: nn.functional.cross_entropy(outputs, classes), "accuracy": accuracy}
"""

PIECES = '''\
import optsweep
import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import Dataset


class Noisy(Dataset):
    """Augments what it holds, by torch's own generator."""

    def __init__(self):
        x, self.y = load_wine(return_X_y=True)
        self.x = torch.tensor((x - x.mean(0)) / x.std(0)).float()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index] + 0.01 * torch.randn(13), int(self.y[index])


def task():
    return optsweep.Task(
        lambda: nn.Sequential(nn.Linear(13, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)),
        Noisy(),
        loss=nn.functional.cross_entropy,
        loss_unit="nats",
        loss_floor=0.0,
    )
'''


def _own(target: str, source: str, steps: int) -> Mapping[str, str]:
    task = f"name: mine\n_target_: mine.{target}\nbatch_size: 16\nsteps: {steps}\n"
    return {"mine.py": source, "conf/task/mine.yaml": task}


SWEEPS = (
    Sweep(
        "pruned, two searches",
        f"task=iris_mlp optimizer=adamw,momentum {SHORT} {KEPT} trainer.steps=2000 search.trials=4 "
        "search.pruner=median sweep.repeats=2 hydra.launcher.workers=2",
    ),
    Sweep(
        "in lanes",
        f"task=iris_mlp optimizer=adamw,soap averaging=ema weight_decay=decoupled {SHORT} {KEPT} trainer.steps=2000 "
        "search.trials=6 search.over=[lr,weight_decay] trainer.lanes=2 hydra.launcher.workers=2",
    ),
    Sweep(
        "a loop of the user's",
        f"task=mine optimizer=adamw,soap schedule=schedule_free {SHORT} {KEPT} search.trials=4 "
        "hydra.launcher.workers=2",
        _own("train", LOOP, 1500),
    ),
    Sweep(
        "a Dataset, on plateaus",
        f"task=mine optimizer=adam schedule=plateau,cosine {SHORT} search.trials=4 hydra.launcher.workers=3",
        _own("task", PIECES, 800),
    ),
    Sweep(
        "in the command's own process",
        f"task=iris_mlp optimizer=adamw,lion {SHORT} trainer.steps=2000 search.trials=4 hydra.launcher.workers=0",
    ),
)

NEIGHBOUR = Sweep(
    "another sweep in the same folder",
    "task=iris_mlp optimizer=momentum optimizer.lr=0.1 search=none confirm.seeds=2 trainer.steps=40 trainer.rungs=2 "
    "hydra.launcher.workers=1",
    name="neighbour",
)
