"""How many lanes each arm gets: what is given, as the sweep began, or what a few steps, tried once, say.

Decided before anything trains and once for all workers. Several lanes or one is part of what decides a trial's last
bits, so a sweep keeps to it; the number is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

from optsweep.build.fingerprint import fingerprint_of
from optsweep.build.machine import processor
from optsweep.build.sources import source_digests
from optsweep.config.arm import Arm
from optsweep.config.search_space import ChoicesConfig
from optsweep.errors import located
from optsweep.inference.looks import AUTO, LOOKS, REPEAT_LOOKS
from optsweep.launch.standing import search_plan
from optsweep.report.wording import plural
from optsweep.train.lane_choice import Crowd, LaneTimes, choose, may_gain
from optsweep.train.trial import Trial

if TYPE_CHECKING:  # a planner reads what was found, and has no use for a second of torch
    import torch

    from optsweep.build.assemble import Built
    from optsweep.tasks.base import Task, Trainable

ONE, SEVERAL = "one", "several"
"""As `trainer.lanes` is in an arm's content."""

SHARE = 0.5
"""Of the memory that is free, for lanes."""

MOST_NAMED = 4
"""Arms that a line has by their names; of more it has the number."""

STEPS_VERSION = 2
"""Bumped when steps of lanes, or of one, take another time than before: what was measured then is measured anew."""

MANY = 1000
"""Programs of a range of whole numbers: no two trials are sure to have the same."""


@dataclass(frozen=True)
class FittedLanes:
    """An arm's number of lanes, and where that is from."""

    lanes: int
    auto: bool = False
    why: str = ""  # in a few words
    key: str = ""  # of the program on this device; empty: nothing was measured
    times: LaneTimes = field(default_factory=LaneTimes)
    gain: float | None = None  # time of all trials with one lane, over that with several; None: not measured
    quiet: bool = False  # whether there is nothing in it that a user would ask about

    @property
    def found(self) -> str:
        """As the arm's facts have it: "auto → 16: 2.4 × one lane"."""
        return f"auto → {self.lanes}: {self.why}" if self.auto else ""

    @property
    def speedup(self) -> float:
        """How much faster than one after the other trials are, as far as that was measured."""
        return self.gain if self.gain is not None and self.lanes > 1 else 1.0

    def on(self, arm: Arm) -> Arm:
        """The arm with this number."""
        return replace(arm, trainer=replace(arm.trainer, lanes=self.lanes))


ONE_LANE = FittedLanes(1)


