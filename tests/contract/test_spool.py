"""What trials say of themselves reaches MLflow in order, once, whatever is cut off on the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optsweep.tracking import names, outage, spool
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.outage import StoreFailureError
from optsweep.tracking.postman import deliver
from optsweep.tracking.records import Ended, Opened, Points, TextFile, from_line, to_line
from optsweep.tracking.spool import Spool
from spooling import OUTCOME, FakeStore, StillCourier, finish, rung, use, write

STEPS = [(10, 1.0), (20, 2.0), (30, 3.0)]


@pytest.fixture
def held(tmp_path: Path) -> Spool:
    return Spool.of(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db", "s")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    monkeypatch.setattr(outage, "sleep", lambda seconds: None)
    return use(FakeStore(), monkeypatch)


def one(store: FakeStore) -> tuple[list[tuple[int, float]], str, str]:
    """The one run that there may be: its curve, how it ended, and as what."""
    (run,) = store.alive
    assert run.curve(names.TRAIN_LOSS) == run.curve(names.VAL_LOSS)
    assert len(run.points) == len(set(run.points))
    return run.curve(names.VAL_LOSS), run.tags[names.STATUS], run.status


def killed(courier: StillCourier) -> None:
    """Its process is gone: the system closes its files."""
    for letter in courier.letters:
        letter.file.close()


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
    assert held.paths() == []
    assert deliver(held) == 0
    assert not held.folder.exists()


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
    (path,) = held.paths()
    assert spool.has_ended(path)


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
    assert held.paths() == []


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
        assert held.paths() == []


def test_a_run_that_a_call_made_after_all_is_taken_away(held: Spool, store: FakeStore) -> None:
    """A frozen server may obey a call that was given up, after another one was made."""
    courier = StillCourier(held, [])
    store.cut = lambda number, name: "before" if number == 1 else ""
    finish(write(courier.open("a"), "a"))
    courier.go()
    late = {**{names.TRIAL: "a", names.STATUS: "running"}}
    store.cut = lambda number, name: ""
    original = store.log_batch

    def log_batch(run_id: str, **what: object) -> None:
        if len(store.runs) == 1:
            store.create_run("0", 0, late, "late")
        original(run_id, **what)

    store.log_batch = log_batch  # type: ignore[method-assign]
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
            assert held.paths()
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


def test_a_trial_that_is_resumed_without_a_run_has_one_of_its_own(held: Spool, store: FakeStore) -> None:
    courier = StillCourier(held, [])
    finish(write(courier.open("b"), "b", resume="a"))
    courier.go()
    assert one(store) == (STEPS, "finished", "FINISHED")


# -- files that are not whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["", "torn", "damaged"])
def test_a_line_that_was_cut_off_is_dropped_and_the_others_are_not(held: Spool, store: FakeStore, left: str) -> None:
    courier = StillCourier(held, [])
    write(courier.open("a"), "a", steps=(10, 20))
    killed(courier)
    (path,) = held.paths()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    if not left:
        path.write_bytes(lines[0][:-1])
    elif left == "torn":
        path.write_bytes(b"".join(lines[:2]) + lines[2][:-5])
    else:
        path.write_bytes(lines[0] + b"\0\xff{" + lines[2])
    assert deliver(held) == 1
    steps = [run.curve(names.VAL_LOSS) for run in store.alive]
    assert steps == {"": [], "torn": [[(10, 1.0)]], "damaged": [[]]}[left]
    assert held.paths() == []


def test_records_come_back_as_they_were() -> None:
    records = [
        Opened("id", "a · b", "arm", "search", 1, 0, {"k": "λ\n"}, {"lr": "0.1"}, 5, again=True, resume="x"),
        Points((("val/loss", float("inf"), 7, 1), ("val/loss", 0.1, 8, 2))),
        TextFile("f", "a\r\nb\u2028c"),
        Ended({"s": "finished"}, {}, failed=False, time=9),
    ]
    assert [from_line(to_line(record)[:-1]) for record in records] == records
    assert all(to_line(record).count(b"\n") == 1 for record in records)
    for line in (b"", b"{", b"[]", b"{}", b'{"Points": {}}', b'{"Other": {}}', b'{"Ended": {"x": 1}}', b"\xff"):
        assert from_line(line) is None


# -- a full disk -------------------------------------------------------------------------------------------------------


class Disk:
    """A disk on which there is room for so many bytes more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room, self._write = 10**9, os.pwrite
        monkeypatch.setattr(os, "pwrite", self.write)

    def write(self, number: int, content: bytes, offset: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = self._write(number, content[: self.room], offset)
        self.room -= done
        return done


@pytest.mark.parametrize("room", [0, 1, 100, 1500])
def test_on_a_full_disk_records_wait_in_memory_and_one_line_says_so(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    said: list[str] = []
    disk, courier = Disk(monkeypatch), StillCourier(held, said)
    disk.room = room
    log = write(courier.open("a"), "a")
    courier.go()
    assert said == [f"the disk is full at {held.folder}; training goes on, curves wait in memory"]
    disk.room = 10**9
    finish(log)
    courier.go()
    assert one(store) == (STEPS, "finished", "FINISHED")
    assert said[1:] == [f"curves are written to {held.folder} again"]


def test_an_end_waits_for_room_and_gives_up_in_a_line(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    disk, courier = Disk(monkeypatch), StillCourier(held, said)
    log = write(courier.open("a"), "a")
    disk.room, pauses = 0, list[float]()
    monkeypatch.setattr(outage, "sleep", lambda seconds: pauses.append(seconds) or setattr(disk, "room", 10**6))
    log.end(OUTCOME)
    assert pauses == [outage.FIRST_PAUSE]
    disk.room = 0
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(StoreFailureError, match="the disk is full at"):
        log.end(OUTCOME)


# -- a store that is away ----------------------------------------------------------------------------------------------


def test_a_store_that_is_away_is_said_once_and_gets_everything_afterwards(held: Spool, store: FakeStore) -> None:
    said: list[str] = []
    courier, silent = StillCourier(held, said), StillCourier(held, said)
    store.cut = lambda number, name: "before"
    for trial in "abc":
        finish(write(courier.open(trial), trial))
        courier.go(2)
        silent.go()
    assert len(said) == 1
    assert said[0].endswith(f"; training goes on, curves wait in {held.folder}")
    assert len(held.paths()) == 3
    store.cut = lambda number, name: ""
    courier.go()
    assert len(said) == 2
    assert "works again" in said[1]
    assert sorted(run.tags[names.TRIAL] for run in store.alive) == ["a", "b", "c"]
    assert held.paths() == []


def test_patience_has_an_end_that_says_what_waits_and_what_delivers_it(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 0.0)
    courier = StillCourier(held, [])
    store.cut = lambda number, name: "before"
    for trial in "ab":
        finish(write(courier.open(trial), trial))
    with pytest.raises(StoreFailureError) as refused:
        deliver(held)
    assert str(refused.value).endswith(f"; 2 trials wait in {held.folder}, and `optsweep sync s` delivers")
    store.cut = lambda number, name: ""
    assert deliver(held) == 2


def test_a_trial_that_the_store_refuses_does_not_keep_others_from_it(held: Spool, store: FakeStore) -> None:
    said: list[str] = []
    courier = StillCourier(held, said)
    store.cut = lambda number, name: "refuse" if number == 1 else ""
    for trial in "ab":
        finish(write(courier.open(trial), trial))
    courier.go(3)
    assert said == ["a.jsonl: the tracking store refuses it (Invalid metric name)"]
    assert [run.tags[names.TRIAL] for run in store.alive] == ["b"]
    store.cut = lambda number, name: "refuse"
    with pytest.raises(StoreFailureError, match=r"refuses it .*; 1 trial waits in"):
        deliver(held)


def test_files_that_wait_open_nothing(held: Spool, store: FakeStore) -> None:
    """Thousands of trials may end while a store is away."""
    courier = StillCourier(held, [])
    store.cut = lambda number, name: "before"
    before = _open_files()
    for number in range(20):
        finish(write(courier.open(f"t{number}"), f"t{number}", steps=(10,)))
        courier.go()
    assert len(held.paths()) == 20
    assert _open_files() == before + 1, "the lock of the one that speaks"


def _open_files() -> int:
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.exists() else 0


@pytest.mark.parametrize(
    ("tracking", "storage", "folder"),
    [
        ("sqlite:///runs/mlflow.db", "sqlite:///x/optuna.db", "runs/spool"),
        ("http://u:p@host:5000", "sqlite:///x/optuna.db", "x/spool"),
        ("http://host:5000", "postgresql://host/db", "mlruns/spool"),
    ],
)
def test_where_trials_wait(tracking: str, storage: str, folder: str) -> None:
    found = Spool.of(tracking, storage, "s")
    assert found.folder.parent == Path(folder)
    assert found.folder != Spool.of(tracking, storage, "t").folder
