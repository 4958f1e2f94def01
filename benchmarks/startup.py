"""What a command costs before, and without, any training: process seconds of `--help`, a second call, `status`.

A second call is one of a sweep that is finished, of four arms. Process seconds are those of the command and of whatever
it starts, so that other programs on the machine hardly count. How long an arm takes to be composed stands beside.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from benchmarks.side_by_side import Figure, spread
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from optsweep.config.compose import compose, register
from optsweep.config.door import arm_of
from optsweep.launcher import ComposedOnce

ROUNDS, CALLS = 20, 5
SWEEP = (
    *("-m", "task=iris_mlp", "optimizer=adamw,soap", "schedule=cosine,schedule_free", "trainer.steps=50"),
    *("search.trials=4", "confirm.seeds=2", "sweep.name=finished", "hydra.launcher.workers=2"),
)


def run(device: torch.device) -> list[Figure]:
    """Figures in seconds; the interpreter's own start beside the first."""
    nothing = spread([_seconds("-c", "pass") for _ in range(ROUNDS)])[1]
    helping = [_seconds("-m", "optsweep", "--help") for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory() as folder:
        first = _seconds("-m", "optsweep", *SWEEP, folder=Path(folder))
        again = [_seconds("-m", "optsweep", *SWEEP, folder=Path(folder)) for _ in range(CALLS)]
        looking = [_seconds("-m", "optsweep", "status", "finished", folder=Path(folder)) for _ in range(CALLS)]
    return [
        _figure("optsweep --help", helping, f"python -c pass: {nothing:.3f} s", "0.1", 0.5),
        _figure("a second call of a finished sweep of four arms", again, f"the first: {first:.1f} s", "1", 3.0),
        _figure("optsweep status", looking, f"python -c pass: {nothing:.3f} s", "0.8", 1.0),
        _figure("an arm composed and validated", _composed(), "–", "0.05", 0.05),
    ]


def _figure(what: str, seconds: list[float], against: str, expected: str, target: float) -> Figure:
    low, middle, high = spread(seconds)
    return Figure(
        what=what,
        ours=f"{middle:.3f} s",
        against=against,
        value=middle,
        low=low,
        high=high,
        rounds=len(seconds),
        expected=expected,
        target=target,
        unit="s",
    )


def _seconds(*arguments: str, folder: Path | None = None) -> float:
    """Process seconds of a command of Python's, its children included."""

    def spent() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    before = spent()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return spent() - before


def _composed() -> list[float]:
    """Seconds for each of an optimizer's and a schedule's combinations, as a multirun composes them."""
    register()
    multirun = compose(["sweep.name=composed"])
    GlobalHydra.instance().clear()
    with initialize_config_module("optsweep.conf", version_base="1.3"):
        loader = ComposedOnce(GlobalHydra.instance().config_loader().get_search_path())
    jobs = [
        [f"optimizer={optimizer}", f"schedule={schedule}", "sweep.name=composed"]
        for optimizer in ("adamw", "soap", "muon", "lion", "lamb", "momentum")
        for schedule in ("cosine", "linear", "constant", "schedule_free")
    ]
    seconds = []
    for job in jobs:
        begin = time.process_time()
        arm_of(loader.load_sweep_config(multirun, job), ())
        seconds.append(time.process_time() - begin)
    return seconds
