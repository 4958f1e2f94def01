"""`optsweep ui`: MLflow's server on a sweep's own page; what can't be shown is said in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from optsweep.cli.doorman import run
from optsweep.errors import UserError
from optsweep.launch.browse import ui
from optsweep.tracking import links, names, store, views
from optsweep.tracking.writer import Tracker
from patience import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a store in its usual place, in which two sweeps have begun."""
    found = tmp_path_factory.mktemp("ui")
    uri = f"sqlite:///{found}/mlruns/mlflow.db"
    store.check(uri)
    for sweep in ("soap_or_adamw", "lengths"):
        tracker = Tracker(uri, sweep)
        tracker.sweep_run()
        tracker.arm_run("a", "a")
    return found


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that is said instead."""
    monkeypatch.chdir(folder)
    assert run(["ui", "--no-browser", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_an_unknown_sweep_is_refused_with_the_nearest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(folder, monkeypatch, capsys, "soap_or_adam")
    assert line == "optsweep: there is no sweep 'soap_or_adam'; nearest: soap_or_adamw"


def test_no_store_is_said_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(tmp_path, monkeypatch, capsys, "mine")
    assert line.startswith("optsweep: tracking.uri: there is no store at mlruns/mlflow.db; run a sweep first")
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_another_version_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = store.client(f"sqlite:///{folder}/mlruns/mlflow.db")
    client.create_run(client.create_experiment("old"), tags={"optsweep.kind": "sweep"})
    assert "sweep old was written by an older version" in refused(folder, monkeypatch, capsys, "old")


class Locked(BaseHTTPRequestHandler):
    """A server that lets nobody in."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *said: object) -> None:
        pass


class Healthy(Locked):
    """One that answers."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_server_that_asks_for_a_password_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{server.server_port}"
        line = refused(tmp_path, monkeypatch, capsys, "mine", f"--tracking-uri={where}")
        server.shutdown()
    assert line.startswith(f"optsweep: tracking.uri: {where} asks who you are")
    assert line.endswith("set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_is_none_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    assert refused(folder, monkeypatch, capsys, "lengths", f"--port={port}").startswith("optsweep: ")


def test_a_port_that_is_taken_gives_way_to_the_next(taken: int) -> None:
    with ui.listen(taken) as found:
        assert taken < found.getsockname()[1] < taken + ui.PORTS
        assert found.getsockname()[0] == "127.0.0.1"


def test_where_no_port_is_free_that_is_said(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "PORTS", 1)
    with pytest.raises(UserError, match=f"--port: {taken} and the 0 ports after it are taken"):
        ui.listen(taken)


def test_whether_it_answers_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ready: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ui._once_it_answers(f"http://127.0.0.1:{server.server_port}", lambda: ready.append("yes"))
        server.shutdown()
    assert ready == ["yes"]


def test_without_a_name_several_sweeps_are_listed_and_one_is_shown(folder: Path, tmp_path: Path) -> None:
    assert ui.page_of(f"sqlite:///{folder}/mlruns/mlflow.db", None) == links.all_sweeps()
    alone = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "alone")
    alone.sweep_run()
    assert ui.page_of(alone.uri, None) == links.sweep_page(alone.experiment_id)


def test_a_sweep_without_views_gets_them(folder: Path) -> None:
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    assert ui.page_of(uri, "lengths").endswith("viewStateShareKey=verdict")
    held = store.client(uri).get_experiment_by_name("lengths")
    assert held is not None
    assert {names.VIEW + key for key in views.KEYS} <= held.tags.keys()


def test_a_tracking_server_is_not_started_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    shown: list[str] = []
    monkeypatch.setattr(store, "check", lambda uri, create: None)
    monkeypatch.setattr(ui, "page_of", lambda uri, sweep: links.sweep_page("3"))
    ui.show("https://ann:secret@host:5001", "mine", 5000, told.append, shown.append)
    assert told == shown == [f"https://host:5001{links.sweep_page('3')}"]


@pytest.mark.parametrize(("screen", "opened"), [({}, []), ({"DISPLAY": ":0"}, ["http://x"])])
def test_a_browser_is_opened_where_there_is_a_screen_for_it(
    monkeypatch: pytest.MonkeyPatch, screen: dict[str, str], opened: list[str]
) -> None:
    """Without one Python would start a browser for terminals in this one."""
    found: list[str] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "environ", screen)
    monkeypatch.setattr("webbrowser.open", found.append)
    ui.open_browser("http://x")
    assert found == opened


def test_only_the_first_page_is_changed_and_its_length_is_right() -> None:
    async def app(scope: ui.Message, receive: ui.Receive, send: ui.Send) -> None:
        asked.append([key for key, _ in scope["headers"]])
        headers = [(b"content-length", b"26"), (b"etag", b"e"), (b"x-kept", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part, more in ((b"<html><head>", True), (b"</head></html>", False)):
            await send({"type": "http.response.body", "body": part, "more_body": more})

    def answer(path: str) -> list[ui.Message]:
        sent: list[ui.Message] = []

        async def send(message: ui.Message) -> None:
            sent.append(message)

        async def receive() -> ui.Message:
            return {}

        known = [(b"host", b"127.0.0.1:5000"), (b"if-none-match", b"e")]
        scope = {"type": "http", "path": path, "method": "GET", "headers": known}
        asyncio.run(ui.Preferring(app)(scope, receive, send))
        return sent

    asked: list[list[bytes]] = []
    start, body = answer("/")
    assert asked == [[b"host"]], "a browser may have the page of another server"
    assert body["body"].startswith(b"<html><head><script>try{localStorage.getItem(")
    assert dict(start["headers"]) == {b"x-kept": b"1", b"content-length": str(len(body["body"])).encode()}
    _, nobody = answer("/ajax-api/2.0/mlflow/users/current")
    assert nobody["body"] == b"{}", "which a server without users has no answer to"
    assert [message.get("body") for message in answer("/health")] == [None, b"<html><head>", b"</head></html>"]


def test_it_serves_on_the_next_port_until_it_is_interrupted(folder: Path, taken: int) -> None:
    command = [sys.executable, "-m", "optsweep", "ui", "soap_or_adamw", "--no-browser", "--port", str(taken)]
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    piped = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=kept, text=True, stdout=piped, stderr=piped) as served:
        assert served.stdout is not None
        first, second, third = (served.stdout.readline() for _ in range(3))
        port = int(first.removeprefix(f"port {taken} is taken; ").partition(" ")[0])
        assert second.startswith(f"http://127.0.0.1:{port}/#/experiments/")
        assert third == "Ctrl-C ends it\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS) as page:
            assert b"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1" in page.read()
        asked = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=soap_or_adamw"
        with urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS) as answered:
            assert b"mlflow.sharedViewState.verdict" in answered.read()
        served.send_signal(signal.SIGINT)
        rest, errors = served.communicate(timeout=PATIENCE_SECONDS)
    assert (served.returncode, rest, errors) == (0, "", "")
