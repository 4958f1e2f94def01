"""A report of sweeps with 1,000 and 10,000 trials, from the command to the page: seconds and largest memory.

The stores are filled with made-up runs through the writers of real sweeps (tests/synthetic_store.py), which takes
some ten minutes per 10,000 trials. Seconds are those of the wall's clock, so the machine has to be idle; beside them
are those that all processes computed (user + system). The median of three reports of 1,000 trials counts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.side_by_side import Figure

from optsweep.tracking import store
from synthetic_store import FakeArm, arm, fill

SEEDS = 8
OPTIMIZERS = ("adamw", "soap", "lion", "muon", "lamb")
SCHEDULES = ("cosine", "wsd", "linear", "schedule_free")


@dataclass(frozen=True)
class Shape:
    """So many tasks × arms × trials, confirm seeds included, and what a report of them may take."""

    tasks: int
    arms: int
    trials: int
    seconds: float
    mebibytes: float | None = None
    rounds: int = 1

    @property
    def words(self) -> str:
        """ "1,000 trials: 2 arms × 500"."""
        total = self.tasks * self.arms * self.trials
        tasks = f"{self.tasks} tasks × " if self.tasks > 1 else ""
        return f"{total:,} trials: {tasks}{self.arms} arms × {self.trials}"

    @property
    def fakes(self) -> list[FakeArm]:
        """The arms, each somewhat worse than the one before."""
        pairs = [(o, s) for o in OPTIMIZERS for s in SCHEDULES][: self.arms]
        return [
            arm(f"task{task}", o, s, final=2 + place / 60 + task / 30, best_lr=3e-3)
            for task in range(self.tasks)
            for place, (o, s) in enumerate(pairs)
        ]


SHAPES = (
    Shape(tasks=1, arms=2, trials=500, seconds=10, mebibytes=1024, rounds=3),
    Shape(tasks=1, arms=20, trials=50, seconds=10, mebibytes=1024, rounds=3),
    Shape(tasks=1, arms=20, trials=500, seconds=90),
    Shape(tasks=10, arms=20, trials=50, seconds=90),
)


def run(device: torch.device) -> Iterator[Figure]:
    """Two figures a shape: seconds, and the largest memory of a process."""
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            uri = f"sqlite:///{folder}/mlflow.db"
            store.check(uri)
            trials = shape.trials - SEEDS
            fill(uri, "made-up", shape.fakes, trials=trials, seeds=SEEDS)
            computed, walls, memory = zip(*(measured(uri, Path(folder)) for _ in range(shape.rounds)), strict=True)
        wall, beside = median(walls), f"{median(computed):.1f} s computed"
        yield _figure(f"{shape.words}, time", f"{wall:.1f} s", beside, walls, shape.seconds, "s")
        yield _figure(f"{shape.words}, memory", f"{max(memory):.0f} MiB", "–", memory, shape.mebibytes, " MiB")


def measured(uri: str, folder: Path) -> tuple[float, float, float]:
    """Seconds computed, seconds on the wall's clock and largest memory in MiB of `optsweep report`."""
    command = [sys.executable, "-m", "optsweep", "report", "made-up", "--tracking-uri", uri, "--out", "report"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)  # of this process; getrusage would give the largest of all so far
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime, wall, _mebibytes(used)


def _mebibytes(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _figure(what: str, ours: str, against: str, found: Sequence[float], target: float | None, unit: str) -> Figure:
    held: dict[str, Any] = {"rounds": len(found), "expected": "", "target": target, "unit": unit}
    return Figure(what, ours, against, median(found), min(found), max(found), **held)
