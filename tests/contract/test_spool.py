"""What trials say of themselves reaches MLflow in order, once, whatever is cut off on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optsweep.tracking import names, outage, trial_log
from optsweep.tracking import store as opening
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.postman import deliver
from optsweep.tracking.spool import Spool
from optsweep.tracking.writer import Tracker
from spooling import OUTCOME, STEPS, FakeStore, StillCourier, finish, killed, one, rung, use, write


@pytest.fixture
def held(tmp_path: Path) -> Spool:
    return Spool.of(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db", "s")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    monkeypatch.setattr(outage, "sleep", lambda seconds: None)
    return use(FakeStore(), monkeypatch)


# -- one trial ---------------------------------------------------------------------------------------------------------


def test_a_short_trial_takes_three_calls_and_leaves_no_file(held: Spool, store: FakeStore) -> None:
    courier = StillCourier(held, [])
    log = write(courier.open("a"), "a")
    assert not store.calls, "nothing waits for MLflow"
    finish(log)
    assert not store.calls
    courier.once()
    assert store.calls == ["create_run", "log_batch", "log_text", "set_terminated"], "and one for its file"
    assert one(store) == (STEPS, "finished", "FINISHED")
    (run,) = store.alive
    assert run.params["lr"] == "0.001"
    assert run.files == dict(OUTCOME.artifacts)
    assert held.trials() == []
    assert deliver(held) == 0
    assert not held.folder.exists()


def test_nothing_follows_a_trial_that_has_been_delivered(held: Spool, store: FakeStore) -> None:
    """As where its lease was lost meanwhile."""
    courier = StillCourier(held, [])
    log = write(courier.open("a"), "a")
    finish(log)
    courier.once()
    log.crash("given up")
    assert list(held.folder.glob("*")) == []
    assert one(store) == (STEPS, "finished", "FINISHED")


def test_through_the_spool_a_run_is_what_it_is_at_once(held: Spool, store: FakeStore) -> None:
    finish(write(AtOnce(store), "a"))  # type: ignore[arg-type]
    courier = StillCourier(held, [])
    log = write(courier.open("b"), "b", steps=(10,))
    courier.go()
    for step in (20, 30):
        log.rung(rung(step))
    finish(log)
    courier.go()
    first, second = store.alive
    assert [(k, v, s) for k, v, _, s in first.points] == [(k, v, s) for k, v, _, s in second.points]
    assert (first.params, first.files, first.status) == (second.params, second.files, second.status)
    assert {**first.tags, names.TRIAL: ""} == {**second.tags, names.TRIAL: ""}


def test_the_end_is_on_the_disk_before_it_is_told(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = StillCourier(held, [])
    log = write(courier.open("a"), "a", steps=())
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    log.end(OUTCOME)
    assert len(flushed) == 1
    (trial,) = held.trials()
    assert held.has_ended(trial)


def test_what_a_trial_has_cost_is_one_point_however_it_ends(held: Spool, store: FakeStore) -> None:
    courier = StillCourier(held, [])
    finish(write(courier.open("a"), "a"))
    write(courier.open("b"), "b", steps=(10, 20)).crash("an error")
    courier.go()
    for run, (step, seconds) in zip(store.alive, [(30, OUTCOME.train_seconds), (20, 0.2)], strict=True):
        assert run.curve(names.TRAIN_SECONDS) == [(step, seconds)]
        assert run.curve(names.PEAK_BYTES) == [(step, 7)]


def test_a_process_whose_trials_are_short_leaves_them_to_others_and_imports_nothing(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(opening, "preload", lambda: imported.append("mlflow"))
    worker, planner = StillCourier(held, [], leaves=True), StillCourier(held, [])
    finish(write(worker.open("a"), "a"))
    worker.go(2)
    assert (store.calls, held.trials(), imported) == ([], ["a"], [])
    running = write(worker.open("b"), "b", steps=(10,))
    planner.go()
    assert one(store) == (STEPS, "finished", "FINISHED")
    assert (held.trials(), imported) == (["b"], []), "which is still written"
    running.close()


def test_a_trial_that_runs_for_long_is_delivered_by_the_process_that_trains_it(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(opening, "preload", lambda: imported.append("mlflow"))
    worker = StillCourier(held, [], leaves=True)
    log = write(worker.open("a"), "a", steps=(10,))
    worker.go()
    assert not store.calls, "it would be imported beside a trial's draws"
    log.rung(rung(20))
    log.write()
    assert imported == ["mlflow"], "at a rung"
    worker.go()
    assert one(store) == (STEPS[:2], "running", "RUNNING")
    log.rung(rung(30))
    finish(log)
    worker.go()
    assert one(store) == (STEPS, "finished", "FINISHED")
    assert (held.trials(), imported) == ([], ["mlflow"])


def test_a_result_that_came_too_late_is_crashed_in_the_end(held: Spool, store: FakeStore) -> None:
    """Even where its end was delivered before."""
    courier = StillCourier(held, [])
    log = write(courier.open("a"), "a")
    log.end(OUTCOME)
    courier.go()
    assert one(store)[1] == "finished"
    log.crash("given up")
    courier.go()
    assert one(store) == (STEPS, "crashed", "FAILED")
    assert held.trials() == []


# -- deliveries that are cut off ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.dictionaries(st.integers(1, 14), st.sampled_from(["before", "after"]), max_size=5),
    deaths=st.sets(st.integers(0, 6), max_size=3),
    resumed=st.booleans(),
)
def test_exactly_once_wherever_calls_are_cut_and_processes_die(
    tmp_path_factory: pytest.TempPathFactory, cuts: dict[int, str], deaths: set[int], resumed: bool
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    held = Spool.of(f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db", "s")
    with pytest.MonkeyPatch.context() as patch:
        store = use(FakeStore(cut=lambda number, name: cuts.get(number, "")), patch)
        if resumed:
            before = StillCourier(held, [])
            write(before.open("a"), "a", steps=(10, 20))
            before.go()
            killed(before)
        courier = StillCourier(held, [])
        log = write(courier.open("b"), "b", (20,) if resumed else (10, 20), resume="a" if resumed else None)
        for turn in range(7):
            if turn == 2:
                log.rung(rung(30))
                finish(log)
            courier.go()
            if turn in deaths and turn >= 2:
                killed(courier)
                courier = StillCourier(held, [])
        StillCourier(held, []).go(10)
        assert one(store) == (STEPS, "finished", "FINISHED")
        assert [run.tags[names.TRIAL] for run in store.alive] == ["b"]
        assert held.trials() == []


def test_a_run_that_a_call_made_after_all_is_taken_away(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen server may obey a call that was given up, after another one was made."""
    courier = StillCourier(held, [])
    store.cut = lambda number, name: "before" if number == 1 else ""
    finish(write(courier.open("a"), "a"))
    courier.go()
    late = {**{names.TRIAL: "a", names.STATUS: "running"}}
    store.cut = lambda number, name: ""
    original = store.log_batch

    def log_batch(run_id: str, **what: Any) -> None:
        if len(store.runs) == 1:
            store.create_run("0", 0, late, "late")
        original(run_id, **what)

    monkeypatch.setattr(store, "log_batch", log_batch)
    courier.go()
    assert one(store) == (STEPS, "finished", "FINISHED")


