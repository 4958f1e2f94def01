"""How many lanes a program is fastest with: the choice, how far numbers are tried, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

import kinds
from optsweep.train import fitting
from optsweep.train.device import is_out_of_memory
from optsweep.train.fitting import measure
from optsweep.train.lane_choice import Crowd, LaneChoice, LaneTimes, choose, may_gain
from optsweep.train.program import Program
from optsweep.train.trial import Trial
from small_programs import HYPER, program

FULL = [Crowd(100, 64)]
IRIS = LaneTimes(0.18, {2: 0.72, 4: 0.76, 16: 0.96, 64: 1.6})
"""As measured of iris_mlp: vmap costs three steps, a lane next to nothing."""
FLAT = LaneTimes(2.0, {2: 4.9, 4: 8.3, 16: 31.0})
"""As of charlm_tiny: a lane costs what a trial costs."""


@pytest.mark.parametrize(
    ("times", "crowds", "lanes", "gain"),
    [
        (IRIS, FULL, 64, 7.2),
        (IRIS, [Crowd(100, 16)], 16, 3.0),
        (IRIS, [Crowd(100, 10)], 16, 10 * 0.18 / 0.86),  # between the numbers that were tried, along a line
        (IRIS, [Crowd(16, 2), Crowd(8, 4)], 1, None),  # lanes would be half empty
        (IRIS, [Crowd(100, 1)], 1, 0.25),  # a lone one is padded
        (FLAT, FULL, 1, 1.03),
        (LaneTimes(1.0, {2: 1.6, 4: 3.0}), FULL, 1, 1.33),  # may be noise
        (LaneTimes(1.0, {2: 1.6, 4: 2.7}), FULL, 4, 1.48),
        (LaneTimes(1.0, {2: 1.0, 4: 1.0, 16: 3.9, 64: 15.5}), FULL, 4, 4.0),  # fewer do as well
        (LaneTimes(1.0, {2: 1.0}), FULL, 2, 2.0),  # memory ran out at four: more than two can't be
        (LaneTimes(1.0, {}), FULL, 1, 0.0),  # at two
        (replace(IRIS, room=8), FULL, 8, 8 * 0.18 / 0.827),  # it ran out in training
        (replace(IRIS, room=1), FULL, 1, 0.0),
        (LaneTimes(alone="it draws random numbers"), FULL, 1, 0.0),
    ],
)
def test_the_fewest_lanes_of_the_fastest_are_taken_if_they_gain_enough(
    times: LaneTimes, crowds: Sequence[Crowd], lanes: int, gain: float | None
) -> None:
    found = choose(times, crowds)
    assert found.lanes == lanes
    assert gain is None or found.gain == pytest.approx(gain, rel=0.01)


def test_a_sweep_that_began_with_several_keeps_two_at_least() -> None:
    assert choose(FLAT, FULL, several=True).lanes == 16
    assert choose(IRIS, [Crowd(100, 1)], several=True).lanes == 2
    assert choose(LaneTimes(), FULL, several=True) == LaneChoice(2)


def test_nothing_is_tried_where_lanes_would_stay_empty() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    small = [Crowd(4, 2), Crowd(8, 1), Crowd(4, 2), Crowd(8, 4)]  # sixteen trials and eight seeds, two workers
    assert not may_gain(small, cpu)
    assert may_gain([Crowd(16, 8), Crowd(8, 4)], cpu)
    assert may_gain(small, cuda)
    assert not may_gain([Crowd(100, 1)], cuda)


class FakeSteps:
    """Steps that take as long as `seconds` says of a number of lanes, or find no memory."""

    bytes_of_a_lane = 0.0
    tried: Sequence[int] = ()

    @staticmethod
    def seconds_of(lanes: int) -> float | None:
        return 0.001

    def __init__(self, program: Program, trials: Sequence[Trial]) -> None:
        self.lanes, self.lane_bytes = len(trials) if program.stacked else 0, self.bytes_of_a_lane
        type(self).tried = [*self.tried, self.lanes]
        if (found := type(self).seconds_of(self.lanes)) is None:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory")
        self.first = found

    def seconds(self, steps: int) -> float:
        return self.first

    def count(self, wanted: float) -> int:
        return 1


@pytest.mark.parametrize(
    ("seconds", "most", "tried", "upto"),
    [
        (lambda k: 0.0006 + 0.00001 * k if k else 0.0002, 500, [2, 4, 16, 64, 256], 256),
        (lambda k: 0.0006 + 0.00001 * k if k else 0.0002, 10, [2, 4, 16], 10),
        (lambda k: 0.0006 + 0.00001 * k if k else 0.0002, 2, [2], 2),
        (lambda k: 0.01 * k if k else 0.01, 500, [2, 4], 256),  # another lane takes as long as a trial
        (lambda k: 0.5 * k if k else 0.5, 500, [2], 256),  # and a step of two is long already
        (lambda k: 0.0002 * max(k, 16) if k else 0.001, 500, [2, 4, 16, 64], 256),  # falls to sixteen
        (lambda k: None if k > 4 else 0.001, 500, [2, 4, 16], 256),  # no memory for sixteen
        (lambda k: None if k else 0.001, 500, [2], 256),
    ],
)
def test_numbers_are_tried_until_time_per_trial_no_longer_falls(
    monkeypatch: pytest.MonkeyPatch,
    seconds: Callable[[int], float | None],
    most: int,
    tried: list[int],
    upto: int,
) -> None:
    monkeypatch.setattr(fitting, "_Steps", FakeSteps)
    monkeypatch.setattr(FakeSteps, "seconds_of", staticmethod(seconds))
    monkeypatch.setattr(FakeSteps, "tried", ())
    found = measure(program(kinds.Plain(), vmapped=True), Trial(HYPER, 0), most, budget=1e9)
    assert FakeSteps.tried == [0, *tried]
    assert found.upto == upto
    assert list(found.several) == [k for k in tried if seconds(k) is not None]


def test_no_more_lanes_are_tried_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_Steps", FakeSteps)
    monkeypatch.setattr(FakeSteps, "seconds_of", staticmethod(lambda lanes: 0.001))
    monkeypatch.setattr(FakeSteps, "bytes_of_a_lane", 1e6)
    monkeypatch.setattr(FakeSteps, "tried", ())
    assert list(measure(program(kinds.Plain(), vmapped=True), Trial(HYPER, 0), 500, budget=20e6).several) == [2, 4, 16]


def test_real_steps_are_timed_and_leave_the_process_as_it_was() -> None:
    p = program(kinds.Plain(), vmapped=True, num_steps=3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = measure(p, Trial(HYPER, 0), most=4, budget=1e9)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(found.several) == [2, 4]
    assert found.one > 0
    assert all(ms > 0 for ms in found.several.values())


def test_the_memory_of_a_lane_is_what_it_holds_and_what_backward_keeps() -> None:
    p = program(kinds.Plain(), vmapped=True)
    run = fitting._Steps(p, [Trial(HYPER, seed, key=seed) for seed in range(4)])
    rows = run.run.arena.params.nbytes * 4 / 4  # parameters, gradients, two moments of Adam
    assert rows < run.lane_bytes / fitting.ROOM < rows + 1e5
    wide = fitting._Steps(replace(p, batch_size=64), [Trial(HYPER, seed, key=seed) for seed in range(4)])
    assert wide.lane_bytes > run.lane_bytes


@pytest.mark.parametrize("kind", [kinds.Dropout, kinds.Experts])
def test_what_lanes_cant_take_has_its_reason(kind: Any) -> None:
    found = measure(program(kind(), vmapped=True), Trial(HYPER, 0), most=64, budget=1e9)
    assert not found.several
    assert found.alone


def test_memory_that_ran_out_is_told_from_other_errors() -> None:
    errors: Mapping[bool, Sequence[BaseException]] = {
        True: [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't")],
        False: [RuntimeError("shapes can't be multiplied"), ValueError("DefaultCPUAllocator")],
    }
    assert all(is_out_of_memory(error) is expected for expected, held in errors.items() for error in held)
