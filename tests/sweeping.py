"""Whole sweeps on the command line, and what they leave in their stores."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
from mlflow import MlflowClient

from optsweep.search.space import Value
from optsweep.search.studies import Studies
from optsweep.tracking import names
from optsweep.train.trial import Phase
from patience import PATIENCE_SECONDS

SWEEP = [
    *("optimizer=momentum,soap", "schedule=cosine,schedule_free", "weight_decay=decoupled", "task=digits_mlp"),
    *("search.trials=4", "search.over=[lr,weight_decay]", "confirm.seeds=2", "trainer.steps=20", "task.width=8"),
    *("trainer.rungs=2", "sweep.name=small", "hydra.launcher.report=false"),
]
Numbers = dict[tuple[str, str, int], tuple[dict[str, Value], int, float | None]]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "optsweep", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which background jobs of a shell ignore
    )


def run(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, out
    return out


def spawned_by(pid: int) -> list[psutil.Process]:
    """Processes that it has started, by Python's multiprocessing, and that run now."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children():
            with suppress(psutil.Error):  # it has just ended
                found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def have_ended(processes: Iterable[psutil.Process]) -> bool:
    """Wait until they have; whether anybody has asked how a process ended makes no difference."""
    until = time.monotonic() + PATIENCE_SECONDS
    left = list(processes)
    while left and time.monotonic() < until:
        left = [process for process in left if _runs(process)]
        time.sleep(0.05)
    return not left


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def studies(folder: Path, sweep: str = "small") -> Studies:
    return Studies.open(f"sqlite:///{folder}/mlruns/optuna.db", sweep)


def arms(folder: Path, sweep: str = "small") -> list[str]:
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{names.KIND}` = 'arm'")
    return sorted(run.data.tags[names.ARM] for run in runs)


def numbers(folder: Path, sweep: str = "small", repeat: int = 0) -> Numbers:
    """Everything that was decided and found, by arm, phase and slot."""
    store = studies(folder, sweep)
    found: Numbers = {}
    for arm in arms(folder, sweep):
        for phase in Phase:
            for number, slot in store.history(arm, phase, 1, repeat).slots.items():
                found[arm, phase.value, number] = (dict(slot.params), slot.seed, slot.value)
    return found