@pytest.mark.parametrize("gone", [1, 2])
def test_a_run_that_was_deleted_is_made_anew_from_its_beginning(held: Spool, store: FakeStore, gone: int) -> None:
    courier = StillCourier(held, [])
    log = write(courier.open("a"), "a", steps=(10,))
    for step in (20, 30)[:gone]:
        courier.go()
        store.alive[0].deleted = True
        log.rung(rung(step))
        log.write()
    for step in (20, 30)[gone:]:
        log.rung(rung(step))
    finish(log)
    courier.go()
    assert one(store) == (STEPS, "finished", "FINISHED")


# -- whose file it is --------------------------------------------------------------------------------------------------


def test_another_one_delivers_what_a_dead_worker_left_and_says_that_it_was_cut_off(
    held: Spool, store: FakeStore
) -> None:
    courier = StillCourier(held, [])
    write(courier.open("a"), "a", steps=(10, 20))
    courier.go()
    write(courier.open("b"), "b", steps=(10,))
    assert deliver(held) == 0, "its worker lives"
    killed(courier)
    assert deliver(held) == 2
    assert sorted((len(run.curve(names.VAL_LOSS)), run.tags[names.STATUS], run.status) for run in store.alive) == [
        (1, "crashed", "FAILED"),
        (2, "crashed", "FAILED"),
    ]


