"""Sweeps whose workers die, that are stopped, or whose trials crash: nothing is lost, and it is said."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from optsweep.train.trial import Phase
from patience import PATIENCE_SECONDS
from sweeping import SWEEP, Numbers, arms, have_ended, numbers, run, spawned_by, start, studies

LONGER = [*(argument for argument in SWEEP if not argument.startswith("trainer.steps")), "trainer.steps=200"]
"""Seconds of training, so that it isn't over before it is stopped."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Numbers:
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(empty_store, folder / "mlruns")
    run(folder, "-m", *LONGER, "hydra.launcher.workers=1")
    return numbers(folder)


def wait_for_training(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until at least two trials are done, of which there are many."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    done = "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
    while time.monotonic() < deadline and process.poll() is None:
        with (
            suppress(sqlite3.OperationalError),  # the store is being made
            closing(sqlite3.connect(f"file:{folder}/mlruns/optuna.db?mode=ro", uri=True)) as connection,
        ):
            if connection.execute(done).fetchone()[0] >= 2:
                return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.kill()
    pytest.fail(f"no trial started: {process.communicate()[0]}")


def test_a_killed_worker_costs_nothing_but_its_trial_s_time(undisturbed: Numbers, folder: Path) -> None:
    process = start(folder, "-m", *LONGER, "hydra.launcher.workers=2")
    wait_for_training(folder, process)
    workers = spawned_by(process.pid)
    assert workers
    workers[0].kill()
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, out
    assert numbers(folder) == undisturbed
    assert "RUNNING" not in statuses(folder)


def statuses(folder: Path, sweep: str = "small") -> set[str]:
    """Of all runs in MLflow."""
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    return {run.info.status for run in client.search_runs([experiment.experiment_id], max_results=1000)}


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_stopped_sweep_goes_on_with_the_same_command(undisturbed: Numbers, folder: Path, how: str) -> None:
    process = start(folder, "-m", *LONGER, "hydra.launcher.workers=2")
    wait_for_training(folder, process)
    children = psutil.Process(process.pid).children(recursive=True)
    if how == "interrupted":
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130, out
        assert "To go on: optsweep -m" in out
        assert "Traceback" not in out
    else:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert have_ended(children), "workers outlive their planner"
    done = {key: value for key, value in numbers(folder).items() if value[2] is not None}
    run(folder, "-m", *LONGER, "hydra.launcher.workers=1")
    after = numbers(folder)
    assert after == undisturbed
    assert {key: after[key] for key in done} == done


def test_a_task_that_crashes_is_told_apart_and_the_rest_goes_on(folder: Path) -> None:
    (folder / "fragile.py").write_text(
        "from optsweep.tasks.tabular import Table\n"
        "class Fragile(Table):\n"
        "    def __init__(self, *, broken: bool = False):\n"
        "        super().__init__(width=8)\n"
        "        self.broken = broken\n"
        "    def train_indices(self, seed, first, num_steps, batch_size):\n"
        "        if self.broken and first >= 10:\n"
        "            raise RuntimeError('the disk of data is gone')\n"
        "        return super().train_indices(seed, first, num_steps, batch_size)\n"
    )
    (folder / "conf" / "task").mkdir(parents=True)
    (folder / "conf" / "task" / "fragile.yaml").write_text(
        "name: fragile\n_target_: fragile.Fragile\nbatch_size: 64\nsteps: 20\nbroken: false\n"
    )
    arguments = ["task=fragile", "task.broken=false,true", "search.trials=2", "confirm.seeds=2", "trainer.rungs=2"]
    out = run(folder, "-m", *arguments, "sweep.name=fragile", "optimizer=momentum", "hydra.launcher.workers=1")
    found = numbers(folder, "fragile")
    assert sum(value is not None for _, _, value in found.values()) == 4
    assert "crashed" in out
    page = (folder / "reports" / "fragile" / "index.html").read_text()
    assert "the disk of data is gone" in page


def test_a_sweep_whose_trials_all_crash_fails_and_runs_again_when_asked_or_mended(folder: Path) -> None:
    source = (
        "from optsweep.tasks.tabular import Table\n"
        "class Broken(Table):\n"
        "    def train_indices(self, seed, first, num_steps, batch_size):\n"
        "        if first >= 10:\n"
        "            raise RuntimeError('the disk of data is gone')\n"
        "        return super().train_indices(seed, first, num_steps, batch_size)\n"
    )
    (folder / "broken.py").write_text(source)
    arguments = ["task=iris", "task._target_=broken.Broken", "search=none", "optimizer.lr=0.1", "optimizer=momentum"]
    arguments += ["confirm.seeds=1", "sweep.retries=0", "trainer.steps=20", "trainer.rungs=2", "sweep.name=broken"]
    arguments += ["hydra.launcher.workers=0"]

    def crashes(*command: str) -> int:
        process = start(folder, *command)
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 1, out
        assert out.splitlines()[-1].startswith(
            "optsweep: sweep.name=broken: every trial crashed, the first one with broken.py:5, in train_indices: "
            "RuntimeError: the disk of data is gone; "
        ), out
        assert "Traceback" not in out
        (arm,) = arms(folder, "broken")
        return len(studies(folder, "broken").trials(arm, Phase.CONFIRM))

    assert crashes("-m", *arguments) == 1
    assert crashes("-m", *arguments) == 1  # nothing was left to do, and it still isn't well
    assert crashes("retry", "broken") == 2
    (folder / "broken.py").write_text(source.replace("first >= 10", "first >= 1000"))
    run(folder, "-m", *arguments)
    assert [value is not None for _, _, value in numbers(folder, "broken").values()] == [True]
    assert "the disk of data is gone" not in (folder / "reports" / "broken" / "index.html").read_text()
