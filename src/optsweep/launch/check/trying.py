"""What `check` tries of one task, and how it says what it found: its data, its model, the same trial twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from optsweep.build.assemble import Built
from optsweep.launch.prepare.cost import Evaluations
from optsweep.launch.verify import TOLERANCE, relative_difference
from optsweep.report.wording import listed, number, plural, size
from optsweep.search.space import Params
from optsweep.tasks.base import Split
from optsweep.train.device import peak_bytes
from optsweep.train.inspection import data_order, inspect_model
from optsweep.train.loop import first_steps, train_all
from optsweep.train.own.beginning import begin_loop
from optsweep.train.own.program import LoopProgram
from optsweep.train.program import Program
from optsweep.train.trial import End, Outcome, Rung, Trial

STEPS = 10
"""Of a trial that is only tried, and once more where they are timed."""

LEAST_SECONDS = 0.3
"""For which steps are timed, of each optimizer, unless they are very short."""

HIGH, LOW = 1.5, 0.5
"""Multiples of an uninformed guess's loss between which a loss at the start is an ordinary one."""

Line = tuple[str, str]
"""What, and what was found."""


@dataclass
class Told:
    """What was found so far: what would fail, and what is worth knowing."""

    findings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Begun:
    """An optimizer's first steps."""

    ms_per_step: float
    losses: tuple[float, float]
    state_bytes: int
    peak_bytes: int


class Trier(Protocol):
    """Tries a task, or a loop of the user's."""

    losses: str  # which ones `Begun` has
    evaluations: Evaluations  # known when `lines` is through

    def lines(self, told: Told) -> Iterator[Line]:
        """Try all but the optimizers. Raises whatever the user's code raises."""

    def begin(self, built: Built, params: Params) -> Begun:
        """An arm's first steps with this setting. Raises whatever the user's code raises."""


def trier_of(base: Built) -> Trier:
    """Who tries what this arm trains, which has nothing around its optimizer."""
    trial = Trial(base.space.hyper({}), seed=0, test=True)
    if isinstance(base.program, LoopProgram):
        return LoopTrier(base.program, trial)
    return TaskTrier(base.program, trial)


class TaskTrier:
    """Tries a task."""

    losses = f"mean losses of the first {STEPS} steps and of the next {STEPS}"

    def __init__(self, program: Program, trial: Trial) -> None:
        self.program, self.trial, self.evaluations = program, trial, Evaluations()

    def lines(self, told: Told) -> Iterator[Line]:
        """As `Trier` has it."""
        task, batch_size = self.program.task, self.program.batch_size
        sizes = " · ".join(f"{split} {task.size(split):,}" for split in Split)
        yield "data", f"{sizes} samples; batches of {batch_size:,}"
        tried = replace(self.program, vmapped=True).traits  # lanes too
        plain = self.program = replace(self.program, vmapped=False).knowing(tried)
        found = inspect_model(plain)
        yield "first batch", f"{', '.join(found.batch)} → outputs {', '.join(found.outputs) or 'without tensors'}"
        yield "model", _model(plain, found.tensors, plain.dtype)
        yield "loss at start", _start(found.loss, found.uninformed_loss, told)
        yield "gradients", _gradients(found.without_gradient, found.zero_gradient, found.bad_gradient, told)
        yield "data order", _order(plain, told)
        twice = self._twice()
        yield "same seed twice", twice.said(told)
        yield (
            "lanes",
            f"one trial after the other, because {tried.alone}" if tried.alone else "possible",
        )

    def begin(self, built: Built, params: Params) -> Begun:
        """As `Trier` has it; the model is known already where the arm has the same task and batch."""
        program = built.program_for(params)
        assert isinstance(program, Program)
        program, like = replace(program, vmapped=False, log_every=STEPS), self.program
        if program.batch_size == like.batch_size and program.task is like.task:
            program.knowing(like.traits)
        found = first_steps(program, Trial(built.space.hyper(params), seed=0), STEPS, LEAST_SECONDS)
        first, then, *_ = (point.loss for point in found.points if point.loss is not None)
        return Begun(found.ms_per_step, (first, then), found.state_bytes, found.peak_bytes)

    def _twice(self) -> Twice:
        short = replace(self.program, num_steps=STEPS, num_rungs=1, log_every=1).knowing(self.program.traits)
        found = []
        for _ in range(2):
            clock = _Clock()
            (outcome,) = train_all(short, [self.trial], clock)
            found.append(_numbers(clock, outcome))
        self.evaluations = clock.evaluations(outcome)
        return Twice.of(*found)