def test_a_file_is_delivered_by_one_at_a_time(held: Spool, store: FakeStore) -> None:
    """The second one comes while the first one is in the middle of it."""
    courier, second = StillCourier(held, []), StillCourier(held, [])
    finish(write(courier.open("a"), "a"))

    def while_created(number: int, name: str) -> str:
        if name == "create_run":
            second.go()
            assert held.trials()
        return ""

    store.cut = while_created
    courier.go()
    assert store.calls.count("create_run") == 1
    assert one(store) == (STEPS, "finished", "FINISHED")


def test_what_an_earlier_attempt_ended_with_does_not_count_as_nobody_was_told(held: Spool, store: FakeStore) -> None:
    """Killed between the end of its run and telling the study: the slot has one result."""
    before = StillCourier(held, [])
    write(before.open("a"), "a").end(OUTCOME)
    killed(before)
    courier = StillCourier(held, [])
    finish(write(courier.open("b"), "b", again=True))
    courier.go()
    assert [(run.tags[names.TRIAL], run.tags[names.STATUS]) for run in store.alive] == [
        ("a", "crashed"),
        ("b", "finished"),
    ]


def test_an_attempt_that_is_delivered_late_leaves_later_ones_alone(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(trial_log, "_now", lambda: next(clock))
    hung, courier = StillCourier(held, []), StillCourier(held, [])
    late = write(hung.open("b"), "b", again=True)
    finish(write(courier.open("c"), "c", again=True))
    courier.go()
    late.crash("given up")
    hung.go()
    assert {run.tags[names.TRIAL]: run.tags[names.STATUS] for run in store.alive} == {"b": "crashed", "c": "finished"}


def test_a_trial_that_is_resumed_goes_on_in_its_run_and_drops_what_is_there(held: Spool, store: FakeStore) -> None:
    before = StillCourier(held, [])
    write(before.open("a"), "a", steps=(10, 20))
    killed(before)
    assert deliver(held) == 1
    assert one(store)[1] == "crashed"
    courier = StillCourier(held, [])
    log = write(courier.open("b"), "b", steps=(20,), resume="a", again=True)  # from a checkpoint at 10
    courier.go()
    (run,) = store.alive
    assert (run.tags[names.TRIAL], run.tags[names.STATUS], run.tags[names.ERROR], run.status) == (
        "b",
        "running",
        "",
        "RUNNING",
    )
    log.rung(rung(30))
    finish(log)
    courier.go()
    assert one(store) == (STEPS, "finished", "FINISHED")


def test_a_trial_whose_checkpoint_did_not_fit_tells_no_point_twice(held: Spool, store: FakeStore) -> None:
    courier = StillCourier(held, [])
    kept = write(AtOnce(cast(Tracker, FakeStore())), "a", (10, 20)).points
    finish(write(courier.open("b"), "b", before=kept))  # from the beginning
    courier.go()
    assert one(store) == (STEPS, "finished", "FINISHED")


def test_a_trial_that_is_resumed_without_a_run_has_one_of_its_own(held: Spool, store: FakeStore) -> None:
    courier = StillCourier(held, [])
    finish(write(courier.open("b"), "b", resume="a"))
    courier.go()
    assert one(store) == (STEPS, "finished", "FINISHED")
