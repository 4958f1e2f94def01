"""The live page's server: the page and its events, to this machine's own browsers; what is in a store is text."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from living import ADAMW, JUMPS, SGD, Living, tracking
from optsweep.launch.browse.ui import listen
from optsweep.launch.live import server as module
from optsweep.launch.live.reading import Watching
from optsweep.launch.live.server import Feed, LiveServer
from optsweep.train.trial import End
from patience import PATIENCE_SECONDS


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tracking(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def watching(living: Living, runs: str) -> Watching:
    return Watching(living.storage, runs, "s")


@pytest.fixture
def feed(watching: Watching) -> Feed:
    return Feed(watching)


@pytest.fixture
def port(feed: Feed) -> Iterator[int]:
    """Of a server, which looks when a test says so."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        wanted = free.getsockname()[1]
    listening = listen(wanted)
    server = LiveServer(feed, listening)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.shutdown()
    server.server_close()


def get(port: int, path: str = "/", host: str = "") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    return connection.getresponse()


def event(stream: http.client.HTTPResponse) -> tuple[str, str]:
    """The next one: its name and what it says."""
    kind = ""
    while True:
        line = stream.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: ") and kind:
            return kind, line.removeprefix("data: ")


def test_the_page_is_the_report_with_what_happens_now(port: int) -> None:
    answer = get(port)
    page = answer.read().decode()
    assert (answer.status, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert policy[1].endswith("connect-src 'self'")
    assert [f'id="{name}"' in page for name in ("now", "verdict", "arms", "figures", "ran")] == [True] * 5
    assert "sgd + cosine" in page
    assert "0 of 12 trials done" in page


def test_a_site_that_points_its_name_here_gets_nothing(port: int) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", f"evil.example:{port}"):
        answer = get(port, host=host)
        assert (answer.status, b"sgd" in answer.read()) == (421, False)
        assert get(port, "/events", host=host).status == 421


def test_who_asks_for_nothing_is_not_kept(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Answer, "timeout", 0.01)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as silent:
        assert silent.recv(1) == b""


def test_there_is_one_page(port: int) -> None:
    assert get(port, "/../etc/passwd").status == 404
    for host in ("localhost", f"localhost:{port}", "127.0.0.1:8080"):  # through a tunnel
        assert get(port, host=host).status == 200


def test_what_changes_is_sent_to_every_page_that_is_open(living: Living, feed: Feed, port: int) -> None:
    streams = [get(port, "/events") for _ in range(3)]
    for stream in streams:
        assert [event(stream)[0] for _ in range(2)] == ["now", "report"]
    living.tell(living.pop(SGD), End.DIVERGED)
    living.show(living.pop(ADAMW), JUMPS)
    feed.look()
    for stream in streams:
        kind, data = event(stream)
        said = json.loads(data)
        assert kind == "now"
        assert "1 of 12 trials done, 1 running" in said["parts"]["progress"]
        assert "on validation from 0.5 to 40 at step 30" in said["parts"]["incidents"]
        assert 'class="badge bad">diverged' in said["parts"]["incidents"]
        assert said["curves"]["figures"]["now_val"]["lines"][0]["y"] == [2, 1, 0.5, 40]
        assert said["curves"]["arms"][0]["label"] == "adamw + cosine · search 0"
        stream.close()


def test_without_news_a_page_hears_that_the_server_is_there(
    feed: Feed, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    events = feed.events()
    assert [next(events).split("\n")[0] for _ in range(4)] == ["retry: 1000", "event: now", "event: report", ": beat"]


def test_what_is_in_the_store_is_text(living: Living, feed: Feed) -> None:
    living.studies.fail(living.pop(SGD).claim, "<script>alert(1)</script>")
    feed.look()
    parts = json.loads(feed.shown.event)["parts"]
    assert "<script>" not in parts["incidents"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in parts["incidents"]


def test_nothing_is_sent_where_nothing_has_changed(feed: Feed) -> None:
    feed.look()
    before = feed.shown
    feed.look()
    assert feed.shown is before


def test_a_look_that_fails_is_said_once_and_the_page_goes_on(
    living: Living, feed: Feed, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    looks = iter([ZeroDivisionError("no page"), ZeroDivisionError("no page"), None])
    goes_on = threading.Event()

    def look() -> None:
        if (error := next(looks, None)) is not None:
            raise error
        goes_on.set()

    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(feed, "look", look)
    feed.start()
    assert goes_on.wait(PATIENCE_SECONDS)
    assert capfd.readouterr().err == "optsweep: the page can't be made (no page)\n"
