"""A workload is what a trial trains: facts, what identifies it, and a run.

optsweep's loop over a task is one (`TaskWorkload`); a loop that somebody else wrote is another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from optsweep.train.checkpoint import NO_CHECKPOINTS, Checkpointer
from optsweep.train.loop import time_steps, train, train_all
from optsweep.train.own.program import LoopProgram, time_loop, train_loop
from optsweep.train.probe import Probe, probe
from optsweep.train.program import Program
from optsweep.train.run import Observer
from optsweep.train.source import Source
from optsweep.train.trial import Outcome, Rung, Trial


@dataclass(frozen=True)
class WorkloadFacts:
    """What everybody may know of a workload without running it."""

    num_parameters: int  # trainable ones
    num_steps: int
    batch_size: int
    metric: str
    higher_is_better: bool
    loss_unit: str
    chance_loss: float | None = None
    target_loss: float | None = None


class Workload(Protocol):
    """Trains trials of one arm."""

    @property
    def facts(self) -> WorkloadFacts:
        """What is known before any run."""

    def digest(self) -> Probe:
        """What identifies it: names and shapes, and numbers to be compared with a tolerance."""

    def code(self) -> Sequence[Any]:
        """Classes and functions whose source files, if they are the user's own, decide a trial's numbers."""

    def time_steps(self, trial: Trial, num_steps: int) -> float:
        """Milliseconds per optimizer step of one trial alone, after as many steps of warming up."""

    def train(
        self, trials: Sequence[Trial], observer: Observer, checkpointer: Checkpointer = NO_CHECKPOINTS
    ) -> Sequence[Outcome]:
        """Train trials to their ends, side by side where it can, and return how each ended, in their order.

        Observer and checkpointer are told of each by its place. Raises whatever the model, or one of them, raises.
        """

    def work(
        self, source: Source, observer: Observer, checkpointer: Checkpointer = NO_CHECKPOINTS, *, lanes: int = 1
    ) -> None:
        """Train what the source hands out until it has nothing, `lanes` side by side where it can.

        Observer and checkpointer are told of each by its key.
        """


def run(workload: Workload, trial: Trial, on_rung: Callable[[Rung], None]) -> Outcome:
    """One trial alone, telling every rung."""
    (outcome,) = workload.train([trial], _Told(on_rung))
    return outcome


@dataclass(frozen=True)
class TaskWorkload:
    """The loop over a task that `program` describes."""

    program: Program

    @property
    def facts(self) -> WorkloadFacts:
        """Those of the program, its task and its model."""
        return _facts(self.program)

    def digest(self) -> Probe:
        """The model's structure, its start and its first batch."""
        return probe(self.program)

    def code(self) -> Sequence[Any]:
        """The task's, and the classes of its model."""
        return (*self.program.task.code(), *{type(module): None for module in self.program.model(0).modules()})

    def time_steps(self, trial: Trial, num_steps: int) -> float:
        """Evaluation excluded, in one lane."""
        return time_steps(replace(self.program, vmapped=False), trial, num_steps)

    def train(
        self, trials: Sequence[Trial], observer: Observer, checkpointer: Checkpointer = NO_CHECKPOINTS
    ) -> Sequence[Outcome]:
        """In optsweep's loop, in lanes if the program is stacked."""
        return train_all(self.program, trials, observer, checkpointer)

    def work(
        self, source: Source, observer: Observer, checkpointer: Checkpointer = NO_CHECKPOINTS, *, lanes: int = 1
    ) -> None:
        """In optsweep's loop, in lanes if the program is stacked."""
        train(self.program, source, observer, lanes=lanes, checkpointer=checkpointer)


@dataclass(frozen=True)
class LoopWorkload:
    """A loop of the user's that `program` describes."""

    program: LoopProgram

    @property
    def facts(self) -> WorkloadFacts:
        """Those of the program and of the loop."""
        return _facts(self.program)

    def digest(self) -> Probe:
        """What two steps of it have shown."""
        return self.program.task.rehearsed.probe

    def code(self) -> Sequence[Any]:
        """The function, and the classes of its model."""
        return (*self.program.task.code(), *self.program.task.rehearsed.start.classes)

    def time_steps(self, trial: Trial, num_steps: int) -> float:
        """Of everything that the loop does in a step."""
        return time_loop(self.program, trial, num_steps)

    def train(
        self, trials: Sequence[Trial], observer: Observer, checkpointer: Checkpointer = NO_CHECKPOINTS
    ) -> Sequence[Outcome]:
        """One after the other."""
        keyed = [replace(trial, key=place) for place, trial in enumerate(trials)]
        return [train_loop(self.program, trial, observer, checkpointer) for trial in keyed]

    def work(
        self, source: Source, observer: Observer, checkpointer: Checkpointer = NO_CHECKPOINTS, *, lanes: int = 1
    ) -> None:
        """One after the other."""
        while trials := source.take(1):
            for trial in trials:
                train_loop(self.program, trial, observer, checkpointer)


ArmProgram = Program | LoopProgram
"""An arm ready to train."""


def workload_of(program: ArmProgram) -> Workload:
    """What trains it."""
    return TaskWorkload(program) if isinstance(program, Program) else LoopWorkload(program)


def _facts(program: ArmProgram) -> WorkloadFacts:
    task = program.task
    return WorkloadFacts(
        num_parameters=program.num_parameters,
        num_steps=program.num_steps,
        batch_size=program.batch_size,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        loss_unit=task.loss_unit,
        chance_loss=task.chance_loss,
        target_loss=task.target_loss,
    )


@dataclass(frozen=True)
class _Told:
    """An observer of the one trial of a run."""

    tell: Callable[[Rung], None]

    def on_rung(self, key: int, rung: Rung) -> None:
        """Pass it on."""
        self.tell(rung)

    def on_end(self, key: int, outcome: Outcome) -> None:
        """Nothing: it is returned."""
