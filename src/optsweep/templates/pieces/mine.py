"""A model, its data, its loss: put yours in their places, one by one; `optsweep check task=mine` after each."""

from typing import Any

import optsweep
from sklearn.datasets import load_digits
from torch import nn


def model(width: int) -> nn.Module:
    """A fresh model: every trial begins with its own, whose weights are drawn from the trial's seed."""
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def data() -> Any:
    """Arrays with a row for each sample; a Dataset, or a function that returns a DataLoader, may stand here too."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def task(width: int = 64) -> optsweep.Task:
    """What optimizers are compared on. Its arguments are keys of the command line: task.width=32, task.width=32,64."""
    return optsweep.Task(
        lambda: model(width),
        data(),  # of it, a fifth each becomes validation and test split; or give train, val and test
        loss=nn.functional.cross_entropy,  # f(outputs, targets); f(model, batch) may do anything
        metric=accuracy,  # f(outputs, targets), of a whole split at once
        metric_name="accuracy",
        loss_unit="nats",
        loss_floor=0.0,  # below which the loss can't be
    )


def accuracy(outputs: Any, targets: Any) -> Any:
    """Share of right answers."""
    return (outputs.argmax(-1) == targets).float().mean()
