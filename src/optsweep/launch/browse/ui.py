"""MLflow's server over a store, in this process, and the page of a sweep in it.

In this process, because MLflow's own command starts a second one, and each imports all of it: half the memory, and half
of the time until it answers.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
import urllib.request
import warnings
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.address import TRACKING_KEY, Address, read_address
from optsweep.errors import UserError
from optsweep.tracking import names, store
from optsweep.tracking.links import FIRST_VIEW, LOCAL_HOST, all_sweeps, sweep_page

if TYPE_CHECKING:
    from mlflow import MlflowClient

PORTS = 50
"""How many ports are tried, from the one that was asked for."""

PATIENCE = 60.0
"""Seconds for the server to answer."""

_PREFERENCES = (
    ("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true"),
    ("mlflow.settings.telemetry.enabled_v1", "false"),
    ("mlflow.telemetry.info.alert.dismissed_v1", "true"),
)
"""Of MLflow's page, as a browser keeps them: no panel of an assistant over the charts, nothing reported to anybody."""

_SET = "".join(
    f'localStorage.getItem("{key}")??localStorage.setItem("{key}","{value}");' for key, value in _PREFERENCES
)
_NARROW = "@media(max-width:600px){aside,.react-resizable:has(.is-table-comparing-runs-mode){display:none!important}}"
"""Beside its menu and its list of runs MLflow leaves no room for charts on a phone."""

_HEAD = f"<script>try{{{_SET}}}catch(e){{}}</script><style>{_NARROW}</style>"


def show(
    tracking_uri: str, sweep: str | None, port: int, tell: Callable[[str], None], browse: Callable[[str], None]
) -> None:
    """Serve the store until the user ends it, and `tell` where the sweep is; a tracking server is serving already.

    Without a sweep the only one is meant, or the list of them. Raises UserError for a store or sweep that isn't there.
    """
    store.check(tracking_uri, create=False)
    address = read_address(TRACKING_KEY, tracking_uri)
    page = page_of(tracking_uri, sweep)
    if address.is_server:
        tell(address.text + page)
        browse(address.text + page)
        return
    listening, where = listen_and_say(port, tell)

    def ready() -> None:
        tell(f"{where}{page}\nCtrl-C ends it")
        browse(where + page)

    _serve(address, listening, where, ready)


def page_of(tracking_uri: str, sweep: str | None) -> str:
    """The sweep's page, its views prepared. Raises UserError, naming the nearest, for one that isn't there."""
    client = store.client(tracking_uri)
    try:
        experiment = _only_one(client) if sweep is None else store.find_experiment(client, sweep)
    except store.SweepNotFound as error:
        raise UserError(str(error)) from None
    if experiment is None:
        return all_sweeps()
    held = client.get_experiment(experiment)
    store.check_sweep(tracking_uri, held.name)
    if names.VIEW + FIRST_VIEW not in held.tags:
        from optsweep.launch.tracked.home import prepare_views  # which imports much that a server has no use for

        prepare_views(tracking_uri, held.name)
    return sweep_page(experiment)


def _only_one(client: MlflowClient) -> str | None:
    """The experiment, where there is one that a sweep is in."""
    found = store.pages(lambda token: client.search_experiments(page_token=token))
    sweeps = [held for held in found if held.name != "Default"]
    if len(sweeps) != 1:
        return None
    experiment = str(sweeps[0].experiment_id)
    return experiment if store.runs(client, experiment, f"tags.`{names.KIND}` = 'sweep'") else None


def listen(port: int) -> socket.socket:
    """A socket on this port of this machine, or on the next that is free. Raises UserError where there is none."""
    if not 1 <= port <= 65_535:
        raise UserError(f"--port: {port} is not allowed; give a number from 1 to 65535")
    for candidate in range(port, min(port + PORTS, 65_536)):
        listening = socket.socket()
        if os.name == "posix":  # else one that has just ended holds it; elsewhere it lets two have a port at once
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOCAL_HOST, candidate))
            listening.listen()  # who comes early waits until the server is there
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise UserError(f"--port: {candidate} can't be used ({error.strerror})") from None
        else:
            return listening
    raise UserError(f"--port: {port} and the {PORTS - 1} ports after it are taken; give another one")


def listen_and_say(port: int, tell: Callable[[str], None]) -> tuple[socket.socket, str]:
    """The same, and the address of it; `tell` where it is another port."""
    listening = listen(port)
    found = listening.getsockname()[1]
    if found != port:
        tell(f"port {port} is taken; {found} is used instead")
    return listening, f"http://{LOCAL_HOST}:{found}"


def is_asked_for_here(host: str | None) -> bool:
    """Whether a request, by its header Host, is for this machine by its own name, and not by that of some site.

    At any port: through a tunnel it is another one.
    """
    return (host or "").partition(":")[0] in (LOCAL_HOST, "localhost")


def open_browser(address: str) -> None:
    """Show it where there is a browser, and a screen for it: not in the terminal that this runs in."""
    if has_screen():
        with suppress(webbrowser.Error):
            webbrowser.open(address)


def has_screen() -> bool:
    """Whether there is a screen that a browser could show itself on."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _serve(address: Address, listening: socket.socket, where: str, ready: Callable[[], None]) -> None:
    """Until the user ends it."""
    import uvicorn

    config = uvicorn.Config(_app(address), log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    threading.Thread(target=_once_it_answers, args=(where, ready), daemon=True).start()
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _once_it_answers(where: str, ready: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the environment says
    while time.monotonic() < deadline:
        with suppress(OSError), directly.open(f"{where}/health", timeout=PATIENCE):
            ready()
            return
        time.sleep(0.05)


def _app(address: Address) -> App:
    """MLflow's server, which reads its environment when it is imported."""
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "_MLFLOW_SERVER_FILE_STORE": address.text,
        "_MLFLOW_SERVER_REGISTRY_STORE": address.text,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlruns/artifacts",  # of experiments that somebody makes in the page
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of what others are going to change
        from mlflow.server.fastapi_app import app
    return Preferring(app)


@cache
def _head() -> bytes:
    """What the page begins with: a browser's preferences, and bands, which no view of MLflow's can ask for."""
    bands = Path(__file__).with_name("bands.js").read_text(encoding="utf-8")
    return f"{_HEAD}<script>{bands}</script>".encode()


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Preferring:
    """A server's app (ASGI) whose page begins with lines of ours: what a browser prefers that has said nothing yet."""

    app: App

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["path"] == _WHO:
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": b"{}"})
            return
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        begun: Message = {}
        parts: list[bytes] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.update(message)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = b"".join(parts).replace(b"<head>", b"<head>" + _head(), 1)
                kept = [(key, value) for key, value in begun["headers"] if key.lower() not in _OF_THE_FILE]
                await send({**begun, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
                await send({"type": "http.response.body", "body": body})

        asked = [(key, value) for key, value in scope["headers"] if key.lower() not in _OF_A_COPY]
        await self.app({**scope, "headers": asked}, receive, hold)


_WHO = "/ajax-api/2.0/mlflow/users/current"
"""Where MLflow's page asks who has logged in. Where nobody does a server says 404, which a browser calls an error."""

_OF_THE_FILE = (b"content-length", b"etag", b"last-modified")
"""Headers of the page as it lies on the disk."""

_OF_A_COPY = (b"if-none-match", b"if-modified-since")
"""Headers of a request by which a browser keeps the page that it has: of MLflow's own server, without our lines."""
