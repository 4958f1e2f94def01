"""The same search of one learning rate by plain Optuna, by Ray Tune and by optsweep, all on this machine, in turn.

Each is a command that is started in an empty folder, and is timed on the wall's clock until it has ended: imports,
the making of the databases, planning and tracking included, for optsweep its timing of arms, its trials on fresh seeds
and its report too. Same data, model, steps and evaluations, curves of 50 points in MLflow on SQLite. Plain Optuna is a
hand-written loop (benchmarks/peers_loop.py: fused AdamW, cosine, a trial's curves written in one call) in two processes
on one study (TPE, SQLite); Ray Tune runs the same loop, two trials at a time, as Ray comes (a process per trial): a few
trials, of whose seconds (the start of Ray counts once) those of as many trials as the others have are computed.
optsweep is its command line with its defaults and `hydra.launcher.workers=2`. Ratios are theirs ÷ ours: above 1
optsweep is faster.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from benchmarks.side_by_side import Figure, SkippedError, spread

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Search:
    """So many trials of a task, and how much faster than the others they should be."""

    task: str
    trials: int
    target: float  # theirs ÷ ours, plain Optuna
    ray_target: float | None = None


SEARCHES = (Search("digits_mlp", 400, 3.0, 50.0), Search("charlm_tiny", 40, 1.1), Search("iris_mlp", 400, 4.0))
QUICK = (Search("digits_mlp", 20, 1.0), Search("charlm_tiny", 4, 1.0), Search("iris_mlp", 20, 1.0))
ROUNDS = 3
RAY_TRIALS = 6


@dataclass(frozen=True)
class Command:
    """What a contestant took: seconds, trials that MLflow has as finished, points of each, and what it printed."""

    seconds: float
    trials: int
    points: float
    output: str


def run(device: torch.device) -> Iterator[Figure]:
    """Ours against plain Optuna, round by round, and against Ray Tune, once."""
    return _compare(device, SEARCHES, ROUNDS, RAY_TRIALS)


def quick(device: torch.device) -> Iterator[Figure]:
    """The same with a few trials, one round of each."""
    return _compare(device, QUICK, 1, 2)


def _compare(device: torch.device, searches: tuple[Search, ...], rounds: int, ray_trials: int) -> Iterator[Figure]:
    if device.type != "cpu":
        raise SkippedError("plain Optuna and Ray Tune are held against optsweep on a CPU's cores")
    for search in searches:
        pairs = []
        for round_ in range(rounds):
            sides: list[Callable[[Search], Command]] = [_ours, _optuna]
            found = {side: side(search) for side in (sides if round_ % 2 else reversed(sides))}
            pairs.append((found[_ours], found[_optuna]))
        ours, theirs = pairs[-1]
        told = [f"{side.trials} trials of {side.points:.0f} points" for side in (ours, theirs)]
        yield _figure(
            search, [(a.seconds, b.seconds) for a, b in pairs], told[0], f"plain Optuna × 2: {told[1]}", search.target
        )
        if find_spec("ray") is None:
            print("  Ray Tune is not installed: pip install -e '.[peers]'")
            continue
        seconds, said = _ray(search, ray_trials)
        own = median(a.seconds for a, _ in pairs)
        yield _figure(search, [(own, seconds)], told[0], said, search.ray_target)


def _figure(
    search: Search, seconds: list[tuple[float, float]], ours: str, against: str, target: float | None
) -> Figure:
    low, middle, high = (
        spread([b / a for a, b in seconds]) if len(seconds) > 1 else (seconds[0][1] / seconds[0][0],) * 3
    )
    own, other = (median(side) for side in zip(*seconds, strict=True))
    return Figure(
        what=f"{search.trials} trials of {search.task}",
        ours=f"{own:.1f} s ({ours})",
        against=f"{other:.1f} s ({against})",
        value=middle,
        low=low,
        high=high,
        rounds=len(seconds),
        expected="",
        target=target,
        at_least=True,
    )


def _ours(search: Search) -> Command:
    options = ["optimizer=adamw", "schedule=cosine", "hydra.launcher.workers=2", "sweep.name=peers"]
    return _timed(["optsweep", f"task={search.task}", f"search.trials={search.trials}", *options], "mlruns/mlflow.db")


def _optuna(search: Search) -> Command:
    return _timed(["benchmarks.peers_optuna", search.task, str(search.trials)], "mlflow.db")


def _ray(search: Search, trials: int) -> tuple[float, str]:
    """Seconds that all trials would take, and how that was computed."""
    trials = min(trials, search.trials)
    found = _timed(["benchmarks.peers_ray", search.task, str(trials)], "mlflow.db")
    of_trials = float(found.output.split()[-1])
    each, start = of_trials / trials, found.seconds - of_trials
    return start + search.trials * each, f"Ray Tune: {start:.1f} s and {each:.2f} s a trial, of which {trials} were run"


def _timed(module: list[str], database: str) -> Command:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-m", *module]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise SkippedError(f"{' '.join(module)} failed: {done.stderr.strip()[-500:]}")
        with closing(sqlite3.connect(Path(folder, database))) as connection:
            (trials,) = connection.execute(_TRIALS).fetchone()
            (points,) = connection.execute("SELECT count(*) FROM metrics").fetchone()
    return Command(seconds, trials, points / trials, done.stdout)


_TRIALS = "SELECT count(*) FROM runs WHERE status = 'FINISHED' AND run_uuid IN (SELECT run_uuid FROM metrics)"
