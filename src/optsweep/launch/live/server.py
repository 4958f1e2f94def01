"""The server of a live page, on this machine alone: the page, and what changes on it as server-sent events."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from optsweep.errors import first_line, without_secrets
from optsweep.launch.browse.ui import is_asked_for_here, listen_and_say
from optsweep.launch.live.page import as_event, render
from optsweep.launch.live.reading import LOOK_SECONDS, LiveView, Watching
from optsweep.launch.live.report import LiveFinding
from optsweep.report import write_report
from optsweep.tracking import store

IDLE_SECONDS = 15.0
"""Between two looks while no page is open."""

BEAT_SECONDS = 10.0
"""Without news, after which a page is told that the server is there."""

PATIENCE = 30.0
"""Seconds for a page that doesn't take what it is sent, or asks for nothing over a connection that it keeps."""

RETRY_MILLISECONDS = 1000
"""After which a page tries again that has lost the server."""


@dataclass(frozen=True)
class ShownPage:
    """What pages show: the page as it is served, and how it differs by now."""

    html: str
    version: str  # of the report in it
    event: str  # what happens now
    ended: bool = False  # it is the final report


class Feed:
    """Looks at a sweep and keeps what pages show, for all of them at once."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self._finding: LiveFinding | None = None
        self._changed = threading.Condition()
        self._listeners = 0
        self.shown = self._made(watching.view)

    def start(self) -> None:
        """Look from now on, in a thread."""
        threading.Thread(target=self._run, name="optsweep live", daemon=True).start()

    def look(self) -> None:
        """Look once, and tell whoever waits."""
        shown = self._made(self._watching.look())
        with self._changed:
            if shown != self.shown:
                self.shown = shown
                self._changed.notify_all()

    def events(self) -> Iterator[str]:
        """As a page gets them: all that there is first, then what changes, and a beat where nothing does."""
        with self._changed:
            self._listeners += 1
            self._changed.notify_all()  # whoever looks may have slept
        told = ShownPage("", "", "")
        try:
            yield f"retry: {RETRY_MILLISECONDS}\n\n"
            while True:
                now = self._other_than(told)
                if now == told:
                    yield ": beat\n\n"
                if now.ended:
                    yield "event: ended\ndata: \n\n"
                elif now.event != told.event:
                    yield f"event: now\ndata: {now.event}\n\n"
                if now.version != told.version and not now.ended:
                    yield f"event: report\ndata: {now.version}\n\n"
                told = now
        finally:
            with self._changed:
                self._listeners -= 1

    def _other_than(self, told: ShownPage) -> ShownPage:
        """What is shown as soon as it is another; the same after a while without."""
        with self._changed:
            self._changed.wait_for(lambda: self.shown != told, BEAT_SECONDS)
            return self.shown

    def _run(self) -> None:
        said = ""
        while True:
            try:
                self.look()
            except Exception as error:  # pages stay as they are, and the next look may do better
                if str(error) != said:
                    said = str(error)
                    sys.stderr.write(f"optsweep: the page can't be made ({without_secrets(first_line(error))})\n")
            with self._changed:
                if self._listeners:
                    self._changed.wait_for(lambda: False, LOOK_SECONDS)
                else:
                    self._changed.wait_for(lambda: self._listeners > 0, IDLE_SECONDS)

    def _made(self, view: LiveView) -> ShownPage:
        if view.ended and self._finding is view.finding and self.shown.ended:
            return self.shown
        if view.ended:
            self._finding = view.finding
            return ShownPage(final_report(self._watching, view), "", "", ended=True)
        if self._finding is not view.finding:  # the report below is another
            html, version = render(view, self._watching.tracking_uri)
            self._finding = view.finding
        else:
            html, version = self.shown.html, self.shown.version
        return ShownPage(html, version, as_event(view))


def final_report(watching: Watching, view: LiveView) -> str:
    """The sweep's report as it has written it; written again where it can't be had."""
    with tempfile.TemporaryDirectory() as folder:
        with suppress(Exception):
            client = store.client(watching.tracking_uri)
            run = view.finding.record.run_id or ""
            return Path(client.download_artifacts(run, "report/index.html", folder)).read_text(encoding="utf-8")
        written = write_report(watching.tracking_uri, [watching.sweep], Path(folder), attach=False)
        return written.index.read_text(encoding="utf-8")


class LiveServer(ThreadingHTTPServer):
    """Answers this machine's browsers, whichever port it got."""

    daemon_threads = True

    def __init__(self, feed: Feed, listening: socket.socket) -> None:
        self.feed = feed
        super().__init__(listening.getsockname(), Answer, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves in the middle is nobody's mistake; anything else is said."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Answer(BaseHTTPRequestHandler):
    """One request of a browser."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server: LiveServer

    def do_GET(self) -> None:
        """The page or its events; another host's name is refused: some site has made it point here."""
        if not is_asked_for_here(self.headers.get("Host")):
            self._send(421, "text/plain", "this server answers to its own name only")
        elif self.path == "/":
            self._send(200, "text/html", self.server.feed.shown.html)
        elif self.path == "/events":
            with suppress(OSError):
                self._stream()
            self.close_connection = True
        else:
            self._send(404, "text/plain", "there is one page here: /")

    def _send(self, code: int, kind: str, text: str) -> None:
        content = text.encode("utf-8")
        self._begin(code, kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self._begin(200, "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in self.server.feed.events():
            self.wfile.write(event.encode("utf-8"))
            self.wfile.flush()

    def _begin(self, code: int, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve(watching: Watching, port: int, tell: Callable[[str], None], browse: Callable[[str], None]) -> None:
    """Serve the sweep's live page until the user ends it, and `tell` where it is."""
    listening, where = listen_and_say(port, tell)
    feed = Feed(watching)
    _settle(feed, watching)
    feed.start()
    server = LiveServer(feed, listening)
    tell(f"{where}/\nCtrl-C ends it")
    browse(f"{where}/")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


def _settle(feed: Feed, watching: Watching) -> None:
    """Wait for a moment for the first reading of the runs: the page that opens has them."""
    until = time.monotonic() + 5.0
    while not watching.view.finding.groups and time.monotonic() < until:
        with suppress(Exception):  # which the next look says
            feed.look()
        time.sleep(0.1)
