"""Looking on: a sweep's stores read every other second, for a terminal (terminal.py) or a page (server.py).

Nothing of the sweep's machine is needed and nothing of the sweep is changed. A store that fails meanwhile is said to,
and read again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from optsweep.address import STORAGE_KEY, TRACKING_KEY, Address, read_address
from optsweep.errors import first_line, without_secrets
from optsweep.launch.live.report import Findings, LiveFinding, Pace, nothing_yet
from optsweep.launch.live.state import Looker, Snapshot, State
from optsweep.launch.status import check_there, repeats_of
from optsweep.search.observing import Onlooker
from optsweep.search.studies import Studies
from optsweep.tracking import store

LOOK_SECONDS = 1.5
"""Between two looks."""


@dataclass(frozen=True)
class LiveView:
    """What is known of a sweep by now."""

    snapshot: Snapshot
    finding: LiveFinding
    troubles: tuple[str, ...] = ()  # stores that fail
    quiet: float = 0.0  # seconds since anybody planned it

    @property
    def ended(self) -> bool:
        """Whether it has all its trials, and its report states them, or none was asked for."""
        return self.snapshot.state is State.TRAINED and self.finding.settled


class Watching:
    """Looks at a sweep. Its runs, which take longer to read, are read by a thread of its own."""

    def __init__(
        self, storage: str, tracking_uri: str, sweep: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises UserError for a store or a sweep that isn't there."""
        self.sweep, self.tracking_uri = sweep, tracking_uri
        self._storage, self._tracking = read_address(STORAGE_KEY, storage), read_address(TRACKING_KEY, tracking_uri)
        check_there(storage)
        self._studies = Studies.open(storage, sweep, make=False)
        repeats_of(self._studies)  # which says what there is instead
        self._observer = Onlooker(self._studies.engine, sweep)
        self._looker = Looker(sweep, on_server=self._storage.file is None)
        first = self._looker.snapshot(self._observer.look())
        store.check(tracking_uri, create=False)
        store.check_sweep(tracking_uri, sweep)
        self._findings, self._pace, self._clock = Findings(tracking_uri, sweep), Pace(clock), clock
        self._reading: threading.Thread | None = None
        self._trouble = {"storage": "", "runs": ""}
        self._alive = clock()
        self._finding = nothing_yet(sweep)  # set by the thread
        self.view = LiveView(first, self._finding)

    def look(self) -> LiveView:
        """What is there now."""
        try:
            _there(self._storage)
            self._looker.labels = self._finding.labels
            snapshot = self._looker.snapshot(self._observer.look())
            self._trouble["storage"] = ""
        except Exception as error:
            self._trouble["storage"] = _said("the studies' storage", error)
            snapshot = self.view.snapshot
        if snapshot.planned or self._trouble["storage"]:
            self._alive = self._clock()
        self._read_runs(snapshot)
        troubles = tuple(filter(None, self._trouble.values()))
        self.view = LiveView(snapshot, self._finding, troubles, self._clock() - self._alive)
        return self.view

    def _read_runs(self, snapshot: Snapshot) -> None:
        what = snapshot.state, [(arm.done, arm.failed, arm.phase) for arm in snapshot.arms], int(self._waits(snapshot))
        busy = self._reading is not None and self._reading.is_alive()
        if not busy and self._pace.due(what):
            self._reading = threading.Thread(target=self._read, args=(snapshot,), daemon=True)
            self._reading.start()

    def _waits(self, snapshot: Snapshot) -> float:
        """Another number every few seconds while its report is still to come, or its runs can't be read."""
        waits = snapshot.state is State.TRAINED and not self._finding.settled
        return self._clock() // 5 if waits or self._trouble["runs"] else 0.0

    def _read(self, snapshot: Snapshot) -> None:
        begin = time.monotonic()
        try:
            _there(self._tracking)
            trained, unasked = snapshot.state is State.TRAINED, snapshot.report is not None and snapshot.report.unasked
            found = self._findings.read(self._studies, trained=trained, unasked=unasked)
            found.verdicts  # noqa: B018 – put into words here, where what goes wrong is said
            self._finding = found
            self._trouble["runs"] = ""
        except Exception as error:
            self._trouble["runs"] = _said("the tracking store", error)
        self._pace.took(time.monotonic() - begin)


def _there(address: Address) -> None:
    """Raises OSError where a store's file has gone: to open it would make it anew."""
    if address.file is not None and not address.file.is_file():
        raise FileNotFoundError(f"there is no file {address.file} any more")


def _said(store_of: str, error: Exception) -> str:
    return f"{store_of} can't be read ({without_secrets(first_line(error))}); what is here is from before"
