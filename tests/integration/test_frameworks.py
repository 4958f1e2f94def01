"""Lightning, Hugging Face's Trainer and Accelerate train trials as a loop by hand does."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from optsweep.errors import UserError
from optsweep.optim.averaging import EMA
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.train.own.loop import Loop
from optsweep.train.own.running import RunningTrial
from optsweep.train.trial import End
from own_loops import HYPER, Told, outcome

COSINE, FREE = Schedule("cosine", {}, "linear", 3), Schedule("schedule_free", {}, "none", 0)


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    found = import_module("framework_loops")
    gc.freeze()  # a Trainer collects garbage at its start, among all that is imported
    yield vars(found)
    gc.unfreeze()


def ran(train: Any, iterate: Iterate, schedule: Schedule, **options: Any) -> tuple[Any, ...]:
    told = Told()
    hyper = {**HYPER, **{name: domain.default for name, domain in iterate.floats.items()}}
    end = outcome(partial(train, **options), hyper=hyper, observer=told, iterate=iterate, schedule=schedule)
    assert [rung.step for rung in told.rungs] == [6, 12]
    assert end.end is End.FINISHED
    losses = [(rung.val_loss, rung.val_score) for rung in told.rungs]
    points = [(point.step, point.lr, point.grad_norm) for rung in told.rungs for point in rung.points]
    trained = [point.loss for rung in told.rungs for point in rung.points]
    return [*losses, (end.test_loss, end.test_score)], points, trained


@pytest.mark.parametrize("name", ["by_lightning", "by_trainer", "by_accelerate"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_numbers_are_those_of_a_loop_by_hand(loops: dict[str, Any], name: str, micro_batches: int) -> None:
    """Rungs and test on the weights to ship, batch norm recomputed; rates, norms and losses of training."""
    for iterate, schedule in ((Last(), COSINE), (ScheduleFree(), FREE), (EMA(), COSINE)):
        expected = ran(loops["by_hand"], iterate, schedule, micro_batches=micro_batches)
        found = ran(loops[name], iterate, schedule, micro_batches=micro_batches)
        torch.testing.assert_close(found[:2], expected[:2], rtol=1e-5, atol=1e-6)
        if name != "by_trainer":  # which logs means
            torch.testing.assert_close(found[2], expected[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["by_lightning", "by_trainer"])
def test_a_pruned_trial_ends_at_its_rung(loops: dict[str, Any], name: str) -> None:
    after: list[bool] = []

    def train(trial: RunningTrial) -> None:
        loops[name](trial)
        after.append(trial.rehearsal)

    end = outcome(train, prune_above={6: 0.0})
    assert (end.end, end.step) == (End.PRUNED, 6)
    assert after == [True]
    assert outcome(loops[name]).end is End.FINISHED  # nothing of it is left


def test_a_seed_is_one_for_numpy(loops: dict[str, Any]) -> None:
    assert outcome(loops["by_trainer"], seed=2**40 + 1).end is End.FINISHED


@pytest.mark.parametrize("name", ["by_lightning", "by_trainer", "by_accelerate"])
def test_a_rehearsal_sees_the_loader_and_the_test(loops: dict[str, Any], name: str) -> None:
    rehearsed = Loop(loops[name], steps=12).rehearsed
    assert (rehearsed.seen.batch_size, rehearsed.seen.samples) == (15, 120)
    assert rehearsed.seen.digest
    assert rehearsed.tested


def adam(trial: RunningTrial, module: Any) -> Any:
    return torch.optim.Adam(module.parameters())


def scheduled(trial: RunningTrial, module: Any) -> Any:
    optimizer = trial.optimizer(module)
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "by_lightning",
            {"configured": adam},
            r"Normed\.configure_optimizers: it returns none of the trial's; return tr",
        ),
        ("by_lightning", {"configured": scheduled}, r"Normed\.configure_optimizers: the schedule is inside trial\.opt"),
        ("by_lightning", {"max_steps": 13}, r"Trainer\(max_steps=13\): the budget is 12"),
        ("by_lightning", {"validation": None}, r"trainer\.fit: it has no validation, .* logs 'val_loss'"),
        (
            "by_lightning",
            {"metric": "f1"},
            r"Normed\.validation_step: nothing is logged as 'val_f1' \(there are val_loss, ",
        ),
        ("by_lightning", {"max_epochs": 1}, r"returned after 8 of 12 steps|8 of 12 steps are done"),
        (
            "by_trainer",
            {"given": lambda *_: (None, None)},
            "Trainer: its optimizer and its schedule aren't the trial's",
        ),
        (
            "by_trainer",
            {"given": lambda *made: (made[0].optimizer(made[1]), None)},
            "Trainer: its optimizer and its sch",
        ),
        ("by_trainer", {"max_steps": 13}, "TrainingArguments: they come to 13 steps, and the budget is 12"),
        (
            "by_trainer",
            {"seed": 42},
            r"TrainingArguments\(seed=42\): every trial would be the same; give seed=trial\.seed",
        ),
    ],
)
def test_a_mistake_is_one_line(loops: dict[str, Any], name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        outcome(partial(loops[name], **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "needed"), [("lightning", "lightning"), ("transformers", "transformers and accelerate")]
)
def test_a_framework_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, needed: str) -> None:
    for module in [found for found in sys.modules if found.split(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"optsweep.integrations.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"needs {needed} \(.*pip install 'optsweep\[frameworks\]'"):
        import_module(f"optsweep.integrations.{name}")
