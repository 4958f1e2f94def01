"""A store whose folder was moved or copied is read and written where it is, and nowhere else."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from optsweep.tracking import store
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.reader import load_sweep
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase
from synthetic_store import DEFAULT, fill

SWEEPS = ("demo", "it's an 'ü' sweep")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old place")
    uri = address(folder)
    store.check(uri)
    for sweep in SWEEPS:
        fill(uri, sweep, DEFAULT[:1], trials=1, seeds=1, rungs=1)
    client = store.client(uri)
    client.create_run(client.create_experiment("somebody's own", (folder / "elsewhere").as_uri()))
    return folder


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/mlruns/mlflow.db"


def contents(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def locations(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as connection:
        found = connection.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
        return [text for (text,) in found]


def extend(folder: Path) -> None:
    """What a sweep that goes on does: it reads sheets, writes them, and trains."""
    tracker = Tracker(address(folder), SWEEPS[0])
    run = tracker.sweep_run()
    sheet = tracker.sweep_sheet(run)
    assert sheet is not None
    assert sheet.sessions
    tracker.write_sheet(run, replace(sheet, reported="here"))
    parent = tracker.arm_run(DEFAULT[0].name, "")
    tracker.log_text(parent, "x: 1", "config.yaml")
    log = TrialLog(
        AtOnce(tracker), parent, "t", TrialHead(DEFAULT[0].name, Phase.CONFIRM, 7, 7, "chosen", {}), "accuracy"
    )
    log.end(Outcome(End.FINISHED, 1, 1.0, 1.0, 1.0, 1.0, 1.0, 8, "", artifacts={"path.csv": "1,2"}))


@pytest.mark.parametrize("old_place", ["stays", "is gone"])
def test_a_folder_is_extended_where_it_is(original: Path, tmp_path: Path, old_place: str) -> None:
    old, new = tmp_path / "old", tmp_path / "a new place"
    shutil.copytree(original, old)
    store.check(address(old))
    if old_place == "stays":
        shutil.copytree(old, new)
        before = contents(old)
    else:
        old.rename(new)
        before = {}
    assert store.check(address(new)) is None
    extend(new)
    assert contents(old) == before
    assert not [text for text in locations(new) if str(old) in text]
    client = store.client(address(new))
    for sweep in SWEEPS:
        (arm,) = load_sweep(client, sweep, store.find_experiment(client, sweep)).arms
        assert arm.chosen is not None, "its sheet is found"
    other = client.get_experiment_by_name("somebody's own")
    assert other is not None
    assert other.artifact_location == (original / "elsewhere").as_uri()
    (run,) = store.runs(client, other.experiment_id)
    assert str(run.info.artifact_uri).startswith((original / "elsewhere").as_uri())


def test_a_database_that_was_copied_alone_gets_its_sheets(original: Path, tmp_path: Path) -> None:
    before = contents(original / "mlruns/artifacts")
    (tmp_path / "mlruns").mkdir()
    for file in original.glob("mlruns/mlflow.db*"):
        shutil.copy(file, tmp_path / "mlruns")
    store.check(address(tmp_path))
    extend(tmp_path)
    assert contents(original / "mlruns/artifacts") == before
