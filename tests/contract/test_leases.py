"""Who keeps a trial: a worker that makes progress, however slow; not one that hangs, wherever it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from arms import arm_with
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.checkpoints import Checkpoints, InterruptedTrainingError
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.latest import Teller
from optsweep.launch.worker.leases import FIRST_RUNG_SECONDS, LEASE_SECONDS, LeaseKeeper, LeaseWatch
from optsweep.launch.worker.ranks.leader import Leader
from optsweep.launch.worker.reporter import Reporter
from optsweep.launch.worker.worker import Worker, _unwatched
from optsweep.search.heartbeat import Heartbeat
from optsweep.search.ownership import Claim, Lease, LeaseLostError
from optsweep.search.process import process_name
from optsweep.search.studies import Studies, Work
from optsweep.tracking.outage import storage_outage
from optsweep.train.trial import Phase, Rung
from patience import PATIENCE_SECONDS
from reporting import GIVEN_UP, OUTCOME, RUNG, reporter


@dataclass
class FakeClock:
    """A clock that stands still unless told."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Renewals:
    """Studies in which renewals are counted; the trials `gone` have changed hands."""

    gone: set[int] = field(default_factory=set)
    renewed: list[int] = field(default_factory=list)

    def renew(self, claim: Claim, lease: float) -> None:
        if claim.trial_id in self.gone:
            raise LeaseLostError
        assert lease == LEASE_SECONDS
        self.renewed.append(claim.trial_id)


def keeper(studies: Renewals, clock: FakeClock, count: int = 1) -> LeaseKeeper:
    leases = LeaseKeeper(cast(Studies, studies), clock)
    for number in range(count):
        leases.add(number, Claim(number, 1))
    return leases


def renewed(leases: LeaseKeeper, studies: Renewals) -> bool:
    studies.renewed.clear()
    leases.beat()
    return bool(studies.renewed)


def test_a_first_rung_longer_than_the_lease_keeps_the_trial_and_a_hang_does_not() -> None:
    studies, clock = Renewals(), FakeClock()
    leases = keeper(studies, clock)
    leases.rung(0)  # an evaluation before the first step says nothing of how long a rung takes
    clock.now = 20 * LEASE_SECONDS
    assert renewed(leases, studies)
    clock.now = FIRST_RUNG_SECONDS + 1
    assert not renewed(leases, studies)


def test_a_lease_lasts_for_ten_of_the_trial_s_rungs_and_not_ten_times_its_run() -> None:
    studies, clock = Renewals(), FakeClock()
    leases = keeper(studies, clock)
    for step in range(0, 1010, 10):  # a hundred rungs of a hundred seconds
        leases.rung(step)
        clock.now += 100.0
    last = clock.now - 100.0
    clock.now = last + 999.0
    assert renewed(leases, studies)
    clock.now = last + 1001.0
    assert not renewed(leases, studies)


def test_short_rungs_may_be_followed_by_a_pause() -> None:
    studies, clock = Renewals(), FakeClock()
    leases = keeper(studies, clock)
    leases.rung(0)
    leases.rung(10)
    clock.now = 590.0
    assert renewed(leases, studies)
    clock.now = 610.0
    assert not renewed(leases, studies)


def test_a_trial_hangs_when_it_is_given_no_longer_and_what_the_stores_take_is_none_of_its_time() -> None:
    studies, clock = Renewals(), FakeClock()
    leases = LeaseKeeper(cast(Studies, studies), clock, timeout=30.0)
    leases.add(0, Claim(0, 1))
    with leases.storing():  # its run is opened
        clock.now = 100.0
        assert not leases.overdue()
        assert renewed(leases, studies)
    clock.now = 130.0
    assert not leases.overdue()
    clock.now = 131.0
    assert leases.overdue()
    assert not renewed(leases, studies)
    leases.rung(0)
    with leases.storing():
        clock.now = 200.0
        assert not leases.overdue()
    clock.now = 229.0
    assert not leases.overdue()


def test_a_lost_lease_is_noted_and_the_others_are_kept() -> None:
    studies, clock = Renewals(gone={0}), FakeClock()
    leases = keeper(studies, clock, count=3)
    leases.ended(2)
    leases.beat()
    assert leases.lost == {0}
    assert studies.renewed == [1]


@pytest.mark.parametrize("worker", [process_name(), "elsewhere/1/1"], ids=["here", "elsewhere"])
def test_a_silent_worker_is_given_a_second_chance_and_then_up(worker: str) -> None:
    clock = FakeClock()
    watch = LeaseWatch(clock, patience=30.0)
    silent, fresh = (Lease(Claim(1, 1), worker, 0, expired) for expired in (True, False))
    assert not watch.dead([silent])
    assert not watch.silent(silent)  # the clock may have been set
    clock.now = 20.0
    assert not watch.silent(fresh)  # it was
    clock.now = 40.0
    assert not watch.silent(silent)
    clock.now = 70.0
    assert watch.silent(silent)


