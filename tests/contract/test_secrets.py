"""A password in a store's address reaches the store, and no file, page, line or link."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

from optsweep import api
from optsweep.address import LOCAL_TRACKING, STORAGE_KEY, TRACKING_KEY, TRACKING_VARIABLE, read_address
from optsweep.cli.doorman import run
from optsweep.command import Command
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.errors import SweepFailedError, UserError, without_secrets
from optsweep.launch.events import Started
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.links import address_of_ui
from optsweep.tracking.writer import Tracker

ADDRESSES = [
    "http://ann:hunter2@127.0.0.1:9",
    "http://ann:hunter2/4@127.0.0.1:9",
    "http://ann:hunter2@3@127.0.0.1:9",
    "http://hunter2@127.0.0.1:9",
    "http://127.0.0.1:9?password=hunter2",
    "http://127.0.0.1:9/?x=1&access_token=hunter2",
    "postgresql://ann:hunter2@127.0.0.1:9/db",
    "postgresql://ann:hunter2/4@127.0.0.1:9/db",
    "postgresql://ann:p@hunter2@127.0.0.1:9/db",
    "postgresql://127.0.0.1:9/db?user=ann&password=hunter2",
    "nonsense://ann:hunter2@127.0.0.1",
]


@pytest.mark.parametrize("key", [TRACKING_KEY, STORAGE_KEY])
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_refused_address_shows_no_password(
    address: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=key) as refused:
        store.check_usable(read_address(key, address))
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in without_secrets(f"it failed at {address} for some reason, and at '{address}'")
    assert "hunter2" not in Command(("-m", f"{key}={address}"), ()).line
    assert "hunter2" not in repr(Exception(without_secrets(address)))
    assert list(tmp_path.iterdir()) == []


def test_paths_are_no_secrets() -> None:
    for text in ("sqlite:////home/ann@work/x.db", "two@words and http://127.0.0.1:5000/#/experiments/1", "a=b@c"):
        assert without_secrets(text) == text


@pytest.mark.parametrize("where", ["command line", "sweep file"])
def test_hydra_s_copies_of_a_command_have_no_password(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[Arm] = []

    def begin(arms: list[Arm], *, observe: Any, **_: Any) -> None:
        given.extend(arms)
        observe(Started("one", 1))
        raise SweepFailedError("one", "nothing")

    monkeypatch.setattr(api, "run", begin)
    address = "http://ann:hunter2@127.0.0.1:9"
    arguments = ["-m", "task=digits_mlp", "search=none", "sweep.name=one"]
    sweeps = tmp_path / "sweeps"
    if where == "sweep file":
        sweeps.mkdir()
        text = f"defaults: [config, _self_]\nsweep: {{name: one}}\ntracking: {{uri: '{address}'}}\n"
        (sweeps / "mine.yaml").write_text(text)
        arguments = ["-cn", "mine", "task=digits_mlp", "search=none"]
    else:
        arguments += [f"tracking.uri='{address}'", "hydra.output_subdir=.hydra"]
    assert run(arguments) == 1
    assert [arm.tracking_uri for arm in given] == [address]
    assert "hunter2" not in repr(given)
    written = [file for file in tmp_path.rglob("*") if file.is_file() and sweeps not in file.parents]
    assert [file.name for file in written] == ["multirun.yaml"]
    assert not [file for file in written if "hunter2" in file.read_text()]
    assert "hunter2" not in "".join(capfd.readouterr())
    assert not [name for name in os.environ if name.startswith("OPTSWEEP_TRACKING")]


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An MLflow server that wants to know who asks, and what it was told."""
    told: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"OK")

        def do_POST(self) -> None:
            told.append(self.headers.get("Authorization", ""))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(json.dumps({"experiments": []}).encode(), 200 if told[-1] else 401)

        def _answer(self, content: bytes, code: int = 200) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as found:
        thread = Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{found.server_port}", told
        found.shutdown()
        thread.join()


def test_a_server_is_told_who_asks_and_its_links_don_t_say_it(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, told = server
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    with pytest.raises(UserError, match="can't be opened"):
        store.check(f"http://{place}")
    told.clear()
    address = f"http://ann:p%40ss%2Fword@{place}/"
    store.check(address)
    assert told == ["Basic " + base64.b64encode(b"ann:p@ss/word").decode()]
    assert address_of_ui(address) == f"http://{place}"
    told.clear()
    with pytest.raises(UserError, match="can't be opened"):
        store.check(f"http://{place}")  # as another server, which isn't told
    assert not any(told)


ODD = ["a b.db", "a#b.db", "a%20b.db", "a?timeout=30", "sub/a.db", "é.db"]


@pytest.mark.parametrize("name", ODD)
def test_an_address_is_one_file_to_everybody(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow and Optuna open through SQLAlchemy what the rest looks for."""
    from sqlalchemy.engine import make_url

    monkeypatch.chdir(tmp_path)
    address = read_address(TRACKING_KEY, f"sqlite:///{name}")
    assert str(address.file) == make_url(address.text).database
    Studies.open(address.text, "one")
    assert address.is_there
    assert [
        file.name for file in tmp_path.rglob("*") if file.name[-3:] not in ("wal", "shm", "ock") and file.is_file()
    ] == [Path(unquote(name.partition("?")[0])).name]
    assert stat.S_IMODE(Path(str(address.file)).stat().st_mode) == 0o600


def test_a_sweep_is_found_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = "sqlite:///odd %20#/a.db?timeout=30"
    store.check(uri)
    assert Tracker(uri, "one").sweep_run()
    store.check(uri, create=False)
    store.check_store(uri)
    assert store.find_experiment(store.client(uri), "one")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["odd  #"]
    assert stat.S_IMODE((tmp_path / "odd  #" / "a.db").stat().st_mode) == 0o600


def test_sweep_and_report_obey_the_same_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["task=digits_mlp", "sweep.name=one"]
    assert arm_of(compose(overrides)).tracking_uri == LOCAL_TRACKING
    monkeypatch.setenv(TRACKING_VARIABLE, "sqlite:///elsewhere.db")
    assert arm_of(compose(overrides)).tracking_uri == "sqlite:///elsewhere.db"
    assert arm_of(compose([*overrides, "tracking.uri=sqlite:///here.db"])).tracking_uri == "sqlite:///here.db"
    assert run(["report", "one"]) == 2
    assert "no store at elsewhere.db" in capfd.readouterr().err
    monkeypatch.setenv(TRACKING_VARIABLE, "somewhere")
    assert run(overrides) == 2
    assert capfd.readouterr().err.startswith(f"optsweep: {TRACKING_VARIABLE}: 'somewhere' is not allowed")
    assert list(tmp_path.iterdir()) == []