class LoopTrier:
    """Tries a loop of the user's."""

    losses = f"validation losses after {STEPS} and {2 * STEPS} steps"

    def __init__(self, program: LoopProgram, trial: Trial) -> None:
        self.program, self.trial, self.evaluations = program, trial, Evaluations()

    def lines(self, told: Told) -> Iterator[Line]:
        """As `Trier` has it; two steps were rehearsed before."""
        program, loop = self.program, self.program.task
        seen = loop.rehearsed.seen
        yield "data", f"{loop.size(Split.TRAIN):,} samples an epoch; batches of {seen.batch_size or loop.batch_size:,}"
        yield "model", _model(program, len(loop.rehearsed.shapes), program.dtype)
        yield "loss at start", _start(loop.rehearsed.loss, loop.chance_loss, told)
        first, again = (begin_loop(program, self.trial, STEPS // 2) for _ in range(2))
        yield "gradients", _gradients(first.without_gradient, first.zero_gradient, (), told)
        yield "data order", "seeded, by trial.batches" if seen.digest else "the loop's own affair"
        self.evaluations = Evaluations(again.report_seconds, again.end_seconds)
        yield "same seed twice", Twice.of(first.numbers, again.numbers).said(told)
        yield "lanes", "one trial after the other, because the loop is one's own"

    def begin(self, built: Built, params: Params) -> Begun:
        """As `Trier` has it."""
        program = built.program_for(params)
        assert isinstance(program, LoopProgram)
        found = begin_loop(program, Trial(built.space.hyper(params), seed=0), STEPS)
        return Begun(found.ms_per_step, found.losses, found.state_bytes, found.peak_bytes)


# -- words -------------------------------------------------------------------------------------------------------------


def memory_said(device: torch.device) -> str:
    """Peak memory so far."""
    peak = size(peak_bytes(device))
    return f"at most {peak} on the device" if device.type == "cuda" else f"this process took at most {peak}"


def _model(program: Program | LoopProgram, tensors: int, dtype: torch.dtype) -> str:
    return f"{program.num_parameters:,} parameters in {plural(tensors, 'tensor')}, {str(dtype).removeprefix('torch.')}"


def _start(loss: float, chance: float | None, told: Told) -> str:
    if chance is None:
        return f"{loss:.4g}; what a guess would cost isn't known"
    if loss > HIGH * chance:
        told.remarks.append(
            f"the loss at the start is {loss:.3g}, {loss / chance:.2g} times that of a guess that knows nothing; look "
            f"at the scale of the inputs and of the initial weights"
        )
    elif loss < LOW * chance:
        told.remarks.append(
            f"the loss at the start is {loss:.3g}, and a guess that knows nothing costs {chance:.3g}; pretrained "
            f"weights do that, and inputs that hold the answer"
        )
    return f"{loss:.4g}; a guess that knows nothing costs {chance:.4g}"


def _gradients(without: Sequence[str], zero: Sequence[str], bad: Sequence[str], told: Told) -> str:
    if bad:
        told.findings.append(f"task.loss: the gradient of {_names(bad)} isn't finite at the first batch")
    if zero:
        told.remarks.append(f"the first batch gives {_names(zero)} a gradient of zeros")
    kinds = {"none": without, "zeros": zero, "not finite": bad}
    return (
        "; ".join(f"{what} for {_names(names)}" for what, names in kinds.items() if names) or "every parameter has one"
    )


def _names(names: Sequence[str], most: int = 4) -> str:
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return listed(shown)


def _order(program: Program, told: Told) -> str:
    """Whether the order of the data is the trial seed's."""
    order = data_order(program, STEPS)
    if not order.repeats:
        told.findings.append(
            "task.train: the same seed gives other batches each time; draw from torch's, Python's or numpy's global "
            "generator, which are seeded, or from the seed that a stream's function gets"
        )
        return "not seeded"
    if not order.differs:
        told.remarks.append("task.train: all seeds see the same batches in the same order")
        return "the same for all seeds"
    return "seeded: the same batches for one seed, others for another"


# -- the same trial twice ----------------------------------------------------------------------------------------------


Numbers = Sequence[tuple[int, float]]
"""With the steps at which they were said."""


@dataclass(frozen=True)
class Twice:
    """What the same short trial came to, once and again."""

    difference: float  # largest relative one of all numbers
    step: int  # at which it begins; 0: before the first
    values: tuple[float, float]  # there

    @classmethod
    def of(cls, first: Numbers, again: Numbers) -> Twice:
        """From all numbers that each said, with their steps."""
        pairs = [(step, one, other) for (step, one), (_, other) in zip(first, again, strict=False)]
        differing = [(step, one, other) for step, one, other in pairs if relative_difference(one, other)]
        if not differing:
            return cls(0.0, 0, (0.0, 0.0))
        step, one, other = min(differing, key=lambda found: found[0])
        return cls(max(relative_difference(one, other) for _, one, other in differing), step, (one, other))

    def said(self, told: Told) -> str:
        """In a line."""
        if not self.difference:
            return "the same numbers, bitwise"
        where = f"step {self.step}" if self.step else "the start"
        if self.difference <= TOLERANCE:
            told.remarks.append(
                f"the same seed twice gives numbers that differ by {self.difference:.1g} (relative) from {where} on; "
                f"trainer.deterministic=true asks for deterministic algorithms"
            )
            return f"the same numbers to {self.difference:.1g}"
        one, other = (number(value, 6) for value in self.values)
        told.findings.append(
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


def _numbers(clock: _Clock, outcome: Outcome) -> list[tuple[int, float]]:
    """All numbers of a trial with their steps, in order."""
    found: list[tuple[int, float | None]] = []
    for _, rung in clock.rungs:
        found += [(point.step, value) for point in rung.points for value in (point.loss, point.grad_norm)]
        found += [(rung.step, rung.val_loss), (rung.step, rung.val_score)]
    found += [(outcome.step, outcome.test_loss), (outcome.step, outcome.test_score)]
    return [(step, value) for step, value in found if value is not None]
