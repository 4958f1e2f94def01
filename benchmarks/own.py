"""A loop of one's own with `trial.optimizer`, against the same loop with torch's fused AdamW.

Model, samples, forward and backward pass are the same on both sides. Ours also logs the loss of every step, asks
`trial.rung` after each, and fetches what was logged (gradient norm and update ratio of every tenth step too) at the end
of a round, as a report does.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from benchmarks.side_by_side import Figure, Round, compare, timed
from benchmarks.trials import arm, built, by_hand, program_of, trial

from optsweep.optim.adam import AdamW
from optsweep.optim.composition import Composition
from optsweep.tasks.base import Split
from optsweep.train.own.running import RunningTrial
from optsweep.train.own.terms import Terms
from optsweep.train.program import Program
from optsweep.train.trial import Trial

TASKS = {"charlm": (25, 40), "digits_mlp": (38, 200)}
"""Steps of a round, which are those of one rung, and rounds."""


def run(device: torch.device) -> Iterator[Figure]:
    """Two models, of which only the larger one has a target."""
    for task, (stride, rounds) in TASKS.items():
        b = built(arm(task), device)
        program, numbers = program_of(b), trial(b)
        steps = by_hand(program, numbers, stride)

        def theirs(steps: Iterator[None] = steps) -> float:
            next(steps)
            return timed(lambda: next(steps), device)

        ratio = compare(_own(program, numbers, stride, device), {"": theirs}, rounds=rounds)[""]
        yield ratio.figure(
            f"{task}, a loop of one's own",
            "by hand, torch.optim.AdamW(fused=True)",
            steps=stride,
            expected="1.00" if task == "charlm" else "1.2: steps of a third of a millisecond",
            target=1.03 if task == "charlm" else None,
        )


def _own(program: Program, numbers: Trial, stride: int, device: torch.device) -> Round:
    """Rounds of `stride` steps."""
    task, module = program.task, program.model(numbers.seed)
    terms = Terms(program.num_steps, (), numbers.hyper, numbers.seed, program.batch_size, device, test=False)
    composition = Composition(AdamW(), schedule=program.schedule)
    running = RunningTrial(terms, composition, lambda report: False)
    optimizer = running.optimizer(module)
    first = 0

    def steps(indices: torch.Tensor) -> None:
        for batch in indices:
            inputs, targets = task.batch(Split.TRAIN, batch)
            loss = task.loss(module(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            running.log(train_loss=loss)
            running.rung()
        running.losses.take()
        for norms in optimizer.take_norms():
            float(norms.grad_norm), float(norms.update_ratio)

    def round_() -> float:
        nonlocal first
        indices = torch.from_numpy(task.train_indices(numbers.seed, first, stride, program.batch_size)).to(device)
        first += stride
        return timed(lambda: steps(indices), device)

    return round_
