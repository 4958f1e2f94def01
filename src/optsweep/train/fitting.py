"""How many lanes a program is fastest with: a few steps at growing numbers, and a choice that is a function of them.

The choice asks how many trials there will be to train side by side: vmap costs a small model some plain steps,
whatever the number of lanes, so half-empty lanes are slower than none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor

from optsweep.garbage import no_looks
from optsweep.train.device import forget_freed, is_out_of_memory
from optsweep.train.process import deterministic, isolated
from optsweep.train.program import Program
from optsweep.train.run import Run, Silent
from optsweep.train.steps import MissedGradientError
from optsweep.train.trial import Trial

LADDER = (2, 4, 16, 64, 256)
"""Numbers of lanes that are tried; between them the time of a step is taken along a line."""

LEAST_GAIN = 1.4
"""Time with one lane over time with several from which on it is several: less may be noise of a busy machine."""

ALIKE = 1.05
"""The fewest lanes that take at most so much longer than the fastest are taken: they need less memory."""

LEAST_FALL, DEAR_FALL = 0.85, 0.6
"""Time per trial of a number of lanes, over that of fewer, from which on no more are tried, or none that are dear."""

VMAP_STEPS: Mapping[str, float] = {"cpu": 3.0}
"""Plain steps that a step of any number of lanes takes at least: 3.3 to 4.3 for the small models of the catalogue."""

ROUNDS, ONE_SECONDS, SEVERAL_SECONDS = 5, 0.01, 0.06
"""Rounds in which steps of one lane and of several are timed in turns, and how long each is, as far as is known."""

DEAR_SECONDS, SLOW_SECONDS = 0.1, 0.5
"""A step that would take so long at most is dear; one that is slow is only tried where fewer lanes gained enough."""

ROOM = 1.5
"""Bytes that a lane takes, over those of its rows and of what its backward pass keeps."""

LONG = 100_000
"""Steps of the trials that are begun: timing shouldn't come to their end."""


@dataclass(frozen=True)
class LaneTimes:
    """Milliseconds of a step: of the plain module, and of so many lanes together; or why there can't be several."""

    one: float = 0.0
    several: Mapping[int, float] = field(default_factory=dict)
    upto: int = LADDER[-1]  # lanes up to which others than these would not be faster, or have no room
    alone: str = ""
    room: int = 0  # lanes at most, since memory ran out with more; 0: it never did

    def of(self, lanes: int) -> float:
        """Of a step of so many lanes, between the numbers that were tried along a line; a lone one is padded."""
        known = sorted(self.several)
        lanes = max(lanes, known[0])
        below = max(k for k in known if k <= lanes)
        above = min((k for k in known if k >= lanes), default=below)
        if above == below:
            return self.several[below] * lanes / below  # beyond the last one it isn't faster
        share = (lanes - below) / (above - below)
        return (1 - share) * self.several[below] + share * self.several[above]


@dataclass(frozen=True)
class Crowd:
    """Trials of an arm of which so many wait for one process at a time."""

    trials: int
    at_once: int


@dataclass(frozen=True)
class LaneChoice:
    """A number of lanes; `gain` is the time of all trials with one lane over that with `best` lanes, 0 if unknown."""

    lanes: int
    best: int = 0
    gain: float = 0.0


def choose(times: LaneTimes, crowds: Sequence[Crowd], *, several: bool = False) -> LaneChoice:
    """The number of lanes for these trials; `several`: at least two, for a sweep that began so."""
    possible = sorted(lanes for lanes in {*times.several, times.room} if 2 <= lanes <= (times.room or lanes))
    if not (times.several and possible):
        return LaneChoice(2 if several else 1)
    total = sum(crowd.trials for crowd in crowds)

    def seconds(lanes: int) -> float:
        filled = [(crowd.trials, min(lanes, crowd.at_once)) for crowd in crowds]
        return sum(trials * times.of(together) / together for trials, together in filled)

    by_number = {lanes: seconds(lanes) for lanes in possible}
    fastest = min(by_number.values())
    best = next(lanes for lanes, found in by_number.items() if found <= ALIKE * fastest)
    gain = total * times.one / by_number[best]
    return LaneChoice(best if several or gain >= LEAST_GAIN else 1, best, gain)


def may_gain(crowds: Sequence[Crowd], device: torch.device) -> bool:
    """Whether several lanes could be worth it, however little they cost on such a device: else nothing is tried."""
    least = VMAP_STEPS.get(device.type, 1.0)
    total = sum(crowd.trials for crowd in crowds)
    return total >= LEAST_GAIN * sum(crowd.trials * least / crowd.at_once for crowd in crowds)


