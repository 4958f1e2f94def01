"""Databases are made whole or not at all, by one process at a time; what was left half-made before is mended."""

from __future__ import annotations

import multiprocessing as mp
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine

from optsweep.address import STORAGE_KEY, TRACKING_KEY, read_address
from optsweep.database import Condition, OpenFiles, StoreGoneError, condition_of, ensure
from optsweep.errors import UserError
from optsweep.search import storage
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.tracking import store, tables
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

KILLED = 9


def killed_at(statement: int, make: Callable[[], object]) -> None:
    """Run `make` in a process that is gone when it comes to its n-th statement, with nothing tidied up."""
    process = mp.get_context("fork").Process(target=_die_at, args=(statement, make))
    process.start()
    process.join()
    assert process.exitcode == KILLED


def _die_at(statement: int, make: Callable[[], object]) -> None:
    left = [statement]

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            os._exit(KILLED)

    event.listen(Engine, "before_cursor_execute", count)
    make()


def test_a_storage_whose_making_is_killed_is_made_by_the_next(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    for statement in (0, 25, 40, 50):
        killed_at(statement, lambda: Studies.open(url, "s"))
        assert not (tmp_path / "optuna.db").exists()
    studies = Studies.open(url, "s")
    studies.enqueue(studies.take_seat(["arm"], whole=True), "arm", Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("optuna.db.new")) == []
    assert (tmp_path / "optuna.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("statement", [25, 40, 50])
def test_a_storage_that_was_left_half_made_is_mended(tmp_path: Path, statement: int) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    killed_at(statement, lambda: storage._storage(url))
    assert condition_of(tmp_path / "optuna.db", storage._condition) is Condition.UNFINISHED
    studies = Studies.open(url, "s")
    studies.enqueue(studies.take_seat(["arm"], whole=True), "arm", Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"))
    assert condition_of(tmp_path / "optuna.db", storage._condition) is Condition.WHOLE


def test_a_tracking_store_whose_making_is_killed_is_made_by_the_next(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uri, file = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlflow.db"
    for statement in (1, 40, 150):
        killed_at(statement, lambda: store.check(uri))
        assert not file.exists()
    file.touch()  # as an earlier version left it
    file.with_name("mlflow.db-wal").write_bytes(b"of a database that was deleted")
    assert store.check(uri) is None
    assert "mlflow" not in capfd.readouterr().err, "MLflow says nothing of its migrations"
    assert Tracker(uri, "s").sweep_run()
    assert condition_of(file, tables._condition) is Condition.WHOLE


def test_a_half_made_tracking_store_is_set_aside_in_a_line(tmp_path: Path) -> None:
    """What an earlier version left behind, which MLflow itself can't finish: 'table _alembic_tmp_… already exists'."""
    uri, file = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlflow.db"
    killed_at(80, lambda: store.client(uri).search_experiments())
    before = file.read_bytes()
    with pytest.raises(UserError, match="left half-made, without a run; run a sweep first"):
        store.check(uri, create=False)
    assert condition_of(file, tables._condition) is Condition.HOLLOW
    assert store.check(uri) == (
        f"{file} was left half-made, without a run: it is mlflow.db.half-made now, and a new one is made"
    )
    assert (tmp_path / "mlflow.db.half-made").read_bytes() == before
    assert Tracker(uri, "s").sweep_run()
    _break(file)  # as a migration leaves it, this time with a run
    assert condition_of(file, tables._condition) is Condition.UNFINISHED
    assert store.check(uri) is None
    assert store.client(uri).get_experiment_by_name("s") is not None


def _break(file: Path) -> None:
    """Kill two migrations: one before the old table is dropped, one after."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE _alembic_tmp_tags (key TEXT)")
        connection.execute("ALTER TABLE params RENAME TO _alembic_tmp_params")


def test_a_database_that_nobody_knows_yet_is_not_waited_for_and_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = tmp_path / "new.db", tmp_path / "other.db"

    def waits(url: str) -> bool:
        """Whether connections to a database wait for the disk, as SQLite's do by themselves."""
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS a (x)"))
            found = connection.execute(text("PRAGMA synchronous")).scalar()
        engine.dispose()
        return bool(found)

    waited: list[bool] = []
    named_then: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda number: named_then.append(file.exists()))
    ensure(
        read_address(STORAGE_KEY, f"sqlite:///{file}"),
        lambda connection: Condition.WHOLE,
        lambda url: waited.extend([waits(url), waits(f"sqlite:///{other}")]),
    )
    assert (waited, named_then) == ([False, True], [False])
    assert file.exists()
    assert waits(f"sqlite:///{file}")


def test_a_file_that_is_deleted_or_replaced_while_it_is_open_is_missed(tmp_path: Path) -> None:
    file, other = tmp_path / "optuna.db", tmp_path / "other"
    for path in (file, other):
        path.write_bytes(b"")
    files = OpenFiles([read_address(STORAGE_KEY, f"sqlite:///{file}"), read_address(TRACKING_KEY, "http://host:1")])
    files.check()
    other.replace(file)
    with pytest.raises(StoreGoneError, match=r"^tracking.storage: .*optuna.db was deleted, moved or replaced while"):
        files.check()
    file.unlink()
    with pytest.raises(StoreGoneError):
        files.check()


def test_looking_at_an_address_leaves_sqlite_its_locks(tmp_path: Path) -> None:
    """A process that closes a file has no locks on it any more: another one would take itself for the last that has
    the database open, and remove the log that this one goes on writing to.
    """
    file = tmp_path / "a.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE found (x)")
        read_address(STORAGE_KEY, f"sqlite:///{file}").check_usable()
        other = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM found'); c.close()"
        subprocess.run([sys.executable, "-c", other, file], check=True)
        with connection:
            connection.execute("INSERT INTO found VALUES (1)")
        with closing(sqlite3.connect(file)) as again:
            assert again.execute("SELECT x FROM found").fetchall() == [(1,)]


ROUNDS, SIDES = 3, 3


def test_sweeps_that_start_together_in_a_fresh_folder_all_work(tmp_path: Path) -> None:
    context = mp.get_context("fork")  # without the seconds of imports
    barrier = context.Barrier(SIDES)
    pipes = [context.Pipe(duplex=False) for _ in range(SIDES)]
    processes = [
        context.Process(target=_open_both, args=(tmp_path, f"sweep {n}", barrier, sender))
        for n, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    said = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    assert said == [["works"] * ROUNDS] * SIDES
    for number in range(ROUNDS):
        uri = f"sqlite:///{tmp_path}/{number}/mlruns/mlflow.db"
        found = {experiment.name for experiment in store.client(uri).search_experiments()}
        assert found == {"Default", *(f"sweep {n}" for n in range(SIDES))}


def _open_both(folder: Path, sweep: str, barrier: Barrier, sender: Connection) -> None:
    """One sweep's start, without its training, in one fresh folder after the other."""
    said = []
    for number in range(ROUNDS):
        uri, url = (f"sqlite:///{folder}/{number}/mlruns/{name}.db" for name in ("mlflow", "optuna"))
        barrier.wait()
        try:
            for key, address in ((STORAGE_KEY, url), (TRACKING_KEY, uri)):
                store.check_usable(read_address(key, address))
            studies = Studies.open(url, sweep)
            store.check(uri)
            studies.take_seat(["arm"], whole=True)
            Tracker(uri, sweep).sweep_run()
            said.append("works")
        except Exception as error:
            said.append(repr(error))
    sender.send(said)