@dataclass(frozen=True)
class Fitter:
    """Finds the lanes of arms, in a process that may run their code. What it is made of travels there."""

    workers: int  # that this machine has room for
    processes: int = 1  # that the trials of a search are shared by
    known: Mapping[str, LaneTimes] = field(default_factory=dict)  # of earlier sweeps
    begun: Mapping[str, str] = field(default_factory=dict)  # one or several, by arm that has trials
    troubles: Mapping[str, str] = field(default_factory=dict)  # why an arm can't be measured

    @classmethod
    def of(cls, arms: Sequence[Arm], workers: int, **known: Any) -> Fitter:
        """For the arms of a sweep. `workers` is a fact of the machine: another number in a call changes no trial.

        A worker takes its share of all that waits, of one search at a time.
        """
        repeats = REPEAT_LOOKS[0] if arms[0].repeats == AUTO else arms[0].repeats
        return cls(workers, -(-workers // (len(arms) * repeats)), **known)

    def without(self, arm: str, trouble: str) -> Fitter:
        """The same, which leaves an arm unmeasured."""
        return replace(self, troubles={**self.troubles, arm: trouble})

    def fit(
        self,
        arm: Arm,
        task: Trainable,
        device: torch.device,
        build: Callable[[Arm], Built],
        begin: Callable[[], None] = lambda: None,
    ) -> FittedLanes:
        """The lanes of an arm; `begin` is called before steps are taken. Raises what building the arm raises."""
        from optsweep.tasks.base import Task

        if (given := arm.trainer.given_lanes) is not None:
            return FittedLanes(given)
        if not isinstance(task, Task):
            return FittedLanes(1, True, "one after the other, because the loop is one's own", quiet=True)
        before = self.begun.get(arm.name)
        several = before == SEVERAL
        least = 2 if several else 1
        if trouble := self.troubles.get(arm.name):
            return FittedLanes(least, True, f"not measured ({trouble})")
        crowds = crowds_of(arm, self.processes)
        if not several and not may_gain(crowds, device):
            most = max(crowd.at_once for crowd in crowds)
            return FittedLanes(1, True, f"at most {most} of an arm's trials wait for a worker at a time", quiet=True)
        key = _key(arm, task, device)
        times = self.known.get(key)
        if before == ONE:
            found = _fitted(key, times, crowds, several=False) if times else ONE_LANE
            return found if found.auto and found.lanes == 1 else FittedLanes(1, True, "as the sweep began", quiet=True)
        if times is None or times.upto < max(crowd.at_once for crowd in crowds):
            built = build(replace(arm, trainer=replace(arm.trainer, lanes=2)))
            begin()
            try:
                times = self._measured(built, arm, crowds)
            except Exception as error:  # that training will meet too
                return FittedLanes(least, True, f"not measured ({located(error)})")
        return _fitted(key, times, crowds, several=several)

    def _measured(self, built: Built, arm: Arm, crowds: Sequence[Crowd]) -> LaneTimes:
        """What a few steps say."""
        from optsweep.train.device import free_bytes
        from optsweep.train.fitting import measure
        from optsweep.train.process import threads
        from optsweep.train.program import Program

        program = built.program
        assert isinstance(program, Program)
        most = max(crowd.at_once for crowd in crowds)
        free = free_bytes(program.device)
        budget = float("inf") if free is None else SHARE * free / self.workers
        with threads(arm.trainer.threads):
            trial = Trial(built.space.hyper(built.space.first), seed=0)
            return measure(program, trial, most, budget)


NOTHING_KNOWN = Fitter(1)


def crowds_of(arm: Arm, processes: int) -> list[Crowd]:
    """How many of an arm's trials there are to train at once, shared by so many processes and by its programs."""
    plan, shared = search_plan(arm, 0), processes * _programs(arm)
    seeds = LOOKS[0] if arm.confirm_seeds == AUTO else arm.confirm_seeds
    free = -(-plan.num_quasi_random // 2)  # which wait for nothing
    asked = plan.first_rerun - free
    parts = (free, free), (asked, min(asked, plan.lag)), (plan.num_reruns, plan.num_reruns), (seeds, seeds)
    return [Crowd(trials, -(-at_once // shared)) for trials, at_once in parts if trials]


def fitted_said(fitted: Sequence[tuple[str, FittedLanes]], *, every: bool = False) -> Iterator[str]:
    """A line of the lanes that were found for arms, by label, where there is something to say, or of `every` one."""
    alike: dict[tuple[int, str], list[tuple[str, FittedLanes]]] = {}
    for label, held in fitted:
        if held.auto and (every or not held.quiet):
            alike.setdefault((held.lanes, "" if held.gain is not None else held.why), []).append((label, held))
    parts = []
    for (lanes, why), members in alike.items():
        few = len(members) <= MOST_NAMED
        if why:
            parts.append(f"{_who([label for label, _ in members])} {lanes} ({why})")
        elif few:
            parts += [f"{label} {lanes} ({held.why})" for label, held in members]
        else:
            gains = sorted(held.gain or 0.0 for _, held in members)
            parts.append(f"{plural(len(members), 'arm')} {lanes} ({_times(gains[0])} to {_times(gains[-1])} one lane)")
    if parts:
        yield f"lanes: {'; '.join(parts)}"


def _who(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= MOST_NAMED else plural(len(labels), "arm")


def _times(gain: float) -> str:
    return f"{gain:.{1 if gain >= 1 else 2}f} ×"


def _fitted(key: str, times: LaneTimes, crowds: Sequence[Crowd], *, several: bool) -> FittedLanes:
    """The choice, in words."""
    if times.alone:
        return FittedLanes(2 if several else 1, True, f"one after the other, because {times.alone}", key, times)
    choice = choose(times, crowds, several=several)
    if not choice.best:
        return FittedLanes(choice.lanes, True, "not even two have room", key, times)
    if choice.lanes > 1:
        each = times.of(choice.lanes) / choice.lanes
        why = f"{_times(choice.gain)} one lane; {each:.3g} ms a trial-step"
    else:
        why = f"{choice.best} would be {_times(choice.gain)}"
    return FittedLanes(choice.lanes, True, why, key, times, choice.gain)


def _programs(arm: Arm) -> int:
    """Among how many programs an arm's trials choose; those of one train together."""
    held = [arm.search.space.get(key) for key in arm.search.over if "." in key] if arm.search.trials else []
    return prod(len(found.values) if isinstance(found, ChoicesConfig) else MANY for found in held)


def _key(arm: Arm, task: Task, device: torch.device) -> str:
    """What decides how long the steps of an arm's trials take, as far as that is known without building them."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {processor()}"
    trainer = arm.trainer
    return fingerprint_of(
        {
            "task": [arm.task.target, dict(arm.task.options), arm.task.batch_size, task.digest()],
            "code": source_digests(task.code()),
            "optimizer": [arm.optimizer.target, dict(arm.optimizer.options)],
            "schedule": [arm.schedule.name, arm.schedule.target, dict(arm.schedule.options)],
            "averaging": [arm.averaging.target, dict(arm.averaging.options)],
            "decay": [arm.decay.mode, arm.decay.apply_to],
            "trainer": [
                trainer.precision,
                trainer.clip_norm,
                trainer.accumulate,
                trainer.threads,
                trainer.deterministic,
                trainer.compile,
            ],
            "machine": [name, torch.__version__],
            "version": STEPS_VERSION,
        }
    )
