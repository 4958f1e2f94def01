"""A run that is written whole is the one that MLflow's client would have made, once, or left to the client."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from optsweep.address import TRACKING_KEY, read_address
from optsweep.tracking import names, store
from optsweep.tracking.delivery import Delivery, RunGoneError
from optsweep.tracking.records import Ended, Opened, Points, Record, TextFile
from optsweep.tracking.whole import Database, WholeRun
from optsweep.tracking.writer import Tracker

CURVES = Points(
    (
        ("train/loss", 2.0, 1000, 10),
        ("train/loss", 1.0, 2000, 20),
        ("train/loss", 1.0, 2000, 20),  # twice the same
        ("train/loss", math.nan, 3000, 30),
        ("val/loss", math.inf, 3000, 30),
        ("val/loss", -math.inf, 3000, 20),
        ("test/block", 1.0, 4000, 0),
        ("test/block", 3.0, 4000, 0),
    )
)
END = Ended({names.STATUS: "finished", names.ERROR: "x" * 9000}, {"seconds": "1"}, failed=False, time=5000)


def opening(trial: str, **tags: str) -> Opened:
    own = {names.KIND: "trial", names.TRIAL: trial, names.ARM: "arm", "mlflow.user": "somebody", **tags}
    return Opened(trial, "a trial", "arm", "search", 0, 0, own, {"lr": "0.001", "note": ""}, 1000)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making its tables takes seconds."""
    found = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    store.check(found)
    return found


def deliver(tracker: Tracker, *records: Record, begun: bool = False) -> str:
    delivery = Delivery(tracker, begun=begun)
    delivery.bring(records)
    return delivery.run_id


def held(uri: str, run_id: str) -> dict[str, list[Any]]:
    """All rows of all tables that name a run, which is left out."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables}
    found = {
        table: sorted(repr(row).replace(run_id, "") for row in of if run_id in repr(row)) for table, of in rows.items()
    }
    return {table: own for table, own in found.items() if own}


def calls(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the calls by which runs are made, as they come."""
    made: list[str] = []
    create = tracker.client.create_run

    def noted(*args: Any, **options: Any) -> Any:
        made.append("create_run")
        return create(*args, **options)

    monkeypatch.setattr(tracker.client, "create_run", noted)
    return made


def test_a_run_that_is_written_whole_has_the_rows_that_the_client_writes(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uri, "rows")
    tracker.arm_run("arm", "arm")
    made = calls(tracker, monkeypatch)
    whole = deliver(tracker, opening("a"), CURVES, END)
    assert made == []
    monkeypatch.setattr(Database, "add", lambda *_: [])
    by_client = deliver(tracker, opening("a"), CURVES, END)
    assert made == ["create_run"]
    rows = held(uri, whole)
    assert rows == held(uri, by_client)
    assert {"runs", "tags", "params", "metrics", "latest_metrics"} == set(rows)


@pytest.mark.parametrize("more", [(), (END,), (TextFile("path.csv", "step"), END)])
def test_a_trial_that_goes_on_or_leaves_files_takes_the_clients_calls(
    uri: str, monkeypatch: pytest.MonkeyPatch, more: tuple[Record, ...]
) -> None:
    tracker = Tracker(uri, "calls")
    tracker.arm_run("arm", "arm")
    made = calls(tracker, monkeypatch)
    deliver(tracker, opening("a"), CURVES, *more)
    assert made == ([] if more == (END,) else ["create_run"])


def test_a_run_of_which_nobody_knows_whether_it_was_written_is_there_once(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uri, "once")
    tracker.arm_run("arm", "arm")
    add = Database.add

    def lost(*args: Any) -> None:
        add(*args)
        raise OperationalError("", None, Exception("disk I/O error"))

    with monkeypatch.context() as failing:
        failing.setattr(Database, "add", lost)
        with pytest.raises(OperationalError):
            deliver(tracker, opening("a"), CURVES, END)
    before = [run.run_id for run in tracker.every_run() if run.kind == "trial"]
    deliver(tracker, opening("a"), CURVES, END, begun=True)
    assert [run.run_id for run in tracker.every_run() if run.kind == "trial"] == before
    assert len(before) == 1


def test_a_run_whose_points_cannot_be_written_is_not_there(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(uri, "nothing")
    tracker.arm_run("arm", "arm")
    monkeypatch.setattr("optsweep.tracking.whole._latest", lambda points: [{"key": None, "value": None}])
    with pytest.raises(Exception, match="NOT NULL"):
        deliver(tracker, opening("a"), CURVES, END)
    assert [run.kind for run in tracker.every_run()] == ["arm"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tags": {"a:b": ""}},
        {"params": {"../a": ""}},
        {"points": [("a#", 1.0, 0, 0)]},
        {"params": {"a": "x" * 6001}},
        {"tags": {"a": "x" * 8001}},
        {"tags": {"a" * 251: ""}},
        {"name": ""},
    ],
)
def test_what_the_client_might_refuse_is_left_to_it(uri: str, wrong: dict[str, Any]) -> None:
    run = WholeRun(
        **{"name": "a", "tags": {}, "params": {}, "points": [], "status": "FINISHED", "start": 0, "end": 1, **wrong}
    )
    assert Tracker(uri, "refused").add_whole([run]) == []


def test_an_experiment_that_was_deleted_is_found_out(uri: str) -> None:
    tracker = Tracker(uri, "deleted")
    tracker.arm_run("arm", "arm")
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(RunGoneError):
        deliver(tracker, opening("a"), CURVES, END)


def test_a_database_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    run = WholeRun("a trial", {}, {}, (), "FINISHED", 0, 1)
    with pytest.raises(OperationalError):
        Database(read_address(TRACKING_KEY, f"sqlite:///{tmp_path}/mlflow.db")).add("1", [run])
    assert not list(tmp_path.iterdir())
