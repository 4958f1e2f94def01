"""What it costs that trials are kept and held: the loop with checkpoints and without.

By default nothing is written in the first minute: what is measured is the look at the clock after each step. What a
checkpoint takes is timed by itself, ten in a row of steps, by the wall's clock, and stated as a share of the time from
one to the next; a lease, which a thread renews every few seconds, likewise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import torch
from benchmarks.side_by_side import Figure, compare, spread, timed, wall
from benchmarks.trials import arm, built, program_of, trial

from optsweep.config.sections import TrainerConfig
from optsweep.launch.worker.checkpoints import Checkpoints, Owner, TrialCheckpoints
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.search.heartbeat import BEAT_SECONDS
from optsweep.search.ownership import Claim
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies, Work
from optsweep.train.checkpoint import NO_CHECKPOINTS, Checkpointer, NoCheckpoints, Saved
from optsweep.train.program import Program
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Phase, Trial

TASKS = {"digits_mlp": (200, 38), "charlm": (40, 25)}
"""Rounds, and the steps of one: from one rung to the next in a trial of default length."""

KEPT = 10
"""Checkpoints that are timed."""

SECONDS = TrainerConfig(steps=2).checkpoint_seconds


def run(device: torch.device) -> Iterator[Figure]:
    """The default against none, the cost of one checkpoint, and that of a lease."""
    for task, (rounds, steps) in TASKS.items():
        b = built(arm(task), device)
        program, given = program_of(b), trial(b)
        with tempfile.TemporaryDirectory() as folder:
            files = Checkpoints(Path(folder))
            yield _default(task, program, given, rounds, steps, files, device)
            yield _kept(task, program, given, files, device)
    yield _lease()


def _work() -> Work:
    return Work("benchmark", Phase.SEARCH, Claim(0, 0), Slot(0, {}, 0, "fixed"), 0, id="benchmark")


def _begun(program: Program, given: Trial, checkpointer: Checkpointer) -> Run:
    """A trial before its first step."""
    checkpointer.begin()
    return Run(program, [given], Silent(), rare=program.traits.missing, checkpointer=checkpointer)


def _default(
    task: str, program: Program, given: Trial, rounds: int, steps: int, files: Checkpoints, device: torch.device
) -> Figure:
    """Nothing is written: the look at the clock alone."""
    kept = TrialCheckpoints(files, "benchmark", 1e6)
    kept.add(given.key, _work(), device, lambda: ())
    runs = [_begun(program, given, checkpointer) for checkpointer in (kept, NO_CHECKPOINTS)]
    ours, theirs = (partial(_advance, run, steps, device) for run in runs)
    what = f"{task}, checkpoints every {SECONDS:g} s, between two"
    ratio = compare(ours, {"": theirs}, rounds=rounds)[""]
    return ratio.figure(what, "without", steps=steps, expected="1.000", target=1.01)


def _advance(run: Run, steps: int, device: torch.device) -> float:
    return timed(lambda: run.advance(run.tick + steps), device)


@dataclass
class _Often(NoCheckpoints):
    """Keeps a trial after every step, and notes what that takes."""

    files: Checkpoints
    device: torch.device
    seconds: list[float] = field(default_factory=list)
    due: float = 0.0

    def pause(self, states: Callable[[], Mapping[int, Saved]]) -> None:
        """Take the state, and write it."""
        self.seconds.append(wall(lambda: self._write(states), self.device))

    def _write(self, states: Callable[[], Mapping[int, Saved]]) -> None:
        for state in states().values():
            self.files.write("benchmark", Owner("benchmark", "trial"), state)


def _kept(task: str, program: Program, given: Trial, files: Checkpoints, device: torch.device) -> Figure:
    """Seconds of a checkpoint, waiting for the disk included, as a share of those between two."""
    often = _Often(files, device)
    run = _begun(program, given, often)
    for _ in range(KEPT):
        run.advance(run.tick + 1)
        often.pause(run.states)
    low, middle, high = spread([100 * value / SECONDS for value in often.seconds])
    size = (files.folder / "benchmark.pt").stat().st_size
    return Figure(
        what=f"{task}, a checkpoint, of the {SECONDS:g} s from one to the next",
        ours=f"{1000 * median(often.seconds):.1f} ms, {size / 2**20:.2f} MiB",
        against="on the wall's clock",
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
        what=f"a lease, renewed beside the training, of the {BEAT_SECONDS:g} s from one renewal to the next",
        ours=f"{1000 * median(seconds):.1f} ms",
        against="SQLite on this disk",
        value=middle,
        low=low,
        high=high,
        rounds=rounds,
        expected="0.05",
        target=1.0,
        unit=" %",
    )
