"""The timing pass: milliseconds per step of every arm, one lane, arms in turn, nothing else running.

It runs in a worker of its own, when the others are gone: timings taken while workers share a machine, or lanes a
computation, say nothing about an optimizer. The facts of a chosen program, which the user's code decides, come with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from optsweep.build.machine import Machine
from optsweep.config.arm import Arm
from optsweep.errors import UserError, located
from optsweep.launch.prepare.description import Description, facts_of
from optsweep.launch.worker.inquiries import Asker, DiedError, Workbench, patience_of
from optsweep.launch.worker.job import Job
from optsweep.search.space import Params
from optsweep.search.studies import Studies
from optsweep.tracking.schema import ArmFacts, Timing
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Trial

ROUNDS, FEWEST_ROUNDS = 5, 3
STEPS = 20
"""Steps per arm and round; a multiple of SOAP's refresh interval, so that each round has the same number."""

LONG_SECONDS = 10.0
"""An arm whose steps have taken so long is asked for no more than the fewest rounds: quartiles of slow steps lie close
together, and nothing else runs meanwhile."""

MOST_TRIES, UNTIMED = 3, "untimed"
"""Calls of a sweep that try to time an arm whose steps can't be timed, and where it is noted how many did."""

MOST_DEATHS = 3
"""Workers that may end in it before the arms that are left are left alone: each costs a worker's start."""


@dataclass(frozen=True)
class ToMeasure:
    """An arm with the setting whose program is wanted."""

    arm: Arm
    params: Params
    timed: bool  # whether its steps are to be timed


@dataclass(frozen=True)
class Measured:
    """What was found of an arm."""

    facts: ArmFacts | None = None
    timing: Timing | None = None
    trouble: str = ""  # why it has no timing, where one was wanted


@dataclass(frozen=True)
class Measure:
    """The request to time arms' steps, and to say what their programs are. An arm that crashes gets no timing."""

    arms: Sequence[ToMeasure]

    def run(self, bench: Workbench) -> list[Measured]:
        """One answer for each."""
        running = [_Running(arm, bench) for arm in self.arms]
        for _ in range(ROUNDS):
            for one in running:
                one.take_steps()
        return [one.found for one in running]


class _Running:
    """An arm whose steps are being timed."""

    def __init__(self, wanted: ToMeasure, bench: Workbench) -> None:
        self.wanted, self.bench = wanted, bench
        self.facts: ArmFacts | None = None
        self.trouble = ""
        self._samples: list[float] = []
        self._seconds = 0.0
        with self._crashing():
            built = bench.builds().of(wanted.arm)
            self.facts = facts_of(wanted.arm, built.program_for(wanted.params))
            self._device = Machine.of(built.program.device).device
            self._workload = built.workload_for(wanted.params)
            self._trial = Trial(built.space.hyper(wanted.params), seed=0)

    def take_steps(self) -> None:
        """One round."""
        from optsweep.train.process import threads

        enough = len(self._samples) >= FEWEST_ROUNDS and self._seconds > LONG_SECONDS
        if self.wanted.timed and not self.trouble and not enough:
            begin = time.perf_counter()
            arm = self.wanted.arm
            leading = self.bench.leading(arm, 0, self.wanted.params)
            with threads(arm.trainer.threads), self._crashing(), leading:
                self._samples.append(self._workload.time_steps(self._trial, STEPS))
            self._seconds += time.perf_counter() - begin

    @contextlib.contextmanager
    def _crashing(self) -> Iterator[None]:
        """Whatever the user's code raises costs this arm's timing."""
        self.bench.begin(self.wanted.arm.name, patience_of(self.wanted.arm))
        try:
            yield
        except (Exception, SystemExit) as error:
            self.trouble = str(error) if isinstance(error, UserError) else located(error)

    @property
    def found(self) -> Measured:
        """What is known now."""
        if self.trouble or len(self._samples) < FEWEST_ROUNDS:
            return Measured(self.facts, None, self.trouble)
        first, median, third = quantiles(self._samples, n=4, method="inclusive")
        return Measured(self.facts, Timing(median, first, third, len(self._samples), self._device))


def to_measure(studies: Studies, tracker: Tracker, job: Job, known: Description) -> ToMeasure | None:
    """What is to be found out of an arm by now; None: nothing."""
    sheet = tracker.arm_sheet(job.parent_run)
    if sheet is None:
        return None
    timed = sheet.timing is None and _tries(studies, job) < MOST_TRIES
    if not timed and not (sheet.chosen and known.space.program):
        return None
    # Without a choice every trial diverged; the time of a step does not depend on the numbers.
    space, chosen = known.space, sheet.chosen
    params = space.restored({**chosen.params, **chosen.choices}) if chosen else space.first
    return ToMeasure(job.arm, params, timed)


def note_untimed(studies: Studies, job: Job, trouble: str) -> str:
    """Remember that an arm's steps couldn't be timed; returns what to say of it."""
    tries = _tries(studies, job) + 1
    studies.set_note(job.arm.name, UNTIMED, [job.fingerprint, tries])
    again = "the same command tries again" if tries < MOST_TRIES else f"it was tried {tries} times, and isn't any more"
    return f"no timing of its steps ({trouble}); {again}"


def _tries(studies: Studies, job: Job) -> int:
    """How often the arm, as it is, couldn't be timed."""
    fingerprint, tries = studies.note(job.arm.name, UNTIMED) or ("", 0)
    return int(tries) if fingerprint == job.fingerprint else 0


def measure_all(asker: Asker, arms: Sequence[ToMeasure]) -> Mapping[str, Measured]:
    """What was found of the arms, by name. One whose code ends the worker, or hangs in it, costs its own timing.

    A worker that was killed from outside is no arm's fault: once for each they are all asked again.
    """
    lost: dict[str, Measured] = {}
    killed: set[str] = set()  # what had begun then
    deaths = 0
    while left := [wanted for wanted in arms if wanted.arm.name not in lost]:
        names = [wanted.arm.name for wanted in left]
        try:
            return {**lost, **dict(zip(names, asker.ask(Measure(left)), strict=True))}
        except DiedError as error:
            if error.killed and error.at not in killed:
                killed.add(error.at)
                continue
            deaths += 1
            guilty = names if deaths == MOST_DEATHS else [error.at] if error.at in names else []
            lost |= dict.fromkeys(guilty, Measured(trouble=error.how))
    return lost
