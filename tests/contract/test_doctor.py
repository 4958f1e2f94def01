"""`optsweep doctor`: what a sweep needs is looked at, and nothing is made."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from optsweep.cli.doorman import run
from optsweep.errors import UserError
from optsweep.launch.doctor import doctor
from optsweep.launch.doctor.diagnosis import Health
from optsweep.launch.doctor.doctor import examine_checkpoints
from optsweep.launch.doctor.stores import examine_storage, examine_tracking
from optsweep.launch.worker.shared_folder import make_mark
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.writer import Tracker


def test_it_looks_at_everything_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "LITTLE_FREE", 0)
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    said = {line["what"]: line for line in found["findings"]}
    assert {"python", "torch", "optuna", "mlflow", "hydra-core", "extra frameworks", "memory", "threads"} <= said.keys()
    assert {"folder mlruns", "tracking.uri", "tracking.storage", "port 5000", "browser"} <= said.keys()
    assert said["tracking.uri"]["found"].endswith("none yet, the first sweep makes it")
    assert not list(tmp_path.iterdir())


def test_what_a_sweep_needs_and_fails_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "optuna.db").write_text("no database")
    with pytest.raises(SystemExit) as ended:
        run(["doctor", "--storage", "sqlite:///optuna.db"])
    assert ended.value.code == 1
    assert "fail tracking.storage   optuna.db is no SQLite database\n" in capsys.readouterr().out


def test_a_package_that_is_missing_or_old_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", "nosuch>=1", "numpy>=2", "other; extra == 'x'"])
    found = {line.what: line for line in doctor.packages()}
    assert [found[name].health for name in ("torch", "nosuch", "numpy")] == [Health.FAIL, Health.FAIL, Health.OK]
    assert found["nosuch"].found == "not installed; pip install 'nosuch>=1'"
    assert "other" not in found


def test_versions_of_stores_are_said_and_held_against_what_is_installed(tmp_path: Path) -> None:
    tracking, storage = f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db"
    Tracker(tracking, "mine").sweep_run()
    Studies.open(storage, "mine").set_note("a", "planned", [1, 1, 1])
    assert examine_tracking(tracking).found.endswith(", as here")
    assert examine_storage(storage).found.endswith(", as here, 1 studies")
    for file in ("mlflow.db", "optuna.db"):
        with sqlite3.connect(tmp_path / file) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'v99'")
        connection.close()
    for found in (examine_tracking(tracking), examine_storage(storage)):
        assert found.health is Health.FAIL
        assert "v99, newer than what is installed here" in found.found
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "copy.db")  # of which this process has no connections
    with pytest.raises(UserError, match=r"copy\.db was written by another version of MLflow.*pip install -U mlflow"):
        store.check(f"sqlite:///{tmp_path}/copy.db")


def test_a_database_that_nobody_has_used_yet_is_no_failure(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("CREATE TABLE somebody (number INTEGER)")
    connection.close()
    for found in (examine_tracking(f"sqlite:///{tmp_path}/new.db"), examine_storage(f"sqlite:///{tmp_path}/new.db")):
        assert found.health is Health.OK
        assert found.found.endswith("no tables yet, the first sweep makes them")


def test_a_port_that_is_taken_is_no_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        found = doctor.examine_port(held.getsockname()[1])
    assert found.health is Health.OK
    assert found.found.startswith("taken; optsweep ui takes ")


class Asking(http.server.BaseHTTPRequestHandler):
    """Asks everybody for a password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def asking() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asking) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("verb", ["show", "report", "ui", "sync"])
def test_a_server_that_asks_for_a_password_is_said(
    asking: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([verb, "mine", "--tracking-uri", asking]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"optsweep: tracking.uri: {asking} asks who you are")
    assert "http(s)://USER:PASSWORD@HOST:PORT" in line
    found = examine_tracking(asking)
    assert found.health is Health.FAIL
    assert found.found.startswith(f"{asking} asks who you are")


def test_the_folder_of_checkpoints_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = examine_checkpoints(tmp_path / "file" / "x")
    assert (found.health, found.what) == (Health.FAIL, "tracking.checkpoints")
    assert "it is no folder" in found.found
    assert examine_checkpoints(tmp_path / "new").health is Health.WARN
    assert not (tmp_path / "new").exists()
    assert examine_checkpoints(tmp_path).found.endswith("no sweep had it yet")
    make_mark(tmp_path)
    assert examine_checkpoints(tmp_path).found.endswith("a sweep had it")
