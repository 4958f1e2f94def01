"""Loops of one's own for tests, on the data of own_pieces, and how one of them is trained alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optsweep.optim.adam import AdamW
from optsweep.optim.composition import Composition
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.rule import Rule
from optsweep.optim.schedules import Schedule
from optsweep.optim.update import Decay, Update
from optsweep.train.own.loop import Loop
from optsweep.train.own.program import LoopProgram, train_loop
from optsweep.train.own.running import RunningTrial
from optsweep.train.run import Observer, Silent
from optsweep.train.trial import Outcome, Rung, Trial
from own_pieces import X, Y, net

HYPER = {"lr": 1e-2, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
INPUTS, CLASSES = torch.tensor(X, dtype=torch.float32), torch.tensor(Y)
TRAIN, VAL, TEST = slice(0, 120), slice(120, 160), slice(160, 200)


class Told:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.rungs: list[Rung] = []
        self.ends: list[Outcome] = []

    def on_rung(self, key: int, rung: Rung) -> None:
        self.rungs.append(rung)

    def on_end(self, key: int, outcome: Outcome) -> None:
        self.ends.append(outcome)


def loader(batch_size: int = 16) -> DataLoader[Any]:
    return DataLoader(TensorDataset(INPUTS[TRAIN], CLASSES[TRAIN]), batch_size, shuffle=True, drop_last=True)


def score(model: nn.Module, rows: slice) -> tuple[Tensor, Tensor]:
    outputs = model(INPUTS[rows])
    return F.cross_entropy(outputs, CLASSES[rows]), (outputs.argmax(-1) == CLASSES[rows]).float().mean()


def told(trial: RunningTrial, model: nn.Module) -> None:
    """Evaluate and report."""
    with trial.evaluating(model):
        loss, accuracy = score(model, VAL)
    trial.report(val_loss=loss, accuracy=accuracy)


def finish(trial: RunningTrial, model: nn.Module) -> None:
    with trial.evaluating(model):
        loss, accuracy = score(model, TEST)
    trial.finish(test_loss=loss, accuracy=accuracy)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> Tensor:
    """One step; returns its loss."""
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


def train(trial: RunningTrial, dropout: float = 0.0) -> None:
    """As the documentation has it."""
    model = nn.Sequential(nn.Dropout(dropout), net())
    optimizer = trial.optimizer(model)
    for step, batch in trial.batches(loader(trial.batch_size)):
        trial.log(train_loss=stepped(model, optimizer, batch))
        if trial.rung(step):
            told(trial, model)
    finish(trial, model)


def program(loop: Loop, rule: Rule | None = None, iterate: Iterate | None = None, **changes: Any) -> LoopProgram:
    rule, iterate = rule or AdamW(), iterate or Last()
    decay = changes.pop("decay", Decay.DECOUPLED)
    settings: dict[str, Any] = {"num_steps": 12, "batch_size": 16, "num_rungs": 2, "log_every": 3, **changes}
    schedule = changes.pop("schedule", Schedule("cosine", {}, "none", 0))
    settings["schedule"] = schedule
    return LoopProgram(
        task=loop,
        build_update=lambda layout: Update(rule, layout, decay=decay, iterate=iterate),
        composition=Composition(rule, iterate, decay, schedule=schedule, num_steps=settings["num_steps"]),
        **settings,
    )


def outcome(
    function: Callable[..., None],
    *,
    seed: int = 1,
    hyper: dict[str, float] | None = None,
    observer: Observer | None = None,
    prune_above: dict[int, float] | None = None,
    test: bool = True,
    loop: dict[str, Any] | None = None,
    **changes: Any,
) -> Outcome:
    """How one trial of a loop ends."""
    trial = Trial(hyper or HYPER, seed=seed, test=test, prune_above=prune_above or {})
    return train_loop(program(Loop(function, steps=12, **(loop or {})), **changes), trial, observer or Silent())
