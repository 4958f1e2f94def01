"""A whole sweep of a user's loop by its path, whose worker is killed in the middle of a trial."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from optsweep.build.assemble import build_arm
from optsweep.config.spoken import arms_of
from optsweep.launch.worker.worker import trial_of
from optsweep.search.ownership import Claim
from optsweep.search.slots import Slot
from optsweep.search.studies import Work
from optsweep.train.run import Silent
from optsweep.train.trial import Phase
from sweeping import numbers, run, studies

LOOP = """
import os
import signal
from pathlib import Path

import torch
from torch import nn

FLAG = Path(__file__).with_name("killed")
x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
y = (x[:, :1] * x[:, 1:2]).tanh()


def train(trial, width=8):
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))
    optimizer = trial.optimizer(model)
    batches = list(zip(x[:200].split(20), y[:200].split(20)))
    for step, (inputs, targets) in trial.batches(batches):
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if trial.rung(step):
            with trial.evaluating(model):
                trial.report(val_loss=nn.functional.mse_loss(model(x[200:250]), y[200:250]))
            if not (trial.rehearsal or FLAG.exists()):
                FLAG.touch()
                os.kill(os.getpid(), signal.SIGKILL)
    with trial.evaluating(model):
        trial.finish(test_loss=nn.functional.mse_loss(model(x[250:]), y[250:]))
"""
SETTINGS = {
    **{"task": "own", "task._target_": "mine.train", "task.width": 4, "sweep.name": "loop", "trainer.steps": 10},
    **{"trainer.rungs": 2, "search.trials": 2, "confirm.seeds": 1, "search.over": ["lr", "task.width"]},
    "search.space.task.width": [4, 8],
}


def test_a_sweep_of_a_loop_survives_its_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.py").write_text(LOOP)
    command = [
        *("task=own", "task._target_=mine.train", "task.width=4", "sweep.name=loop", "trainer.steps=10"),
        *("trainer.rungs=2", "search.trials=2", "confirm.seeds=1", "search.over=[lr,task.width]"),
        *("search.space.task.width=[4,8]", "optimizer=adamw", "hydra.launcher.workers=1"),
        "hydra.launcher.report=false",
    ]
    run(folder, "-m", *command)
    found = numbers(folder, "loop")
    assert (folder / "killed").exists()
    assert len(found) == 2 + 1
    assert all(value is not None for _, _, value in found.values())
    assert "3 done" in run(folder, "-m", *command)
    assert numbers(folder, "loop") == found

    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test's
    (arm,) = arms_of(["adamw"], SETTINGS)
    built = build_arm(arm)
    name = next(name for name, _, _ in found)
    slot = studies(folder, "loop").history(name, Phase.CONFIRM, 1, 0).slots[0]
    work = Work(name, Phase.CONFIRM, Claim(0, 0), Slot(0, slot.params, slot.seed, "fixed"), 0)
    (again,) = built.workload_for(slot.params).train([trial_of(arm, built, work)], Silent())
    assert again.val_loss == slot.value
    assert again.test_loss is not None
