"""What `check` tries of one task, and how it says what it found: its data, its model, the same trial twice."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from optsweep.errors import UserError
from optsweep.launch.cost import Evaluations
from optsweep.launch.verify import TOLERANCE
from optsweep.report.wording import listed, number, plural, size
from optsweep.tasks.base import Split
from optsweep.train.device import peak_bytes
from optsweep.train.inspection import Inspection, data_order, inspect_model
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.trial import End, Outcome, Rung, Trial

STEPS = 10
"""Of a trial that is only tried."""

HIGH, LOW = 1.5, 0.5
"""Multiples of an uninformed guess's loss between which a loss at the start is an ordinary one."""

Lines = list[str]
"""Remarks or findings that are added to."""


def facts_of(program: Program) -> str:
    """Samples of the splits, and of a batch."""
    sizes = " · ".join(f"{split} {program.task.size(split):,}" for split in Split)
    return f"{sizes} samples; batches of {program.batch_size:,}"


def model_said(program: Program, remarks: Lines, findings: Lines) -> Iterator[tuple[str, str]]:
    """Shapes, parameters, the loss at the start, gradients. Raises whatever the model raises."""
    found = inspect_model(program)
    yield "first batch", f"{', '.join(found.batch)} → outputs {', '.join(found.outputs) or 'without tensors'}"
    yield "model", f"{program.num_parameters:,} parameters in {plural(found.tensors, 'tensor')}, {found.dtype}"
    yield "loss at start", _start(found, remarks)
    yield "gradients", _gradients(found, findings, remarks)


def _start(found: Inspection, remarks: Lines) -> str:
    loss, chance = found.loss, found.uninformed_loss
    if chance is None:
        return f"{loss:.4g}; what a guess would cost isn't known"
    told = f"{loss:.4g}; a guess that knows nothing costs {chance:.4g}"
    if loss > HIGH * chance:
        remarks.append(
            f"the loss at the start is {loss:.3g}, {loss / chance:.2g} times that of a guess that knows nothing; look at "
            f"the scale of the inputs and of the initial weights"
        )
    elif loss < LOW * chance:
        remarks.append(
            f"the loss at the start is {loss:.3g}, and a guess that knows nothing costs {chance:.3g}; pretrained weights "
            f"do that, and inputs that hold the answer"
        )
    return told


def _gradients(found: Inspection, findings: Lines, remarks: Lines) -> str:
    if found.bad_gradient:
        findings.append(f"task.loss: the gradient of {_names(found.bad_gradient)} isn't finite at the first batch")
    if found.zero_gradient:
        remarks.append(f"the first batch gives {_names(found.zero_gradient)} a gradient of zeros")
    kinds = {
        "none": found.without_gradient,
        "zeros": found.zero_gradient,
        "not finite": found.bad_gradient,
    }
    told = [f"{what} for {_names(names)}" for what, names in kinds.items() if names]
    return "; ".join(told) or "every parameter has one"


def _names(names: tuple[str, ...], most: int = 4) -> str:
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return listed(shown)


def data_said(program: Program, remarks: Lines, findings: Lines) -> str:
    """Whether the order of the data is the trial seed's."""
    order = data_order(program, STEPS)
    if not order.repeats:
        findings.append(
            "task.train: the same seed gives other batches each time; draw from torch's, Python's or numpy's global "
            "generator, which are seeded, or from the seed that a stream's function gets"
        )
        return "not seeded"
    if not order.differs:
        remarks.append("task.train: all seeds see the same batches in the same order")
        return "the same for all seeds"
    return "seeded: the same batches for one seed, others for another"


def lanes_said(alone: str) -> str:
    """Whether several trials can train in one process at once."""
    return f"one trial after the other, because {alone}" if alone else "possible (trainer.lanes=4)"


def memory_said(program: Program) -> str:
    """Peak memory so far."""
    peak = size(peak_bytes(program.device))
    return f"at most {peak} on the device" if program.device.type == "cuda" else f"this process took at most {peak}"


# -- the same trial twice ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Twice:
    """What the same short trial came to, once and again."""

    difference: float  # largest relative one of all numbers
    step: int  # at which it begins; 0: before the first
    values: tuple[float, float]  # there
    evaluations: Evaluations

    def said(self, remarks: Lines, findings: Lines) -> str:
        """In a line."""
        if not self.difference:
            return "the same numbers, bitwise"
        where = f"step {self.step}" if self.step else "the start"
        if self.difference <= TOLERANCE:
            remarks.append(
                f"the same seed twice gives numbers that differ by {self.difference:.1g} (relative) from {where} on; "
                f"trainer.deterministic=true asks for deterministic algorithms"
            )
            return f"the same numbers to {self.difference:.1g}"
        one, other = (number(value, 6) for value in self.values)
        findings.append(
            f"the same seed twice gives other numbers ({one} and {other} at {where}): no trial could be repeated; draw "
            f"from torch's, Python's or numpy's global generators, which are seeded, and keep nothing between trials"
        )
        return f"other numbers from {where} on"


@dataclass
class _Clock:
    """An observer that notes what it hears, and when."""

    rungs: list[tuple[float, Rung]] = field(default_factory=list)
    end: float = 0.0

    def on_rung(self, key: int, rung: Rung) -> None:
        """Note it."""
        self.rungs.append((time.perf_counter(), rung))

    def on_end(self, key: int, outcome: Outcome) -> None:
        """Note when."""
        self.end = time.perf_counter()

    def evaluations(self, outcome: Outcome) -> Evaluations:
        """Seconds of a validation, and of the test."""
        (begin, first), (last, second) = self.rungs[0], self.rungs[-1]
        val = max(0.0, last - begin - (second.train_seconds - first.train_seconds))
        return Evaluations(val, self.end - last if outcome.end is End.FINISHED else 0.0)


def twice(program: Program, trial: Trial) -> Twice:
    """Train a short trial to its end, and once more. Raises whatever the model raises."""
    short = replace(program, num_steps=STEPS, num_rungs=1, log_every=1).knowing(program.traits)
    found = []
    for _ in range(2):
        clock = _Clock()
        (outcome,) = train_all(short, [trial], clock)
        found.append(_numbers(clock, outcome))
    differing = [
        (_apart(one, other), step, (one, other))
        for (step, one), (_, other) in zip(*found, strict=False)
        if _apart(one, other)
    ]
    evaluations = clock.evaluations(outcome)
    if not differing:
        return Twice(0.0, 0, (0.0, 0.0), evaluations)
    largest = max(apart for apart, _, _ in differing)
    _, step, values = min(differing, key=lambda one: one[1])
    return Twice(largest, step, values, evaluations)


def _numbers(clock: _Clock, outcome: Outcome) -> list[tuple[int, float]]:
    """All numbers of a trial with their steps, in order."""
    found = []
    for _, rung in clock.rungs:
        found += [(point.step, value) for point in rung.points for value in (point.loss, point.grad_norm)]
        found += [(rung.step, rung.val_loss), (rung.step, rung.val_score)]
    test = [outcome.test_loss, outcome.test_score]
    return found + [(outcome.step, value) for value in test if value is not None]


def _apart(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))
