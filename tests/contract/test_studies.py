"""The storage that planner and workers share: every trial is popped once, given up trials come back, one plans."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from optsweep.errors import UserError
from optsweep.search import reading
from optsweep.search.history import Account
from optsweep.search.ownership import Claim, LeaseLostError, Ownership
from optsweep.search.process import process_name
from optsweep.search.seats import SEAT_SECONDS, Seat, SeatLostError
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.train.trial import End, Phase

SLOT = Slot(0, {"lr": 1e-3}, 0, "model")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.fixture
def studies(url: str) -> Studies:
    return Studies.open(url, "s")


@pytest.fixture
def seat(studies: Studies) -> Seat:
    return studies.take_seat(["arm"], whole=True)


def take(studies: Studies, worker: str = "a") -> Claim:
    (work,) = studies.pop("arm", Phase.SEARCH, worker, 60.0, 1)
    return work.claim


def test_a_new_trial_may_have_the_number_of_one_whose_study_was_deleted(url: str) -> None:
    """As `optuna delete-study` leaves it: SQLite gives numbers out again, and the old trial's lease is still there."""
    old = Studies.open(url, "s")
    old.enqueue(old.take_seat(["arm"], whole=True), "arm", Phase.SEARCH, SLOT)
    stale = take(old, "late")
    old.storage.delete_study(old.ensure("arm", Phase.SEARCH))
    new = Studies.open(url, "t")
    new.enqueue(new.take_seat(["arm"], whole=True), "arm", Phase.SEARCH, SLOT)
    claim = take(new)
    assert claim.trial_id == stale.trial_id
    new.tell(claim, End.FINISHED, 0.5, 1.0, None, ())
    with pytest.raises(LeaseLostError):
        old.renew(stale, 60.0)


def test_trials_are_made_together_or_not_at_all(studies: Studies, seat: Seat) -> None:
    slots = [Slot(number, {"lr": 10.0**-number}, 0, "model") for number in range(3)]
    studies.enqueue_all(seat, "arm", Phase.SEARCH, slots[:2])
    studies.enqueue_all(seat, "arm", Phase.SEARCH, slots[2:])
    made = studies.trials("arm", Phase.SEARCH)
    assert [(t.number, t.user_attrs["slot"], t.user_attrs["params"]) for t in made] == [
        (slot.number, slot.number, slot.params) for slot in slots
    ]
    assert len({trial.user_attrs["id"] for trial in made}) == 3
    seat.release()
    with pytest.raises(SeatLostError):
        studies.enqueue_all(seat, "arm", Phase.SEARCH, slots)
    assert len(studies.trials("arm", Phase.SEARCH)) == 3
    assert [take(studies).trial_id for _ in slots] == [trial._trial_id for trial in made]


def test_looking_leaves_no_trace(studies: Studies) -> None:
    """A command that is refused over what a sweep has already has only looked."""
    assert studies.note("arm", "content") is None
    assert not studies.has_trials("arm")
    assert not studies.has_results("arm", 3)
    assert studies.history("arm", Phase.CONFIRM, 1).slots == {}
    assert optuna.get_all_study_names(studies.storage) == []


