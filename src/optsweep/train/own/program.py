"""A user's loop as the workload of an arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from optsweep.optim.composition import Composition
from optsweep.optim.layout import Layout
from optsweep.optim.schedules import Schedule
from optsweep.optim.updater import Updater
from optsweep.train.checkpoint import NO_CHECKPOINTS, Checkpointer, Saved
from optsweep.train.device import peak_bytes, reset_peak
from optsweep.train.divergence import limit
from optsweep.train.forward import Precision
from optsweep.train.own.faults import LoopError
from optsweep.train.own.loop import Loop
from optsweep.train.own.rehearsal import called, returned_early
from optsweep.train.own.report import Reported
from optsweep.train.own.running import RunningTrial
from optsweep.train.own.terms import Terms
from optsweep.train.process import deterministic
from optsweep.train.program import rung_steps
from optsweep.train.run import Observer
from optsweep.train.trial import End, Outcome, Point, Rung, Trial


@dataclass(frozen=True)
class LoopProgram:
    """A loop, with what its trials share, as `train.program.Program` has it for a task."""

    task: Loop
    build_update: Callable[[Layout], Updater]
    composition: Composition
    schedule: Schedule
    num_steps: int
    batch_size: int
    num_rungs: int = 20
    log_every: int = 10
    decay_all: bool = False
    divergence_factor: float = 2.0
    deterministic: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "fp32"  # the loop's own affair

    stacked = False
    execution: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def notes(self) -> tuple[str, ...]:
        """None beside the loop's."""
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's parameters."""
        return self.task.rehearsed.start.dtype

    @cached_property
    def layout(self) -> Layout:
        """Of all trainable parameters of the first model."""
        start, shapes = self.task.rehearsed.start, self.task.rehearsed.shapes
        return Layout.build({name: shapes[name] for name in start.roles}, start.roles, decay_all=self.decay_all)

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters of the first model."""
        return sum(prod(shape) for shape in self.task.rehearsed.shapes.values())

    def rung_steps(self) -> list[int]:
        """Steps after which a trial is evaluated."""
        return rung_steps(self.num_steps, self.num_rungs)

    def terms(self, trial: Trial) -> Terms:
        """What a trial is told."""
        return Terms(
            steps=self.num_steps,
            rungs=tuple(self.rung_steps()),
            hyper=trial.hyper,
            seed=trial.seed,
            batch_size=self.batch_size,
            device=self.device,
            test=trial.test,
            log_every=self.log_every,
        )


def train_loop(
    program: LoopProgram, trial: Trial, observer: Observer, checkpointer: Checkpointer = NO_CHECKPOINTS
) -> Outcome:
    """Train one trial to its end. Raises what the loop raises, and LoopError for what it does wrong."""
    referee = _called(program, trial, observer, checkpointer, checkpointer.saved(trial.key))
    if (error := referee.running.unfit) is not None:
        checkpointer.unfit([trial.key], error)
        referee = _called(program, trial, observer, checkpointer, None)
    outcome = referee.outcome()
    referee.running.release()
    observer.on_end(trial.key, outcome)
    return outcome


def _called(
    program: LoopProgram, trial: Trial, observer: Observer, checkpointer: Checkpointer, saved: Saved | None
) -> _Referee:
    """The loop run to its end, and who was told of it."""
    referee = _Referee(program, trial, observer)
    keeping = _Keeping(referee, checkpointer, saved)
    referee.running = RunningTrial(program.terms(trial), program.composition, referee.hear, keeping)
    reset_peak(program.device)
    checkpointer.begin()
    with deterministic(program.deterministic):
        called(program.task, referee.running)
    return referee


def time_loop(program: LoopProgram, trial: Trial, num_steps: int) -> float:
    """Milliseconds per step, of everything that the loop does in one, after as many steps of warming up."""
    steps = min(num_steps, program.num_steps // 2)
    terms = replace(program.terms(trial), rungs=(), timed=(steps, 2 * steps))
    running = RunningTrial(terms, program.composition, lambda report: False)
    with deterministic(program.deterministic):
        called(program.task, running)
    return 1000 * (running.marks[2 * steps] - running.marks[steps]) / steps


class _Referee:
    """Hears what a loop reports, tells the observer, and says when and how the trial ends."""

    running: RunningTrial

    def __init__(self, program: LoopProgram, trial: Trial, observer: Observer) -> None:
        self.program, self.trial, self.observer = program, trial, observer
        loop = program.task
        self.metric = loop.metric if loop.has_metric else None  # asked before the trial: it takes a rehearsal
        self.tests = loop.tests
        self.first: float | None = None  # reported loss
        self.best = math.inf
        self.last: Reported | None = None
        self.end, self.reason = End.FINISHED, ""
        self.points: list[Point] = []
        self._step, self._seconds = 0, 0.0  # at the report before

    def hear(self, report: Reported) -> bool:
        """A report. Raises LoopError for one without the metric."""
        running, step = self.running, report.step
        seconds = running.clock.stop()
        points = self._points()
        taken = step - self._step
        rung = Rung(
            step,
            report.loss,
            self._score(report),
            tuple(points),
            1000 * (seconds - self._seconds) / taken if taken else None,
            peak_bytes(self.program.device),
            seconds,
        )
        self._step, self._seconds, self.last = step, seconds, report
        self.observer.on_rung(self.trial.key, rung)
        self.first = report.loss if self.first is None else self.first
        self.best = min(self.best, report.loss)
        return self._ends(report, points)

    def state(self) -> dict[str, Any]:
        """What it knows of the trial, which has not ended."""
        assert self.last is not None
        last = [self.last.step, self.last.loss, dict(self.last.metrics)]
        known = {"first": self.first, "best": self.best, "last": last, "seconds": self._seconds}
        return {"step": self.last.step, "referee": known}

    def restore(self, saved: Saved) -> None:
        """Go on from there."""
        self.last = Reported(*saved["last"])
        self.first, self.best = saved["first"], saved["best"]
        self._step, self._seconds = self.last.step, saved["seconds"]

    def outcome(self) -> Outcome:
        """How it ended. Raises LoopError for a loop that is not at its end."""
        running, loop, last = self.running, self.program.task, self.last
        if self.end is End.FINISHED:
            if running.done < running.steps:
                raise LoopError(returned_early(loop, running))
            if last is None or last.step < running.steps:
                raise LoopError(f"{loop.place}: it returned without a report after its last step, {running.steps}")
        assert last is not None
        tested = self._tested() if self.trial.test and self.end is End.FINISHED else None
        return Outcome(
            end=self.end,
            step=last.step,
            val_loss=last.loss,
            val_score=self._score(last),
            test_loss=None if tested is None else tested.loss,
            test_score=None if tested is None else self._score(tested),
            train_seconds=running.clock.stop(),
            state_bytes=sum(optimizer.state_bytes() for optimizer in running.optimizers),
            reason=self.reason,
        )

    def _tested(self) -> Reported:
        """What the loop says of the test split; what it last said of the validation data, if it has no other."""
        if (found := self.running.tested) is not None:
            return found
        if self.tests:
            raise LoopError(
                f"{self.program.task.place}: it ended without trial.finish(test_loss=…); give it, or "
                f"Loop(…, test=False), whose verdict rests on the validation data"
            )
        assert self.last is not None
        return self.last

    def _score(self, report: Reported) -> float:
        if self.metric is None:
            return report.loss
        if self.metric not in report.metrics:
            given = ", ".join(report.metrics) or "no metric"
            raise LoopError(f"trial.report(): {self.metric} is missing at step {report.step}; there is {given}")
        return report.metrics[self.metric]

    def _ends(self, report: Reported, points: Sequence[Point]) -> bool:
        """Whether the trial ends here; how and why is kept."""
        loss, step = report.loss, report.step
        assert self.first is not None
        above = self.trial.prune_above.get(step)
        if not math.isfinite(loss) or any(p.loss is not None and not math.isfinite(p.loss) for p in points):
            self.end, self.reason = End.DIVERGED, f"non-finite loss by step {step}"
        elif loss > limit(self.program.divergence_factor, self.first, self.best, self.program.task.loss_floor, 0.0):
            self.end = End.DIVERGED
            self.reason = f"validation loss {loss:.3g} at step {step}, {self.first:.3g} at first"
        elif above is not None and step < self.program.num_steps and loss > above:
            self.end = End.PRUNED
            self.reason = f"validation loss {loss:.4g} above {above:.4g} at step {step}"
        return self.end is not End.FINISHED

    def _points(self) -> list[Point]:
        """Training since the report before: norms of the steps that were watched, mean losses up to each."""
        norms = self.running.lead.take_norms() if self.running.lead is not None else []
        losses, values = self.running.losses.take()
        points, first = [], 0
        for found in norms:
            end = next((i for i, step in enumerate(losses) if step > found.step), len(losses))
            mean = sum(values[first:end]) / (end - first) if end > first else None
            first = end
            points.append(Point(found.step, mean, found.lr, float(found.grad_norm), float(found.update_ratio)))
        return points


@dataclass
class _Keeping:
    """Keeps a trial of a loop with what its referee knows."""

    referee: _Referee
    checkpointer: Checkpointer
    whole: Saved | None

    @property
    def saved(self) -> Saved | None:
        """The loop's part."""
        return None if self.whole is None else self.whole["loop"]

    def went_on(self) -> None:
        """The loop took up its part, so the referee takes up its own."""
        assert self.whole is not None
        self.referee.restore(self.whole["referee"])
        self.whole = None  # it may be large

    def pause(self, state: Callable[[], Saved] | None) -> None:
        """Let the checkpointer have both parts."""
        key = self.referee.trial.key
        self.checkpointer.pause(lambda: {key: {"loop": state(), **self.referee.state()}} if state else {})
