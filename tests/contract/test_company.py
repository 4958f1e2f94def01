"""What a worker trains side by side: what waits of one program, of either phase, and no more than its share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.launch.prepare.description import described
from optsweep.launch.tracked.describe import describe_arm
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.leases import LeaseKeeper
from optsweep.launch.worker.worker import Worker
from optsweep.search.seats import Seat
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.tracking.writer import Tracker
from optsweep.train.run import Run
from optsweep.train.trial import Phase


class Bench:
    """One arm of short trials, and who works them."""

    def __init__(self, folder: Path) -> None:
        self.uri, storage = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db"
        stores = {"tracking__uri": self.uri, "tracking__storage": storage}
        self.arm = arm_with({}, **stores, task__width=4, trainer__steps=8, trainer__rungs=2, trainer__lanes=2)
        self.studies = Studies.open(storage, self.arm.sweep)
        self.seat: Seat = self.studies.take_seat([self.arm.name], whole=True)
        built = build_arm(self.arm)
        self.job: Job = describe_arm(Tracker(self.uri, self.arm.sweep), self.arm, described(self.arm, built), "adamw")
        self.told: list[int] = []

    def add(self, phase: Phase, *numbers: int, repeat: int = 0, attempt: int = 0) -> None:
        for number in numbers:
            slot = Slot(number, {}, number, "fixed")
            self.studies.enqueue(self.seat, self.arm.name, phase, slot, attempt, repeat)

    def worker(self, **options: object) -> Worker:
        return Worker([self.job], builds=Builds("cpu"), told=lambda: self.told.append(self.waiting), **options)  # type: ignore[arg-type]

    @property
    def waiting(self) -> int:
        return self.studies.num_waiting()

    def done(self, phase: Phase, repeat: int = 0) -> list[int]:
        slots = self.studies.history(self.arm.name, phase, 1, repeat).slots
        return [number for number, slot in slots.items() if slot.done]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("optsweep.launch.worker.worker.LOOK_SECONDS", 0.0)
    return Bench(tmp_path)


def work(worker: Worker) -> None:
    try:
        assert worker.work_once()
    finally:
        worker.close()


def test_search_and_confirm_trials_share_lanes_which_are_filled_as_long_as_any_wait(bench: Bench) -> None:
    bench.add(Phase.SEARCH, 0, 1, 2)
    bench.add(Phase.CONFIRM, 0, 1)
    bench.add(Phase.SEARCH, 0, repeat=1)  # another program's: its samples are divided otherwise
    work(bench.worker())
    assert (bench.done(Phase.SEARCH), bench.done(Phase.CONFIRM), bench.done(Phase.SEARCH, 1)) == ([0, 1, 2], [0, 1], [])
    assert bench.told == [4, 4, 2, 2, 1]


def test_a_worker_leaves_the_others_their_share_of_the_last_ones(bench: Bench) -> None:
    bench.add(Phase.SEARCH, 0, 1)
    worker = bench.worker(workers=2)
    (first,) = worker._pop(bench.job, Phase.SEARCH, 0, 1)
    assert bench.waiting == 1
    assert [w.slot.number for w in worker.beside(bench.job, first, 1)] == [1], "half of one, rounded up"
    bench.add(Phase.SEARCH, 2, 3, 4, 5)
    assert [w.slot.number for w in worker.beside(bench.job, first, 4)] == [2, 3]
    worker.close()


def test_one_that_failed_before_trains_alone_and_does_not_join(bench: Bench) -> None:
    bench.add(Phase.SEARCH, 0)
    bench.add(Phase.SEARCH, 1, attempt=2)
    bench.add(Phase.SEARCH, 2)
    work(bench.worker())
    assert bench.done(Phase.SEARCH) == [0, 2]
    bench.add(Phase.SEARCH, 3)
    work(bench.worker())
    assert sorted(bench.done(Phase.SEARCH)) == [0, 1, 2]
    assert bench.waiting == 1


def test_a_worker_that_is_called_takes_no_more(bench: Bench) -> None:
    bench.add(Phase.SEARCH, 0, 1, 2)
    work(bench.worker(called=lambda: len(bench.told) > 0))
    assert bench.done(Phase.SEARCH) == [0, 1]


def test_looking_for_more_is_no_time_of_those_in_training(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage may be away for longer than they may be without progress."""
    hangs: list[Callable[[], bool]] = []
    seen: list[bool] = []

    @contextmanager
    def watch(overdue: Callable[[], bool], tell: Callable[[str], None]) -> Iterator[None]:
        hangs.append(overdue)
        yield

    def num_waiting() -> int:
        if not hangs:  # before there is one in training
            return 1
        seen.append(hangs[0]())
        return 0

    monkeypatch.setattr(LeaseKeeper, "patience", -1.0)
    bench.add(Phase.SEARCH, 0)
    worker = bench.worker(watch=watch)
    monkeypatch.setattr(worker.studies, "num_waiting", num_waiting)
    work(worker)
    assert hangs[0]()
    assert seen
    assert not any(seen)


def test_a_crash_fails_those_that_are_in_training(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no one that has ended, or waits."""
    bench.add(Phase.SEARCH, 0, 1, 2, 3, 4)

    def told() -> None:
        if bench.studies.num_waiting() == 1:
            raise RuntimeError("in the middle")

    worker = Worker([bench.job], builds=Builds("cpu"), told=told)
    work(worker)
    states = [trial.state.name for trial in bench.studies.trials(bench.arm.name, Phase.SEARCH)]
    assert states == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL", "WAITING"]


def test_where_memory_runs_out_trials_go_on_in_half_as_many_lanes_and_no_retry_is_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, advance = [0, 1, 2], Run.advance

    def crowded(run: Run, end: int) -> float:
        if len(run.lanes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return advance(run, end)

    monkeypatch.setattr(Run, "advance", crowded)
    bench.add(Phase.SEARCH, *whole)
    worker = bench.worker()
    assert worker.work_once()
    assert "adamw: memory ran out with 2 trials in lanes, which go on one by one\n" in capsys.readouterr().err
    history = bench.studies.history(bench.arm.name, Phase.SEARCH, 1)
    assert (sorted(history.lost), history.attempts, bench.done(Phase.SEARCH)) == ([0, 1], {}, [])
    bench.add(Phase.SEARCH, 0, 1, attempt=1)
    for _ in whole:
        assert worker.work_once()
    worker.close()
    assert sorted(bench.done(Phase.SEARCH)) == whole


def test_what_one_trial_has_no_memory_for_is_its_own_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def crowded(run: Run, end: int) -> float:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(Run, "advance", crowded)
    bench.add(Phase.SEARCH, 0)
    work(bench.worker())
    history = bench.studies.history(bench.arm.name, Phase.SEARCH, 1)
    assert history.attempts == {0: 1}
    assert "DefaultCPUAllocator: can't allocate memory" in history.errors[0]
