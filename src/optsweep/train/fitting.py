"""How many lanes a program is fastest with: a few steps at growing numbers (`lane_choice.py` chooses by them)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from optsweep.garbage import no_looks
from optsweep.train.device import forget_freed, is_out_of_memory
from optsweep.train.lane_choice import LADDER, LEAST_GAIN, LaneTimes
from optsweep.train.process import deterministic, isolated
from optsweep.train.program import Program
from optsweep.train.run import Run, Silent
from optsweep.train.steps import MissedGradientError
from optsweep.train.trial import Trial

LEAST_FALL, DEAR_FALL = 0.85, 0.6
"""Time per trial of a number of lanes, over that of fewer, from which on no more are tried, or none that are dear."""

ROUNDS, ONE_SECONDS, SEVERAL_SECONDS = 5, 0.01, 0.06
"""Rounds in which steps of one lane and of several are timed in turns, and how long each is, as far as is known."""

DEAR_SECONDS, SLOW_SECONDS = 0.1, 0.5
"""A step that would take so long at most is dear; one that is slow is only tried where fewer lanes gained enough."""

ROOM = 1.5
"""Bytes that a lane takes, over those of its rows and of what its backward pass keeps."""

LONG = 100_000
"""Steps of the trials that are begun: timing shouldn't come to their end."""


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
