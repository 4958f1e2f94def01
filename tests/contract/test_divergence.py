"""When a trial has diverged: by the distance from a floor that the task names, or by the loss's own spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kinds
from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout
from optsweep.optim.schedules import Schedule
from optsweep.optim.sgd import SGD
from optsweep.optim.update import Update
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Split, Task
from optsweep.tasks.landscapes import Landscape
from optsweep.tasks.tabular import Table
from optsweep.train.divergence import limit
from optsweep.train.evaluate import spread
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.run import Run, Silent
from optsweep.train.trial import End, Outcome, Trial

HYPER = {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


class Shifted(kinds.Plain):
    """Squared errors times a number, plus another: neither changes a step."""

    def __init__(self, shift: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.scale * super().loss(outputs, targets) + self.shift


def adam(layout: Layout) -> Updater:
    return Update(Adam(), layout)


def sgd(layout: Layout) -> Updater:
    return Update(SGD(), layout)


def outcomes(task: Task, lr: float, build: Any = adam, *, vmapped: bool = False, factor: float = 2.0) -> list[Outcome]:
    program = Program(
        task, build, Schedule("constant"), 20, 32, num_rungs=10, vmapped=vmapped, divergence_factor=factor
    )
    trials = [Trial({**HYPER, "lr": lr}, seed=seed) for seed in range(3)]
    return train_all(program, trials) if vmapped else [train_all(program, [trial])[0] for trial in trials]


def decisions(found: Sequence[Outcome]) -> list[tuple[End, int]]:
    return [(outcome.end, outcome.step) for outcome in found]


def test_a_constant_in_the_loss_changes_no_decision() -> None:
    """With −0.62 and −0.69 seeds start near zero, and what is 0.01 above them was three times the initial loss."""
    for lr, build, ends in ((1e-2, adam, End.FINISHED), (0.3, adam, End.FINISHED), (3.0, sgd, End.DIVERGED)):
        expected = decisions(outcomes(Shifted(), lr, build))
        assert {end for end, _ in expected} == {ends}
        for shift in (-0.62, -0.69, 5.0, -100.0):
            assert decisions(outcomes(Shifted(shift), lr, build)) == expected, (lr, shift)
        assert decisions(outcomes(Shifted(-0.69), lr, build, vmapped=True)) == expected, lr


def test_the_unit_of_the_loss_changes_no_decision() -> None:
    expected = decisions(outcomes(Shifted(), 0.3))
    assert decisions(outcomes(Shifted(-0.01, scale=0.01), 0.3)) == expected


class Floored(Shifted):
    """One that names its floor."""

    loss_floor = -0.69


def test_a_floor_that_the_task_names_is_what_losses_are_measured_from() -> None:
    """At 1.1 times the distance, any step up ends the trial; by the spread of the samples' losses none does."""
    jumpy = outcomes(Floored(-0.69), 1.0, factor=1.1)
    assert {outcome.end for outcome in jumpy} == {End.DIVERGED}
    assert decisions(outcomes(Shifted(-0.69), 0.1, factor=1.1)) == [(End.FINISHED, 20)] * 3


def test_the_floor_belongs_to_the_loss_it_was_stated_for() -> None:
    class Smooth(Table):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)

    class Smaller(Table):
        def size(self, split: Split) -> int:
            return super().size(split) // 2

    assert (Table.loss_floor, Smaller.loss_floor, Landscape.loss_floor) == (0.0, 0.0, 0.0)
    assert (Smooth.loss_floor, Shifted.loss_floor, Floored.loss_floor) == (None, None, -0.69)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((2.0, 2.3, 2.3, 0.0, 0.0), 4.6),  # cross-entropy: twice the initial one
        ((3.0, 2.3, 0.1, 0.0, 9.0), 6.9),
        ((2.0, 0.5, 0.5, -1.0, 0.0), 2.0),
        ((2.0, 0.5, 0.5, 1.0, 0.0), math.inf),  # no floor, as it turns out
        ((2.0, 0.0, 0.0, None, 0.25), 2.5),
        ((2.0, -7.0, -10.0, None, 0.01), -4.0),  # what was gained is more than the first spread
        ((2.0, 1.0, 0.0, None, 1e-9), math.inf),  # rounding is no spread
        ((2.0, math.nan, math.inf, 0.0, 0.0), math.inf),
    ],
)
def test_limit(arguments: tuple[float, float, float, float | None, float], expected: float) -> None:
    assert limit(*arguments) == pytest.approx(expected)


def test_spread_is_the_standard_deviation_of_the_samples_losses() -> None:
    task = Shifted(-3.0)
    for vmapped in (False, True):
        program = Program(task, adam, Schedule("constant"), 20, 32, vmapped=vmapped)
        run = Run(program, [Trial({**HYPER, "lr": 1e-2}, seed=0)], Silent())
        found = spread(run.shown([0]))
        x, y = task.batch(Split.VAL, torch.arange(48))
        losses = (program.model(0)(x) - y).square().detach().reshape(16, 3).mean(1)
        assert found.tolist() == pytest.approx([float(losses.std()) * 3**0.5] * run.arena.lanes, rel=1e-5)
