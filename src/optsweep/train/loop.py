"""The only training loop: trials as a source hands them out, in lanes or one after the other, from rung to rung.

Between two rungs nothing comes back from the device and nothing is written: the numbers of all steps are uploaded
before, losses and norms stay on the device, and come over once per rung (`run.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from optsweep.train.checkpoint import NO_CHECKPOINTS, Checkpointer
from optsweep.train.device import peak_bytes, reset_peak
from optsweep.train.process import deterministic, isolated
from optsweep.train.program import Program
from optsweep.train.run import Observer, Run, Silent
from optsweep.train.source import Listed, Source
from optsweep.train.steps import MissedGradientError
from optsweep.train.trial import Outcome, Point, Rung, Trial

RESTARTS = 3
"""Times that a trial begins again because a parameter turns out to be rare, before all of them are taken to be."""

MOST_ROUNDS = 5
"""Of timing the first steps."""

T = TypeVar("T")


def train(
    program: Program,
    source: Source,
    observer: Observer,
    *,
    lanes: int = 1,
    checkpointer: Checkpointer = NO_CHECKPOINTS,
) -> None:
    """Train the trials of one arm that `source` hands out, and tell `observer` how each goes and ends.

    With `program.stacked`, up to `lanes` of them are one computation, in which others take the place of those that end
    (a single trial is padded to two, so that its numbers don't depend on company); without, they run one after the
    other. What is global in the process is as before afterwards. Raises whatever the model raises.
    """
    free = lanes if program.stacked else 1
    with surroundings(program):
        while trials := source.take(free):
            if program.stacked:
                _together(program, trials, source, lanes, observer, checkpointer)
            else:
                for trial in trials:
                    _alone(program, trial, observer, Run.run, checkpointer)


def train_all(
    program: Program,
    trials: Sequence[Trial],
    observer: Observer | None = None,
    checkpointer: Checkpointer = NO_CHECKPOINTS,
) -> list[Outcome]:
    """Train these trials together and return how each ended, in their order; a trial's key is its place there."""
    gathered = _Gathered(observer or Silent(), {})
    keyed = [replace(trial, key=place) for place, trial in enumerate(trials)]
    train(program, Listed(keyed), gathered, lanes=max(len(keyed), 1), checkpointer=checkpointer)
    return [gathered.outcomes[place] for place in range(len(trials))]


@dataclass(frozen=True)
class FirstSteps:
    """How a trial begins: some steps to warm up, and as many that are timed, nothing evaluated."""

    ms_per_step: float
    points: tuple[Point, ...]
    state_bytes: int
    peak_bytes: int


def first_steps(program: Program, trial: Trial, num_steps: int, least_seconds: float = 0.0) -> FirstSteps:
    """Train one trial alone for twice `num_steps`, rounded up to the update's period. The program is without lanes.

    The second half is timed, and others after it up to `least_seconds`, or five in all; the fastest counts, as it was
    disturbed least.
    """

    def begin(run: Run) -> FirstSteps:
        reset_peak(program.device)
        steps = -(-num_steps // run.update.period) * run.update.period
        run.lanes[0].rungs = [steps * (n + 1) for n in range(MOST_ROUNDS + 1)]  # where points are made
        run.advance(steps)
        seconds = [run.advance(2 * steps)]
        while sum(seconds) < least_seconds and len(seconds) < MOST_ROUNDS:
            seconds.append(run.advance((len(seconds) + 2) * steps))
        points = tuple(run.lanes[0].points)
        return FirstSteps(1000 * min(seconds) / steps, points, run.state_bytes(), peak_bytes(program.device))

    with surroundings(program):
        return _alone(program, trial, Silent(), begin)


def time_steps(program: Program, trial: Trial, num_steps: int) -> float:
    """Milliseconds per optimizer step of one trial alone, evaluation excluded, after as many steps of warming up.

    The program is one without lanes.
    """
    return first_steps(program, trial, num_steps).ms_per_step


@contextmanager
def surroundings(program: Program) -> Iterator[None]:
    """What holds in the process while a program trains."""
    with (
        isolated(program.device, program.traits.default_dtype, program.traits.flags),
        deterministic(program.deterministic),
    ):
        yield


def _together(
    program: Program,
    trials: Sequence[Trial],
    source: Source,
    lanes: int,
    observer: Observer,
    checkpointer: Checkpointer,
) -> None:
    """Train trials in lanes until the source has none for them."""
    saved = {trial.key: state for trial in trials if (state := checkpointer.saved(trial.key))}
    run = Run(program, trials, observer, checkpointer=checkpointer, saved=saved, source=source, capacity=lanes)
    saved.clear()  # which may be large
    run.run()


def _alone(
    program: Program,
    trial: Trial,
    observer: Observer,
    work: Callable[[Run], T],
    checkpointer: Checkpointer = NO_CHECKPOINTS,
) -> T:
    """Work on a run of one trial, from the start again with every parameter that turns out to be rare.

    The set begins anew with every trial, so a trial's numbers don't depend on those before it.
    """
    run = _run(program, trial, observer, checkpointer)
    while True:
        try:
            return work(run)
        except MissedGradientError as missed:
            restarts, told = run.restarts + 1, run.told
            assert restarts <= RESTARTS, "a run of rare parameters misses no gradient"
            rare = {*(one.name for one in run.rare), *missed.names}
            if restarts == RESTARTS:
                rare = {name for name, _ in program.model(0).named_parameters()}
            run = Run(program, [trial], observer, rare=rare, told=told, restarts=restarts, checkpointer=checkpointer)


def _run(program: Program, trial: Trial, observer: Observer, checkpointer: Checkpointer) -> Run:
    """A run of one trial that goes on from what was kept of it, or from the beginning where that doesn't fit."""
    if saved := checkpointer.saved(trial.key):
        try:
            rare, told, restarts = saved["rare"], saved["told"], saved["restarts"]
            run = Run(program, [trial], observer, rare=rare, told=told, restarts=restarts, checkpointer=checkpointer)
            run.restore(saved)
            return run
        except Exception as error:
            checkpointer.unfit([trial.key], error)
    rare = () if program.stacked else program.traits.missing
    return Run(program, [trial], observer, rare=rare, checkpointer=checkpointer)


@dataclass(frozen=True)
class _Gathered:
    """An observer that keeps outcomes and passes everything on."""

    observer: Observer
    outcomes: dict[int, Outcome]

    def on_rung(self, key: int, rung: Rung) -> None:
        """Pass it on."""
        self.observer.on_rung(key, rung)

    def on_end(self, key: int, outcome: Outcome) -> None:
        """Keep it, and pass it on."""
        self.outcomes[key] = outcome
        self.observer.on_end(key, outcome)
