"""Whole sweeps of trials of two ranks: one process's numbers, disturbed or not, here or by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from optsweep.train.trial import Phase
from patience import PATIENCE_SECONDS
from servers.watched import ended, num_done, wait_for
from sweeping import Numbers, numbers, run, spawned_by, start, studies

SWEEP = [
    *("task=digits_mlp", "optimizer=adamw", "trainer.device=cpu", "trainer.steps=300", "trainer.rungs=3"),
    *("search.trials=2", "confirm.seeds=1", "trainer.lanes=1", "hydra.launcher.report=false", "sweep.name=small"),
]
TWO = [*SWEEP, "trainer.ranks=2"]

OWN = """
import torch
from optsweep.tasks.tabular import Table


class Partial(Table):
    def loss(self, outputs, targets):
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise ValueError("only here")
        return super().loss(outputs, targets)
"""


def values(found: Numbers) -> list[float]:
    assert None not in [value for *_, value in found.values()]
    return [value or 0.0 for *_, value in found.values()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    folder = tmp_path_factory.mktemp("two")
    run(folder, "-m", *TWO, "hydra.launcher.workers=1")
    return numbers(folder)


def test_a_sweep_of_two_ranks_has_the_numbers_of_one_process(undisturbed: Numbers, tmp_path: Path) -> None:
    run(tmp_path, "-m", *SWEEP, "hydra.launcher.workers=1")
    alone = numbers(tmp_path)
    assert alone.keys() == undisturbed.keys()
    assert len(alone) == 3
    assert values(undisturbed) == pytest.approx(values(alone), rel=1e-3)
    assert values(undisturbed) != values(alone)


def killed_in_a_trial(process: subprocess.Popen[str], checkpoints: Path) -> bool:
    """Kill the other rank of a command's worker, if its trial has a checkpoint, which is there until the trial ends."""
    pairs = [(worker, follower) for worker in spawned_by(process.pid) for follower in spawned_by(worker.pid)]
    if len(pairs) != 1:
        return False
    ((worker, follower),) = pairs
    worker.suspend()
    if caught := checkpoints.is_dir() and any(checkpoints.rglob("*.pt")):
        follower.kill()
    worker.resume()
    return caught


def test_a_rank_that_is_killed_costs_no_result(undisturbed: Numbers, tmp_path: Path) -> None:
    process = start(tmp_path, "-m", *TWO, "hydra.launcher.workers=1", "trainer.checkpoint_seconds=0.01")
    wait_for(lambda: killed_in_a_trial(process, tmp_path / "mlruns" / "checkpoints"), process)
    ended(process)
    assert numbers(tmp_path) == undisturbed
    failed = [trial.user_attrs for trial in _failed(tmp_path)]
    assert [found["error"] for found in failed] == ["rank 1 died (SIGKILL)"]
    assert failed[0]["died"]


def _failed(folder: Path) -> list[FrozenTrial]:
    store = studies(folder)
    arm = next(iter({name for name, *_ in numbers(folder)}))
    found = [trial for phase in Phase for trial in store.trials(arm, phase, 0)]
    return [trial for trial in found if trial.state is TrialState.FAIL]


def test_an_error_in_one_rank_is_the_trial_s_and_nobody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    own = [
        "task=own",
        "task._target_=mine.Partial",
        "+task.dataset=digits",
        "+task.layers=2",
        "+task.width=16",
        *TWO[1:],
        "search.trials=0",
        "sweep.retries=0",
    ]
    process = start(tmp_path, "-m", *own, "hydra.launcher.workers=1")
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, said
    error = "its first batch fails: mine.py:9, in loss: ValueError: only here"
    assert f"the first one with rank 1: task.model: {error}" in said
    assert "no timing of its steps (rank 1: " in said


def test_torchrun_s_processes_are_the_ranks_of_a_sweep_s_own_command(undisturbed: Numbers, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*torchrun, "-m", "optsweep", "-m", *TWO]
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=PATIENCE_SECONDS
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert numbers(tmp_path) == undisturbed


def test_torchrun_s_processes_help_a_sweep(undisturbed: Numbers, tmp_path: Path) -> None:
    process = start(tmp_path, "-m", *TWO, "hydra.launcher.workers=1")
    storage = f"sqlite:///{tmp_path}/mlruns/optuna.db"
    wait_for(lambda: num_done(storage, "small") > 0, process)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    helpers = subprocess.run(
        [*torchrun, "-m", "optsweep", "work", "small"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )
    assert helpers.returncode == 0, helpers.stdout + helpers.stderr
    assert "sweep small is done" in helpers.stdout
    ended(process)
    assert numbers(tmp_path) == undisturbed