def measure(program: Program, trial: Trial, most: int, budget: float) -> LaneTimes:
    """Time a few steps at growing numbers of lanes, up to `most` and to `budget` bytes. Raises what the model raises.

    The program is one for lanes. It stops where time per trial no longer falls.
    """
    if not program.stacked:
        return LaneTimes(alone=program.traits.alone)
    program = replace(program, num_steps=max(program.num_steps, LONG)).knowing(program.traits)
    plain = replace(program, vmapped=False).knowing(program.traits)
    with _surroundings(program):
        try:
            ladder = _Ladder(program, trial, _Steps(plain, [trial]), budget)
            upto = LADDER[-1]
            for below, lanes in zip((1, *LADDER), LADDER, strict=False):
                if below >= most:
                    upto = most
                    break
                if not ladder.goes_on(lanes):
                    break
                ladder.climb(lanes)
        except MissedGradientError as missed:
            return LaneTimes(alone=f"{missed}: what the model uses changes from step to step")
        return LaneTimes(1000 * ladder.one, {k: 1000 * s for k, s in ladder.several.items()}, upto)


class _Ladder:
    """The numbers of lanes that were tried so far, with seconds of a step."""

    def __init__(self, program: Program, trial: Trial, plain: _Steps, budget: float) -> None:
        self.program, self.trial, self.plain, self.budget = program, trial, plain, budget
        self.one = plain.seconds(1)
        self.several: dict[int, float] = {}
        self.lane_bytes = plain.lane_bytes
        self._full = False

    def goes_on(self, lanes: int) -> bool:
        """Whether so many are worth trying, after those before."""
        if self._full or lanes * self.lane_bytes > self.budget:
            return False
        last, *before = sorted(self.several, reverse=True) or [1]
        if last == 1:
            return True
        seconds = self.several[last]
        at_most = lanes / last * seconds
        if last * self.one / seconds < LEAST_GAIN and at_most > SLOW_SECONDS:
            return False
        if not before:
            return True
        further = (seconds - self.several[before[0]]) / (last - before[0])  # that a further lane takes
        if further > self.one / LEAST_GAIN:
            return False
        fall = seconds / last / min(self.several[k] / k for k in before)
        return fall < (DEAR_FALL if at_most > DEAR_SECONDS else LEAST_FALL)

    def climb(self, lanes: int) -> None:
        """Try so many. Memory that runs out ends it."""
        try:
            steps = _Steps(self.program, [replace(self.trial, seed=seed, key=seed) for seed in range(lanes)])
            self.lane_bytes = steps.lane_bytes
            one, ratio = self._in_turns(steps, lanes)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._full = True
            forget_freed(self.program.device)
            return
        self.one = min(self.one, one)
        self.several[lanes] = ratio * self.one

    def _in_turns(self, steps: _Steps, lanes: int) -> tuple[float, float]:
        """Seconds of a step of one lane at its fastest, and how many such a step of several takes, by the median round.

        What else the machine does tells for both halves of a round.
        """
        last = max(self.several, default=0)
        at_most = lanes / last * self.several[last] if last else self.one
        count = steps.count(min(ONE_SECONDS / self.one, SEVERAL_SECONDS / at_most))
        slow = count * steps.first > SLOW_SECONDS
        found = []
        for _ in range(1 if slow else ROUNDS):
            self.plain.seconds(1)  # several have taken its place in the caches
            found.append((self.plain.seconds(count), steps.seconds(count)))
        return min(one for one, _ in found), median(several / one for one, several in found)


class _Steps:
    """A run whose steps are timed, after a first one."""

    def __init__(self, program: Program, trials: Sequence[Trial]) -> None:
        self.device, self._clock = program.device, _clock(program.device)
        self.run = Run(program, trials, Silent(), rare=() if program.stacked else program.traits.missing)
        with _kept() as kept:
            self.first = self.seconds(1)
        self._period = self.run.update.period
        rows = [self.run.arena.params, self.run.arena.grads, *self.run.arena.state.values()]
        held = sum(tensor.nbytes for tensor in rows) + sum(kept.values()) / program.accumulate
        self.lane_bytes = ROOM * held / len(trials)

    def seconds(self, steps: int) -> float:
        """Of a step."""
        begin = self._clock()
        self.run.advance(self.run.tick + steps)
        return (self._clock() - begin) / steps

    def count(self, wanted: float) -> int:
        """Steps of a round that has about so many: whole periods of the update, where they are as long."""
        wanted = max(1, round(wanted))
        return -(-wanted // self._period) * self._period if 2 * wanted >= self._period else wanted


@contextmanager
def _kept() -> Iterator[Mapping[int, int]]:
    """Bytes of what backward passes keep from here on, by the memory's address."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _clock(device: torch.device) -> Callable[[], float]:
    """Of this thread alone where it does all the work: others then can't make it look slow."""
    return time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


@contextmanager
def _surroundings(program: Program) -> Iterator[None]:
    """What holds in the process while a program trains."""
    traits = program.traits
    switches = isolated(program.device, traits.default_dtype, traits.flags)
    with switches, deterministic(program.deterministic), no_looks():
        yield
