"""How a trial of a user's loop begins: its first steps, with a report after each half, and then its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from optsweep.optim.composition import Composition
from optsweep.train.device import peak_bytes, reset_peak
from optsweep.train.own.faults import LoopError
from optsweep.train.own.program import LoopProgram
from optsweep.train.own.rehearsal import called, returned_early
from optsweep.train.own.report import Listener, Reported
from optsweep.train.own.running import RunningTrial
from optsweep.train.own.terms import Terms
from optsweep.train.process import deterministic
from optsweep.train.trial import Trial


@dataclass(frozen=True)
class LoopBeginning:
    """The first steps of a loop."""

    numbers: tuple[tuple[int, float], ...]  # all that it said, with the steps that were done
    losses: tuple[float, float]  # on the validation data, after each half
    ms_per_step: float  # of the second half: everything but reports
    report_seconds: float  # of the second report
    end_seconds: float  # of what follows it
    state_bytes: int
    peak_bytes: int
    without_gradient: tuple[str, ...]  # at the first step
    zero_gradient: tuple[str, ...]


def begin_loop(program: LoopProgram, trial: Trial, num_steps: int) -> LoopBeginning:
    """Run a loop for twice `num_steps` of its budget, or the whole. Raises what it raises, and LoopError."""
    half = min(num_steps, program.num_steps // 2)
    terms = replace(program.terms(trial), rungs=(half, 2 * half), stop_after=2 * half)
    reset_peak(program.device)
    heard: list[_Heard] = []

    def listen(report: Reported) -> bool:
        heard.append(_Heard.of(report, running))
        return False

    running = _Watched(terms, program.composition, listen)
    with deterministic(program.deterministic):
        called(program.task, running)
    end = time.perf_counter()
    if len(heard) < 2:
        raise LoopError(returned_early(program.task, running))
    first, second = heard
    seconds = second.training - first.training
    numbers = [number for one in heard for number in one.numbers]
    if running.tested is not None:
        numbers += [(running.done, running.tested.loss)]
    return LoopBeginning(
        numbers=tuple(numbers),
        losses=(first.report.loss, second.report.loss),
        ms_per_step=1000 * seconds / half,
        report_seconds=max(0.0, second.at - first.at - seconds),
        end_seconds=end - second.at,
        state_bytes=second.state_bytes,
        peak_bytes=peak_bytes(program.device),
        without_gradient=tuple(running.without),
        zero_gradient=tuple(running.zero),
    )


@dataclass(frozen=True)
class _Heard:
    """A report, and how things stood."""

    report: Reported
    at: float
    training: float  # seconds so far
    state_bytes: int
    numbers: list[tuple[int, float]] = field(default_factory=list)

    @classmethod
    def of(cls, report: Reported, running: RunningTrial) -> _Heard:
        """As they stand now."""
        training = running.clock.stop()
        numbers = list(zip(*running.losses.take(), strict=True))
        numbers += [(report.step, value) for value in (report.loss, *report.metrics.values())]
        state = sum(optimizer.state_bytes() for optimizer in running.optimizers)
        return cls(report, time.perf_counter(), training, state, numbers)


class _Watched(RunningTrial):
    """A trial that looks at the gradients of each optimizer's first step."""

    def __init__(self, terms: Terms, composition: Composition, listen: Listener) -> None:
        super().__init__(terms, composition, listen)
        self.without: list[str] = []
        self.zero: list[str] = []

    def _before_step(self, place: int, done: int) -> None:
        super()._before_step(place, done)
        if done == 0:
            grads = {n: p.grad for n, p in self.models[place].named_parameters() if p.requires_grad and p.numel()}
            self.without += [name for name, grad in grads.items() if grad is None]
            self.zero += [name for name, grad in grads.items() if grad is not None and not grad.any()]
