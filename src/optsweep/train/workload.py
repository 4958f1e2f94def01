"""A workload is what a trial trains: facts, what identifies it, and a run.

optsweep's loop over a task is one (`TaskWorkload`); a loop that somebody else wrote is another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from optsweep.train.loop import train_all
from optsweep.train.probe import Probe, probe
from optsweep.train.program import Program
from optsweep.train.run import Observer
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

    def train(self, trials: Sequence[Trial], observer: Observer) -> Sequence[Outcome]:
        """Train trials to their ends, side by side where it can, and return how each ended, in their order.

        The observer is told of each by its place. Raises whatever the model raises.
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
        program, task = self.program, self.program.task
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

    def digest(self) -> Probe:
        """The model's structure, its start and its first batch."""
        return probe(self.program)

    def train(self, trials: Sequence[Trial], observer: Observer) -> Sequence[Outcome]:
        """In optsweep's loop, in lanes if the program is stacked."""
        return train_all(self.program, trials, observer)


@dataclass(frozen=True)
class _Told:
    """An observer of the one trial of a run."""

    tell: Callable[[Rung], None]

    def on_rung(self, key: int, rung: Rung) -> None:
        """Pass it on."""
        self.tell(rung)

    def on_end(self, key: int, outcome: Outcome) -> None:
        """Nothing: it is returned."""
