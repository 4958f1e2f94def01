"""Milliseconds per step of optsweep's loop with one lane, against a loop written by hand for the same model and data.

Ours is timed as a whole from rung to rung: coefficients, samples and logged points (losses of every step, gradient norm
and update ratio of every tenth) included; evaluation is excluded on both sides. With tracking, whole trials are
compared, all that a worker does around them included: MLflow and the study, both in SQLite on this disk.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.side_by_side import Figure, Ratio, Round, compare, timed, wall
from benchmarks.trials import arm, built, by_hand, program_of, run_of, trial
from torch import Tensor

from optsweep.build.assemble import Built
from optsweep.config.arm import Arm
from optsweep.launch.leases import LEASE_SECONDS, LeaseKeeper
from optsweep.launch.worker import Job, Worker, _Reporter, trial_of
from optsweep.search.slots import Slot
from optsweep.tracking import store
from optsweep.tracking.writer import Tracker
from optsweep.train.evaluate import evaluate
from optsweep.train.loop import train_all
from optsweep.train.trial import Phase

TASKS = {"charlm": 40, "digits_mlp": 200}
"""Rounds per task; a round is one rung of the task's default trial."""

TRIALS = {"charlm": 3, "digits_mlp": 15}
"""Rounds of whole trials."""


def run(device: torch.device) -> Iterator[Figure]:
    """One lane against the loop by hand: bare, and over whole trials with tracking."""
    for task, rounds in TASKS.items():
        yield _loop(task, rounds, device)
        yield _whole(task, device)


def _rung_steps(task: str, device: torch.device) -> int:
    """Steps from one rung to the next in a trial of default length."""
    whole = built(arm(task, "trainer.steps=null"), device).program
    return whole.rung_steps()[0]


def _by_hand(b: Built, stride: int, device: torch.device) -> Round:
    steps = by_hand(program_of(b), trial(b), stride)

    def round_() -> float:
        next(steps)
        return timed(lambda: next(steps), device)

    return round_


def _loop(task: str, rounds: int, device: torch.device) -> Figure:
    b, stride = built(arm(task), device), _rung_steps(task, device)
    run = run_of(program_of(b), [trial(b)])
    ratio = compare(
        lambda: timed(lambda: run.advance(run.tick + stride), device),
        {"by hand": _by_hand(b, stride, device)},
        rounds=rounds,
    )["by hand"]
    return _figure(f"{task}, loop", ratio, 1.02, "1.00", stride)


def _whole(task: str, device: torch.device) -> Figure:
    """Whole trials, popped, opened, trained, written and told as a worker does it; evaluation subtracted."""
    a = arm(task, "trainer.steps=null")
    b = built(a, device)
    program = program_of(b)
    with _worker(a, b, device) as worker:
        job = worker.jobs[0]
        seat = worker.studies.take_seat([a.name], whole=True)

        def ours() -> float:
            worker.studies.enqueue(seat, a.name, Phase.SEARCH, Slot(0, {}, 0, "fixed"))
            begin = time.perf_counter()
            (work,) = worker.studies.pop(a.name, Phase.SEARCH, worker.name, LEASE_SECONDS, 1)
            with LeaseKeeper(worker.studies, [work.claim]) as leases, _evaluation_clock(device) as evaluation:
                reporter = _Reporter(worker, job, leases)
                reporter.open([work], b)
                train_all(program, [trial_of(a, b, work)], reporter)
            return time.perf_counter() - begin - sum(evaluation)

        def theirs() -> float:
            begin = time.perf_counter()
            steps = by_hand(program, trial(b), program.num_steps)
            next(steps)
            next(steps)
            return time.perf_counter() - begin

        ratio = compare(ours, {"by hand": theirs}, rounds=TRIALS[task], warmup=1)["by hand"]
    expected = "1.07: a trial of half a second has fixed costs" if task == "digits_mlp" else "1.02"
    return _figure(
        f"{task}, whole trial with tracking: pop, open, train, write, tell", ratio, 1.05, expected, program.num_steps
    )


def _figure(what: str, ratio: Ratio, target: float | None, expected: str, steps: int) -> Figure:
    return Figure(
        what=what,
        ours=f"{1000 * ratio.ours / steps:.3f} ms/step",
        against=f"by hand, torch.optim.AdamW(fused=True): {1000 * ratio.theirs / steps:.3f} ms/step",
        value=ratio.value,
        low=ratio.low,
        high=ratio.high,
        rounds=ratio.rounds,
        expected=expected,
        target=target,
    )


@contextmanager
def _evaluation_clock(device: torch.device) -> Iterator[list[float]]:
    """Seconds of every evaluation inside."""
    seconds: list[float] = []

    def clocked(*args: Any) -> Tensor:
        result: list[Tensor] = []
        seconds.append(wall(lambda: result.append(evaluate(*args)), device))
        return result[0]

    with patch("optsweep.train.run.evaluate", clocked):
        yield seconds


@contextmanager
def _worker(a: Arm, b: Built, device: torch.device) -> Iterator[Worker]:
    """A worker over stores in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        uri, storage = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db"
        a = replace(a, tracking_uri=uri, storage=storage)
        store.check(uri)
        tracker = Tracker(uri, a.sweep)
        job = Job(a, "adamw + cosine", b.fingerprint, tracker.arm_run(a.name, "adamw + cosine"))
        yield Worker([job], device=str(device))
