"""Which trials are given up: those with errors of their own, or that worker after worker died of; none is left open."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from arms import arm_with
from optsweep.launch.planner import PlannedArm, Planner
from optsweep.launch.worker.job import Job
from optsweep.search.history import DEATHS
from optsweep.search.process import process_name
from optsweep.search.slots import SearchPlan
from optsweep.search.space import Space
from optsweep.search.studies import Studies, Work
from optsweep.tracking.schema import Chosen
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Phase

WORKER = process_name()
KILLED = "its worker died (SIGKILL)"


@dataclass
class Closed:
    """Hears which runs the planner closes."""

    runs: list[tuple[int, str]] = field(default_factory=list)

    def note_chosen(self, run: str, chosen: Chosen | None, repeat: int = 0) -> None:
        pass

    def lost_trials(self, arm: str, phase: Phase, slot: int, reason: str, repeat: int = 0) -> None:
        self.runs.append((slot, reason))


@dataclass
class Bench:
    """One arm with two confirm trials, and its planner."""

    studies: Studies
    planner: Planner
    closed: Closed
    arm: str

    def pop(self, count: int = 1) -> list[Work]:
        self.planner.step()
        return self.studies.pop(self.arm, Phase.CONFIRM, WORKER, 60.0, count)

    def end(self, *works: Work) -> None:
        for work in works:
            self.studies.tell(work.claim, End.FINISHED, 1.0, 0.1, 1.0)

    def crashed(self) -> list[int]:
        self.planner.step()
        slots = self.studies.history(self.arm, Phase.CONFIRM, 1).slots.values()
        return [slot.number for slot in slots if slot.crashed]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    studies, closed = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s"), Closed()
    arm = arm_with({})
    plan = SearchPlan(trials=0, lag=1, sampler="gp", pruner="none", reruns=0.0, seed=0, arm=arm.name)
    seat = studies.take_seat([arm.name], whole=True)
    tasks = [PlannedArm(Job(arm, "a", "", ""), plan, Space({}))]
    planner = Planner(tasks, studies, seat, cast(Tracker, closed), seeds=2, baseline=arm.name, retries=1)
    return Bench(studies, planner, closed, arm.name)


def take_second(bench: Bench) -> Work:
    """Trial 1, alone of all; the other one is finished."""
    while (work := bench.pop()[0]).slot.number != 1:
        bench.end(work)
    return work


def lose(bench: Bench) -> None:
    """The worker that has trial 1 dies."""
    take_second(bench)
    bench.planner.lose_worker(WORKER, KILLED)


def test_deaths_from_outside_are_no_fault_of_a_trial(bench: Bench) -> None:
    """More of them than retries, and an error of its own besides."""
    lose(bench)
    lose(bench)
    (work,) = bench.pop()
    bench.studies.fail(work.claim, "RuntimeError: once")  # it killed no worker, so the row is broken
    lose(bench)
    lose(bench)
    assert bench.crashed() == []
    (work,) = bench.pop()
    bench.end(work)
    assert bench.planner.step()
    assert [slot.value for slot in bench.studies.history(bench.arm, Phase.CONFIRM, 1).slots.values()] == [1.0, 1.0]


def test_a_trial_that_kills_worker_after_worker_is_given_up_and_its_run_closed(bench: Bench) -> None:
    for _ in range(DEATHS):
        assert bench.crashed() == []
        lose(bench)
    assert bench.crashed() == [1]
    assert bench.closed.runs == [(1, KILLED)]
    assert bench.planner.step()


def test_errors_of_a_trial_count_and_a_stop_of_the_sweep_does_not(bench: Bench) -> None:
    for excused in (True, False, True):
        bench.studies.fail(take_second(bench).claim, "why", excused=excused)
    assert bench.crashed() == []
    bench.studies.fail(take_second(bench).claim, "RuntimeError: again")
    assert bench.crashed() == [1]
    assert bench.closed.runs == [(1, "RuntimeError: again")]


def test_a_trial_that_failed_takes_no_other_with_it_again(bench: Bench) -> None:
    works = bench.pop(2)
    assert [work.slot.number for work in works] == [0, 1]
    for work in works:
        bench.studies.fail(work.claim, "RuntimeError: one of us")
    assert [[work.slot.number for work in bench.pop(2)] for _ in range(2)] == [[0], [1]]


def test_trials_of_a_stopped_sweep_train_together_again(bench: Bench) -> None:
    for work in bench.pop(2):
        bench.studies.fail(work.claim, "interrupted", excused=True)
    assert [work.slot.number for work in bench.pop(2)] == [0, 1]


def test_a_worker_that_can_t_be_seen_is_named_with_the_seconds_until_the_sweep_goes_on_without_it(bench: Bench) -> None:
    bench.planner.step()
    assert list(bench.planner.out_of_sight()) == []
    bench.studies.pop(bench.arm, Phase.CONFIRM, "b1946ac9/12/0", 300.0, 2)
    (line,) = bench.planner.out_of_sight()
    assert line.startswith("2 trials in the hands of process 12 on host b1946ac9, which can't be seen from here")
    seconds = float(line.split()[-2])
    assert 300.0 < seconds <= 330.0
