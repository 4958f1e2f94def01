"""What a spool survives: files that are not whole, full disks, stores that are away or refuse a trial."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from optsweep.tracking import names, outage, postman
from optsweep.tracking.outage import StoreFailureError
from optsweep.tracking.postman import deliver
from optsweep.tracking.records import Ended, Opened, Points, Record, TextFile, from_line, to_line
from optsweep.tracking.spool import Spool
from spooling import OUTCOME, STEPS, FakeStore, StillCourier, finish, killed, one, use, write


@pytest.fixture
def held(tmp_path: Path) -> Spool:
    return Spool.of(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db", "s")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    monkeypatch.setattr(outage, "sleep", lambda seconds: None)
    return use(FakeStore(), monkeypatch)


# -- files that are not whole ------------------------------------------------------------------------------------------


def test_a_store_that_is_opened_in_the_midst_of_training_is_that_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the user's code has gone meanwhile."""
    opened: list[str] = []
    monkeypatch.setattr(postman, "Tracker", lambda uri, sweep: opened.append(uri))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").touch()
    made = postman.Postman(Spool.of("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/optuna.db", "s"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert made.tracker is None
    assert opened == [f"sqlite:///{tmp_path}/mlruns/mlflow.db"]


@pytest.mark.parametrize("left", ["", "torn", "damaged"])
def test_a_line_that_was_cut_off_is_dropped_and_the_others_are_not(held: Spool, store: FakeStore, left: str) -> None:
    courier = StillCourier(held, [])
    write(courier.open("a"), "a", steps=(10, 20))
    killed(courier)
    path = held.path("a")
    assert path is not None
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
    assert held.trials() == []


def test_a_result_whose_curves_lack_a_line_does_not_count(held: Spool, store: FakeStore) -> None:
    courier = StillCourier(held, [])
    finish(write(courier.open("a"), "a"))
    path = held.path("a")
    assert path is not None
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\0" * (len(lines[2]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    assert deliver(held) == 1
    (run,) = store.alive
    assert run.tags[names.STATUS] == "crashed"


def test_trials_that_end_meanwhile_are_not_waited_for(
    held: Spool, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sweep that goes on there are always some that have ended and that its couriers have."""
    courier = StillCourier(held, [])
    busy = write(courier.open("a"), "a")
    busy.end(OUTCOME)
    bring = postman.Postman.deliver

    def another_ends(self: postman.Postman, trial: str) -> bool:
        done = bring(self, trial)
        write(courier.open(f"{trial}-"), f"{trial}-").end(OUTCOME)
        busy.close()
        return done

    monkeypatch.setattr(postman.Postman, "deliver", another_ends)
    monkeypatch.setattr(postman, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(postman, "MOST_BUSY_SECONDS", 1.0)
    assert deliver(held) == 1


def test_records_come_back_as_they_were() -> None:
    records: list[Record] = [
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


@pytest.mark.parametrize("room", [0, 1, 100, 1000])
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

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        disk.room = 10**6

    monkeypatch.setattr(outage, "sleep", pause)
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
    assert len(held.trials()) == 3
    store.cut = lambda number, name: ""
    courier.go()
    assert len(said) == 2
    assert "works again" in said[1]
    assert sorted(run.tags[names.TRIAL] for run in store.alive) == ["a", "b", "c"]
    assert held.trials() == []


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
    assert said == ["the tracking store refuses trial a (Invalid metric name)"]
    assert [run.tags[names.TRIAL] for run in store.alive] == ["b"]
    store.cut = lambda number, name: "refuse"
    with pytest.raises(StoreFailureError, match=r"refuses trial a .*; 1 trial waits in"):
        deliver(held)


def test_files_that_wait_open_nothing(held: Spool, store: FakeStore) -> None:
    """Thousands of trials may end while a store is away."""
    courier = StillCourier(held, [])
    store.cut = lambda number, name: "before"
    before = _open_files()
    for number in range(20):
        finish(write(courier.open(f"t{number}"), f"t{number}", steps=(10,)))
        courier.go()
    assert len(held.trials()) == 20
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
    assert found.folder.parent == Path(folder).absolute()
    assert found.folder != Spool.of(tracking, storage, "t").folder