def test_a_history_is_read_again_only_where_a_trial_s_state_has_changed(
    studies: Studies, seat: Seat, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        studies.enqueue(seat, "arm", Phase.SEARCH, replace(SLOT, number=number))
    assert studies.history("arm", Phase.SEARCH, 1).waiting == 30
    worker = Studies.open(url, "s")
    first, second = take(worker), take(worker)
    worker.tell(first, End.FINISHED, 0.5, 1.0)
    read, whole = list[int](), reading._read

    def noted(connection: Connection, study: int, states: Mapping[int, TrialState]) -> dict[int, FrozenTrial]:
        read.extend(states)
        return whole(connection, study, states)

    monkeypatch.setattr(reading, "_read", noted)
    for _ in range(2):
        history = studies.history("arm", Phase.SEARCH, 1)
        assert (history.waiting, history.slots[0].value, history.slots[1].done) == (28, 0.5, False)
    assert read == [first.trial_id, second.trial_id]
    worker.fail(second, "lost")
    assert list(studies.history("arm", Phase.SEARCH, 1).lost) == [1]
    assert studies.forgive(seat, "arm") == 1
    assert studies.history("arm", Phase.SEARCH, 1).attempts == {}


@pytest.mark.parametrize("most", [0, 500])
def test_a_history_tells_what_optuna_reads(
    studies: Studies, seat: Seat, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_NAMED", most)
    for number in range(4):
        slot = Slot(number, {"lr": 1e-3, "clip": None}, 7, "model", prune_above={10: 0.5})
        studies.enqueue(seat, "arm", Phase.SEARCH, slot)
    for end, value in ((End.FINISHED, 0.25), (End.DIVERGED, float("inf")), (End.PRUNED, 0.5)):
        claim = take(studies)
        studies.report(claim, 10, float("nan") if end is End.DIVERGED else 0.75, 60.0)
        studies.tell(claim, end, value, 1.5, *((0.5, (0.5, 1.0)) if end is End.FINISHED else ()))
    told = studies.history("arm", Phase.SEARCH, 1)
    fresh = Account()
    for trial in studies.trials("arm", Phase.SEARCH):
        fresh.take(trial)
    assert repr(told) == repr(fresh.history({}, 1))  # NaN equals itself so
    assert told.slots[0].rungs == {10: 0.75}


def test_optuna_numbers_and_reads_the_trials_that_are_made_here(studies: Studies, seat: Seat) -> None:
    for number in range(3):
        studies.enqueue(seat, "arm", Phase.SEARCH, Slot(number, {"lr": 1e-3}, 7, "model", prune_above={10: 0.5}))
        studies.enqueue(seat, "arm", Phase.CONFIRM, Slot(number, {"lr": 1e-3}, 7, "chosen"))
    claim = take(studies)
    studies.report(claim, 10, float("nan"), 60.0)
    studies.tell(claim, End.FINISHED, 0.25, 1.5, 0.75, (0.5, 1.0))
    trials = studies.trials("arm", Phase.SEARCH)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert [trial.state.name for trial in trials] == ["COMPLETE", "WAITING", "WAITING"]
    assert len({trial.user_attrs["id"] for trial in trials}) == 3
    assert trials[1].user_attrs == {
        "id": trials[1].user_attrs["id"],
        "slot": 1,
        "params": {"lr": 1e-3},
        "seed": 7,
        "origin": "model",
        "attempt": 0,
        "prune_above": {"10": 0.5},
    }
    assert trials[0].value == 0.25
    assert str(trials[0].intermediate_values) == "{10: nan}"
    assert trials[0].duration is not None
    found = studies.history("arm", Phase.SEARCH, 1)
    assert (found.slots[0].value, found.slots[0].test_loss, found.train_seconds) == (0.25, 0.75, 1.5)
    assert found.slots[0].test_blocks == (0.5, 1.0)
    assert found.waiting == 2


def test_a_crash_counts_and_an_excused_stop_does_not(studies: Studies, seat: Seat) -> None:
    for excused in (True, True, False):
        studies.enqueue(seat, "arm", Phase.SEARCH, SLOT)
        assert studies.fail(take(studies), "why", excused=excused)
    found = studies.history("arm", Phase.SEARCH, retries=1)
    assert found.attempts == {0: 1}
    assert found.lost.keys() == {0}  # to be enqueued again
    assert not found.slots
    found = studies.history("arm", Phase.SEARCH, retries=0)
    assert found.slots[0].crashed
    assert found.errors == {0: "why"}


def test_a_zombie_can_change_nothing(studies: Studies, seat: Seat) -> None:
    studies.enqueue(seat, "arm", Phase.SEARCH, SLOT)
    claim = take(studies, "zombie")
    studies.fail(claim, "its worker was lost")
    with pytest.raises(LeaseLostError):
        studies.tell(claim, End.FINISHED, 1.0, 1.0, 1.0)
    with pytest.raises(LeaseLostError):
        studies.report(claim, 10, 1.0, 60.0)
    with pytest.raises(LeaseLostError):
        studies.renew(claim, 60.0)
    assert not studies.fail(claim, "crashed")
    (trial,) = studies.trials("arm", Phase.SEARCH)
    assert trial.values is None
    assert trial.intermediate_values == {}
    assert trial.user_attrs["error"] == "its worker was lost"
    assert not {"end", "test_loss", "train_seconds"} & trial.user_attrs.keys()
    assert not studies.history("arm", Phase.SEARCH, retries=1).slots


def test_what_was_told_first_stays(studies: Studies, seat: Seat) -> None:
    studies.enqueue(seat, "arm", Phase.SEARCH, SLOT)
    claim = take(studies)
    studies.tell(claim, End.FINISHED, 1.0, 1.0)
    assert not studies.fail(claim, "its worker was lost")
    with pytest.raises(LeaseLostError):
        studies.tell(claim, End.FINISHED, 2.0, 1.0)
    (trial,) = studies.trials("arm", Phase.SEARCH)
    assert trial.value == 1.0
    assert "error" not in trial.user_attrs


def test_a_trial_is_given_up_for_silence_only_while_its_lease_has_run_out(studies: Studies, seat: Seat) -> None:
    studies.enqueue(seat, "arm", Phase.SEARCH, SLOT)
    claim = take(studies)
    assert not studies.fail(claim, "silent", if_left=0.0)
    studies.renew(claim, -1.0)
    (running,) = studies.history("arm", Phase.SEARCH, 1).running
    assert running.lease.expired
    studies.report(claim, 10, 1.0, 60.0)  # a rung renews it
    (running,) = studies.history("arm", Phase.SEARCH, 1).running
    assert (running.lease.expired, running.lease.step, running.lease.worker) == (False, 10, "a")
    assert not studies.fail(claim, "silent", if_left=0.0)
    studies.renew(claim, -1.0)
    assert studies.fail(claim, "silent", if_left=0.0)


def test_a_trial_that_another_worker_was_faster_at_does_not_stop_a_pop(
    studies: Studies, seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        studies.enqueue(seat, "arm", Phase.SEARCH, Slot(number, {"lr": 1e-3}, 0, "model"))
    claim, faster = Ownership.claim, iter(["the other", None])

    def slow(self: Ownership, trial_id: int, worker: str, lease: float) -> Claim:
        if (other := next(faster)) is not None:
            claim(self, trial_id, other, lease)
        return claim(self, trial_id, worker, lease)

    monkeypatch.setattr(Ownership, "claim", slow)
    (work,) = studies.pop("arm", Phase.SEARCH, "a", 60.0, 2)
    assert work.slot.number == 1


def test_a_second_planner_is_told_where_the_first_one_runs_and_for_how_long(url: str, seat: Seat) -> None:
    assert seat.arms == ["", "arm"]
    begun = time.monotonic()
    seat.renew()
    where = re.escape(f"sweep.name=s: process {os.getpid()} on host {socket.gethostname()} has been running this sweep")
    for arms, whole in ((["arm"], True), (["arm"], False), (["new", "arm"], False), (["new"], True)):
        with pytest.raises(UserError, match=where + r" since \d{4}-\d\d-\d\d .* in \d+ s\)$") as refused:
            Studies.open(url, "s").take_seat(arms, whole=whole)
        left = int(str(refused.value).split()[-2])
        assert SEAT_SECONDS - (time.monotonic() - begun) - 1 <= left <= SEAT_SECONDS
    Studies.open(url, "s").take_seat(["new"], whole=False)  # a stock launcher's job with an arm of its own
    Studies.open(url, "other").take_seat(["arm"], whole=True)
    seat.release()
    Studies.open(url, "s").take_seat(["arm"], whole=False)


def test_a_planner_takes_over_when_the_lease_is_out_and_the_first_one_writes_nothing_more(
    url: str, studies: Studies, seat: Seat
) -> None:
    seat.renew(-1.0)  # out of touch, and nobody minds
    seat.check()
    studies.enqueue(seat, "arm", Phase.SEARCH, SLOT)
    seat.renew(-1.0)
    second = Studies.open(url, "s").take_seat(["arm"], whole=True)
    assert not seat.lost
    with pytest.raises(SeatLostError, match="out of touch"):
        seat.check()
    assert seat.lost
    with pytest.raises(SeatLostError):
        studies.enqueue(seat, "arm", Phase.SEARCH, Slot(1, {"lr": 1e-3}, 0, "model"))
    with pytest.raises(SeatLostError):
        seat.renew()
    seat.release()
    second.check()
    assert len(studies.trials("arm", Phase.SEARCH)) == 1


def test_the_seat_of_a_dead_process_of_this_host_is_free_at_once(
    url: str, studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, free in ((f"{process_name()}1", True), ("elsewhere/1/1", False)):
        with monkeypatch.context() as patch:
            patch.setattr("optsweep.search.seats.process_name", lambda name=name: name)
            seat = studies.take_seat(["arm"], whole=True)
        if free:
            Studies.open(url, "s").take_seat(["arm"], whole=True).release()
        else:
            with pytest.raises(UserError, match="process 1 on host elsewhere"):
                Studies.open(url, "s").take_seat(["arm"], whole=True)
        seat.release()


def test_trials_are_known_by_their_arm_whatever_its_name_is(url: str, studies: Studies) -> None:
    arms = ["it's 100%", "a | b", "a | search", "a\nb", "b"]
    seat = studies.take_seat(arms, whole=True)
    for arm in arms:
        studies.enqueue(seat, arm, Phase.CONFIRM, SLOT, repeat=2)
    for arm in arms:
        (found,) = studies.known([arm])
        assert (found.arm, found.phase, found.repeat, found.slot, found.told) == (arm, Phase.CONFIRM, 2, 0, False)
        assert found.id == studies.trials(arm, Phase.CONFIRM, 2)[0].user_attrs["id"]
    assert Studies.open(url, "t").known(arms) == []


def test_a_result_is_taken_back_by_the_arm_s_planner_only(url: str, studies: Studies, seat: Seat) -> None:
    studies.enqueue(seat, "arm", Phase.SEARCH, SLOT)
    studies.tell(take(studies), End.FINISHED, 1.0, 1.0)
    known = studies.known(["arm"])
    seat.renew(-1.0)
    second = Studies.open(url, "s").take_seat(["arm"], whole=True)
    with pytest.raises(SeatLostError):
        studies.run_again(seat, "arm", known, "why")
    assert studies.known(["arm"]) == known
    studies.run_again(second, "arm", known, "why")
    assert [trial.state.name for trial in studies.trials("arm", Phase.SEARCH)] == ["FAIL"]
    studies.run_again(second, "arm", known, "why")  # as it was seen it isn't there any more
    assert studies.trials("arm", Phase.SEARCH)[0].user_attrs["error"] == "why"
