"""What it costs that trials are kept and held: whole trials as a worker trains them, with checkpoints and without.

With the default, no trial of these lengths is kept: what is measured is the look at the clock after each step. So they
are also kept ten times each, from which the cost of a checkpoint follows, and its share of the time between two. A
lease is renewed from a thread every few seconds; what one renewal takes is held against that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from benchmarks.side_by_side import Figure, compare, spread, timed, wall
from benchmarks.trials import arm, built, program_of, trial

from optsweep.config.sections import TrainerConfig
from optsweep.launch.checkpoints import BatchCheckpoints, Checkpoints, Owner
from optsweep.launch.leases import LEASE_SECONDS
from optsweep.search.heartbeat import BEAT_SECONDS
from optsweep.search.ownership import Claim
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies, Work
from optsweep.train.checkpoint import NoCheckpoints, Saved
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.trial import Phase, Trial

TASKS = {"digits_mlp": 12, "charlm": 4}
"""Rounds; a round is a trial, evaluated three times."""

STEPS = {"digits_mlp": 2000, "charlm": 60}
"""Of a trial."""

SECONDS = TrainerConfig(steps=2).checkpoint_seconds


def run(device: torch.device) -> Iterator[Figure]:
    """The default against none, the cost of one checkpoint, and that of a lease."""
    for task, rounds in TASKS.items():
        b = built(arm(task, "trainer.rungs=2", steps=STEPS[task]), device)
        program, given = program_of(b), trial(b)
        with tempfile.TemporaryDirectory() as folder:
            yield _default(task, program, given, rounds, Checkpoints(Path(folder)), device)
            yield _kept(task, program, given, rounds, Checkpoints(Path(folder)), device)
    yield _lease()


def _work() -> Work:
    return Work("benchmark", Phase.SEARCH, Claim(0, 0), Slot(0, {}, 0, "fixed"), 0, id="benchmark")


def _default(
    task: str, program: Program, given: Trial, rounds: int, files: Checkpoints, device: torch.device
) -> Figure:
    """Trials shorter than `checkpoint_seconds`: the look at the clock alone."""

    def with_() -> float:
        kept = BatchCheckpoints(files, [_work()], "benchmark", SECONDS)
        return timed(lambda: train_all(program, [given], None, kept), device)

    ratio = compare(with_, {"": lambda: timed(lambda: train_all(program, [given]), device)}, rounds=rounds)[""]
    what = f"{task}, a trial with checkpoints by default, never written"
    return ratio.figure(what, "without", steps=program.num_steps, expected="1.000", target=1.01)


@dataclass
class _Often(NoCheckpoints):
    """Keeps a trial `count` times, and notes what that takes."""

    files: Checkpoints
    device: torch.device
    every: int
    seconds: list[float] = field(default_factory=list)
    due: float = 0.0
    asked: int = 0

    def pause(self, states: Callable[[], Mapping[int, Saved]]) -> None:
        """Write the state each `every`-th time."""
        self.asked += 1
        if self.asked % self.every == 0 and (found := states()):
            self.seconds.append(wall(lambda: self._write(found), self.device))

    def _write(self, states: Mapping[int, Saved]) -> None:
        for state in states.values():
            self.files.write("benchmark", Owner("benchmark", "trial"), state)


def _kept(task: str, program: Program, given: Trial, rounds: int, files: Checkpoints, device: torch.device) -> Figure:
    """Seconds of a checkpoint, by the wall's clock, waiting for the disk included, as a share of those between two."""
    often = _Often(files, device, every=max(1, program.num_steps // 10))
    begin = time.perf_counter()
    train_all(program, [given], None, often)
    seconds = time.perf_counter() - begin
    low, middle, high = spread([100 * value / SECONDS for value in often.seconds])
    size = (files.folder / "benchmark.pt").stat().st_size if (files.folder / "benchmark.pt").exists() else 0
    return Figure(
        what=f"{task}, a checkpoint every {SECONDS:g} s, share of the time",
        ours=f"{1000 * median(often.seconds):.1f} ms each, {size / 2**20:.2f} MiB",
        against=f"{len(often.seconds)} in a trial of {seconds:.1f} s",
        value=middle,
        low=low,
        high=high,
        rounds=len(often.seconds),
        expected="0.05",
        target=1.0,
        unit=" %",
    )


def _lease(rounds: int = 50) -> Figure:
    """Seconds of a renewal, as a share of the time between two."""
    with tempfile.TemporaryDirectory() as folder:
        studies = Studies.open(f"sqlite:///{folder}/optuna.db", "benchmark")
        seat = studies.take_seat(["arm"], whole=True)
        studies.enqueue(seat, "arm", Phase.SEARCH, Slot(0, {}, 0, "fixed"))
        (work,) = studies.pop("arm", Phase.SEARCH, "benchmark", LEASE_SECONDS, 1)
        cpu = torch.device("cpu")
        seconds = [wall(lambda: studies.renew(work.claim, LEASE_SECONDS), cpu) for _ in range(rounds)]
    low, middle, high = spread([100 * value / BEAT_SECONDS for value in seconds])
    return Figure(
        what=f"a lease, renewed every {BEAT_SECONDS:g} s beside the training, share of the time",
        ours=f"{1000 * median(seconds):.1f} ms each",
        against="SQLite on this disk",
        value=middle,
        low=low,
        high=high,
        rounds=rounds,
        expected="0.05",
        target=1.0,
        unit=" %",
    )