@pytest.mark.parametrize(
    ("left", "lost", "gone"),
    [
        (239.0, ["b1946ac9/boot.pids"], True),
        (241.0, ["b1946ac9/boot.pids"], False),
        (1.0, ["b1946ac9/boot.other"], False),
    ],
)
def test_a_worker_is_gone_sooner_with_its_machine(left: float, lost: list[str], gone: bool) -> None:
    """One that is alone silent may only be in a call that holds the interpreter."""
    clock = FakeClock()
    watch = LeaseWatch(clock, patience=30.0, lost=lambda: lost)
    lease = Lease(Claim(1, 1), "b1946ac9/12/boot.pids.4711", 0, expired=False, left=left)
    assert watch.seconds_until_silent(lease) == (max(0.0, left - 240.0) if "pids" in lost[0] else left) + 30.0
    assert not watch.silent(lease)
    clock.now = 30.0
    assert watch.silent(lease) is gone
    assert not watch.silent(Lease(lease.claim, process_name(), 0, expired=False, left=left)), "that lives"


def test_a_dead_worker_of_this_host_is_known_at_once() -> None:
    mine, its = (Lease(Claim(1, 1), worker, 0, expired=False) for worker in (process_name(), process_name() + "1"))
    assert LeaseWatch().dead([mine, its, its]) == {its.worker}


def test_a_worker_renews_the_lease_of_a_trial_that_has_no_rung_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever takes so long: the model's making, its first rung."""
    _, studies, works, _ = reporter(tmp_path, 1, "none")
    monkeypatch.setattr("optsweep.launch.worker.leases.Heartbeat", partial(Heartbeat, seconds=0.001))
    renewed = threading.Event()
    monkeypatch.setattr(studies, "renew", lambda claim, lease: renewed.set())
    seen: list[bool] = []

    class Slow(Worker):
        def _train_held(self, job: Job, key: int, work: Work, reporter: Reporter) -> None:
            seen.append(renewed.wait(PATIENCE_SECONDS))

    worker = Slow.__new__(Slow)
    worker.studies, worker.watch, worker.latest = studies, _unwatched, Teller(studies.engine)
    worker.checkpoints, worker.stopping = Checkpoints(tmp_path), lambda: False
    worker.leader = Leader(Builds())
    worker._train(Job(arm_with({}), "", "", ""), works[0])
    assert seen == [True]


def test_a_trial_that_hangs_has_failed_by_its_own_fault_where_it_hangs(tmp_path: Path) -> None:
    _, studies, works, _ = reporter(tmp_path, 1, "none")

    class HangsInTraining(Worker):
        def _train_held(self, job: Job, key: int, work: Work, reporter: Reporter) -> None:
            pass

    @contextmanager
    def watch(overdue: Callable[[], bool], tell: Callable[[str], None]) -> Iterator[None]:
        assert not overdue()
        tell("own.py:3, in forward")
        yield

    worker = HangsInTraining.__new__(HangsInTraining)
    worker.studies, worker.watch, worker.stopping = studies, watch, lambda: False
    worker.latest, worker.leader = Teller(studies.engine), Leader(Builds())
    worker.checkpoints, worker._storage = Checkpoints(tmp_path), storage_outage(f"sqlite:///{tmp_path}/optuna.db")
    worker._train(Job(arm_with({}, trainer__timeout=60), "", "", ""), works[0])
    (trial,) = studies.trials(works[0].arm, Phase.SEARCH)
    assert trial.user_attrs["error"] == "own.py:3, in forward: no progress for 60 s (trainer.timeout)"
    assert (trial.user_attrs["died"], trial.user_attrs["excused"]) == (False, False), "it counts"


@pytest.mark.parametrize("found_by", ["report", "heartbeat", "tell"])
def test_a_worker_drops_the_trial_that_was_taken_from_it_and_goes_on_with_the_others(
    found_by: str, tmp_path: Path
) -> None:
    observer, studies, works, logs = reporter(tmp_path, 2, "median" if found_by == "report" else "none")
    studies.fail(works[0].claim, "silent")
    if found_by == "heartbeat":
        observer.leases.beat()
    for place in (0, 1):
        observer.on_rung(place, Rung(10, 1.0, **RUNG))
    for place in (0, 1):
        observer.on_end(place, OUTCOME)
    assert logs[0].ends[-1] == GIVEN_UP
    assert (logs[1].steps, logs[1].ends) == ([10], ["finished"])
    observer.crash("later")  # closes neither again
    assert logs[0].ends[-1] == GIVEN_UP
    assert logs[1].ends == ["finished"]
    assert [t.state.name for t in studies.trials(works[0].arm, Phase.SEARCH)] == ["FAIL", "COMPLETE"]


def test_a_worker_that_was_out_of_touch_trains_no_longer_for_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer, studies, works, logs = reporter(tmp_path, 2, "none")
    for work in works:
        assert not observer.leases.all_lost
        studies.fail(work.claim, "its worker hung or was lost", died=True)
        observer.leases.beat()  # as soon as it runs again
    worker = Worker.__new__(Worker)
    worker.checkpoints, worker.stopping = Checkpoints(tmp_path), lambda: False
    with pytest.raises(InterruptedTrainingError):  # at its next pause
        worker.reporter(observer.job, observer.leases).kept.pause(dict)
    with pytest.raises(LeaseLostError):
        observer.drop_lost()
    assert [log.ends for log in logs] == [[GIVEN_UP], [GIVEN_UP]]
    assert capsys.readouterr().err.count("was out of touch for longer than its lease") == 2


def test_training_ends_when_no_trial_of_the_batch_is_left(tmp_path: Path) -> None:
    observer, studies, works, logs = reporter(tmp_path, 1, "median")
    studies.fail(works[0].claim, "silent")
    with pytest.raises(LeaseLostError):
        observer.on_rung(0, Rung(10, 1.0, **RUNG))
    assert logs[0].ends == [GIVEN_UP]
