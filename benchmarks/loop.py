"""Milliseconds per step of optsweep's loop with one lane, against a loop written by hand for the same model and data.

Ours is timed as a whole from rung to rung: coefficients, samples and logged points (losses of every step, gradient norm
and update ratio of about 50) included; evaluation is excluded on both sides. Whole trials are in whole.py.

Datasets are map-style ones: ours is held against a loop over a DataLoader of the same Dataset, both without workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from benchmarks.side_by_side import Figure, Round, compare, timed
from benchmarks.trials import Batch, arm, built, by_hand, over_loader, program_of, run_of, trial
from benchmarks.whole import whole
from torch import nn
from torch.utils.data import DataLoader, Dataset

from optsweep.build.assemble import Built
from optsweep.tasks.networks import MLP, ConvNet
from optsweep.tasks.pieces import Pieces
from optsweep.tasks.shipped import mnist_5k, table
from optsweep.train.program import Program

TASKS = {"charlm": 40, "digits_mlp": 200}
"""Rounds per task; a round is one rung of the task's default trial."""

TRIALS = {"charlm": 3, "digits_mlp": 15}
"""Rounds of whole trials."""

BY_HAND = "by hand, torch.optim.AdamW(fused=True)"


def run(device: torch.device) -> Iterator[Figure]:
    """One lane against the loop by hand: bare, over whole trials, and over Datasets."""
    for task, rounds in TASKS.items():
        yield _loop(task, rounds, device)
        yield from whole(task, TRIALS[task], device)
    yield _dataset("MLP", Rows(), Rows.model, 200, device)
    yield _dataset("CNN, augmented", Shifted(), Shifted.model, 15, device)


def _rung_steps(task: str, device: torch.device) -> int:
    """Steps from one rung to the next in a trial of default length."""
    return _of_default_length(task, device).rung_steps()[0]


def _of_default_length(task: str, device: torch.device) -> Program:
    return program_of(built(arm(task, "trainer.steps=null"), device))


def _by_hand(b: Built, stride: int, device: torch.device) -> Round:
    steps = by_hand(program_of(b), trial(b), stride)

    def round_() -> float:
        next(steps)
        return timed(lambda: next(steps), device)

    return round_


def _loop(task: str, rounds: int, device: torch.device) -> Figure:
    every = _of_default_length(task, device).log_every
    b, stride = built(arm(task, f"trainer.log_every={every}"), device), _rung_steps(task, device)
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
