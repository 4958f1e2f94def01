"""Milliseconds per step of optsweep's loop with one lane, against a loop written by hand for the same model and data.

Ours is timed as a whole from rung to rung: coefficients, samples and logged points (losses of every step, gradient norm
and update ratio of every tenth) included; evaluation is excluded on both sides. With tracking, whole trials are
compared, all that a worker does around them included: MLflow and the study, both in SQLite on this disk.

Datasets are map-style ones: ours is held against a loop over a DataLoader of the same Dataset, both without workers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.side_by_side import Figure, Round, compare, timed, wall
from benchmarks.trials import Batch, arm, built, by_hand, over_loader, program_of, run_of, trial
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from optsweep.build.assemble import Built
from optsweep.config.arm import Arm
from optsweep.launch.builds import Builds
from optsweep.launch.leases import LEASE_SECONDS, LeaseKeeper
from optsweep.launch.worker import Job, Worker, trial_of
from optsweep.search.slots import Slot
from optsweep.tasks.networks import MLP, ConvNet
from optsweep.tasks.pieces import Pieces
from optsweep.tasks.shipped import mnist_5k, table
from optsweep.tracking import store
from optsweep.tracking.writer import Tracker
from optsweep.train.evaluate import evaluate
from optsweep.train.loop import train_all
from optsweep.train.trial import Phase

TASKS = {"charlm": 40, "digits_mlp": 200}
"""Rounds per task; a round is one rung of the task's default trial."""

TRIALS = {"charlm": 3, "digits_mlp": 15}
"""Rounds of whole trials."""

BY_HAND = "by hand, torch.optim.AdamW(fused=True)"


def run(device: torch.device) -> Iterator[Figure]:
    """One lane against the loop by hand: bare, over whole trials with tracking, and over Datasets."""
    for task, rounds in TASKS.items():
        yield _loop(task, rounds, device)
        yield _whole(task, device)
    yield _dataset("MLP", Rows(), Rows.model, 200, device)
    yield _dataset("CNN, augmented", Shifted(), Shifted.model, 15, device)


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
    return ratio.figure(f"{task}, loop", BY_HAND, steps=stride, expected="1.00", target=1.02)


class Rows(Dataset[Batch]):
    """Digits of scikit-learn, a row of 64 pixels each."""

    def __init__(self) -> None:
        features, targets = table("digits")
        self.x, self.y = torch.tensor(features, dtype=torch.float32) / 16, torch.tensor(targets)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Batch:
        return self.x[index], self.y[index]

    @staticmethod
    def model() -> nn.Module:
        """That of digits_mlp."""
        return MLP(64, 64, 2, 10)


class Shifted(Dataset[Batch]):
    """Images of MNIST, moved by up to two pixels at random."""

    def __init__(self) -> None:
        images, targets = mnist_5k()
        self.x, self.y = torch.tensor(images)[:, None], torch.tensor(targets)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Batch:
        down, right = torch.randint(-2, 3, (2,)).tolist()
        return self.x[index].roll((down, right), (1, 2)).float() / 255, self.y[index]

    @staticmethod
    def model() -> nn.Module:
        """That of mnist5k_cnn."""
        return ConvNet(1, 28, (8, 16), 10)


def _dataset(
    what: str, dataset: Dataset[Batch], model: Callable[[], nn.Module], rounds: int, device: torch.device
) -> Figure:
    """A Dataset against a loop over a DataLoader of the same."""
    task = Pieces(model, dataset)
    b, stride = built(arm("digits_mlp"), device, task), _rung_steps("digits_mlp", device)
    program = program_of(b)
    run = run_of(program, [trial(b)])
    loader = DataLoader(
        dataset,
        program.batch_size,
        shuffle=True,
        drop_last=True,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
    )
    steps = over_loader(program, trial(b), stride, loader)

    def theirs() -> float:
        next(steps)
        return timed(lambda: next(steps), device)

    ratio = compare(lambda: timed(lambda: run.advance(run.tick + stride), device), {"": theirs}, rounds=rounds)[""]
    against = "over a DataLoader by hand, torch.optim.AdamW(fused=True)"
    return ratio.figure(f"Dataset, {what}", against, steps=stride, expected="1.03", target=1.05)


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
            with LeaseKeeper(worker.studies) as leases, _evaluation_clock(device) as evaluation:
                reporter = worker.reporter(job, leases)
                reporter.open(reporter.hold(work), b)
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
    what = f"{task}, whole trial with tracking: pop, open, train, write, tell"
    return ratio.figure(what, BY_HAND, steps=program.num_steps, expected=expected, target=1.05)


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
        yield Worker([job], builds=Builds(str(device)))
