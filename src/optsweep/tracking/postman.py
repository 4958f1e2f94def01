"""Takes files of the spool to MLflow, whoever wrote them: the call for what waits, and what a courier does for one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from optsweep.address import TRACKING_KEY, near, read_address
from optsweep.errors import first_line, without_secrets
from optsweep.tracking.delivery import Delivery, RunGoneError, whole_run
from optsweep.tracking.outage import StoreFailureError, passes, patiently, tracking_outage
from optsweep.tracking.records import Ended, Opened, Record
from optsweep.tracking.spool import Spool, SpoolFile, opened
from optsweep.tracking.whole import WholeRun
from optsweep.tracking.writer import Tracker

TRIES_ANEW = 5
"""How often in a row a run may be deleted while it is delivered."""

BUSY_SECONDS = 0.1
"""Between two looks at files that another process is delivering."""

MOST_BUSY_SECONDS = 60.0
"""How long another process may take for them: one that is stopped takes for ever."""

MOST_TOGETHER = 50
"""Trials by one transaction, for which others wait that want to write."""

T = TypeVar("T")


def is_gone(file: Path) -> bool:
    """Whether a store's file isn't there any more."""
    return not file.exists()


class Postman:
    """Brings files of a spool to MLflow. Opens the store when there is something to deliver, and again when it must."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        address = read_address(TRACKING_KEY, spool.tracking_uri)
        # opened in the midst of training: a user's model may have changed the working folder by then
        self._file = None if address.file is None else address.file.absolute()
        self._uri = address.given if self._file is None else address.at(self._file).given
        self._tracker: Tracker | None = None

    @property
    def tracker(self) -> Tracker:
        """The sweep's experiment, made if it is missing.

        Raises OperationalError for a file that somebody has taken away: MLflow would make an empty one in its place.
        """
        if self._file is not None and is_gone(self._file):
            raise sqlite3.OperationalError("unable to open database file")
        if self._tracker is None:
            self._tracker = Tracker(self._uri, self.spool.sweep)
        return self._tracker

    def anew(self) -> None:
        """Look everything up again: somebody deleted a run, or the experiment."""
        self._tracker = None

    def deliver(self, trial: str) -> bool:
        """Deliver a trial's file whole, and remove it; false where another process has it, or an earlier attempt's.

        A trial that hasn't ended was cut off: nobody who could end it has its file.
        """
        path = self.spool.path(trial)
        if path is None:
            return True
        with self.spool.held(path) as file:
            if file is None:
                return self.spool.path(trial) is None
            records, _ = file.read()
            if file.is_damaged:  # its curves lack something: what it came to doesn't count
                records = [record for record in records if not isinstance(record, Ended)]
            begun = opened(records)
            if begun is not None:
                if not self.may_go(begun):
                    return False
                ends = any(isinstance(record, Ended) for record in records)
                until_it_stays(lambda: self._deliver(file, records, ends=ends), self.anew)
            file.remove()
        return True

    def deliver_together(self, trials: Sequence[str]) -> list[str]:
        """Deliver those that have ended and of which nothing was sent, many by one transaction; returns the others.

        Those that the store refuses are among these: one at a time says which it is.
        """
        left: list[str] = []
        for first in range(0, len(trials), MOST_TOGETHER):
            part = trials[first : first + MOST_TOGETHER]
            try:
                left += self._together(part)
            except Exception as error:
                if passes(error):
                    raise
                left += part
        return left

    def _together(self, trials: Sequence[str]) -> Sequence[str]:
        """The same of a few, whose files are nobody else's meanwhile."""
        if not self.tracker.has_database:
            return trials
        with ExitStack() as held:
            whole = {trial: found for trial in trials if (found := self._whole(held, trial)) is not None}
            if not whole:
                return trials
            for file, _ in whole.values():
                file.begin()
            if not self.tracker.add_whole([run for _, run in whole.values()]):
                return trials
            for file, _ in whole.values():
                file.remove()
        return [trial for trial in trials if trial not in whole]

    def _whole(self, held: ExitStack, trial: str) -> tuple[SpoolFile, WholeRun] | None:
        """The file of a trial that can be delivered so, and the run that is to be made of it."""
        path = self.spool.path(trial)
        file = held.enter_context(self.spool.held(path)) if path is not None else None
        if file is None or file.begun:
            return None
        records, _ = file.read()
        run = None if file.is_damaged else whole_run(self.tracker, records)
        return None if run is None else (file, run)

    def _deliver(self, file: SpoolFile, records: list[Record], *, ends: bool) -> None:
        delivery = Delivery(self.tracker, begun=file.begun)
        file.begin()
        delivery.bring(records)
        if not ends:
            delivery.cut_off(int(file.path.stat().st_mtime * 1000))

    def may_go(self, trial: Opened) -> bool:
        """Deliver what earlier attempts at the trial's slot have left; whether those of which it resumes one are."""
        if trial.again:
            for other in self.spool.trials():
                begun = self.spool.beginning(other)
                if begun is not None and other != trial.id and begun.place == trial.place:
                    self.deliver(other)
        return all(map(self.deliver, reversed(trial.resume.split())))


def until_it_stays(send: Callable[[], T], anew: Callable[[], None]) -> T:
    """Send something again where its run is deleted meanwhile. Raises RunGoneError where that has no end."""
    for _ in range(TRIES_ANEW):
        with suppress(RunGoneError):
            return send()
        anew()
    return send()


def deliver(spool: Spool, stopping: Callable[[], bool] = lambda: False) -> int:
    """Deliver all that waits in a spool, whoever wrote it; returns how many trials that were.

    Trials that others still train stay. Raises StoreFailureError where the store is away for too long or refuses one,
    with how many wait and where.
    """
    postman = Postman(spool)
    outage = tracking_outage(spool.tracking_uri, spool.folder)
    refused: dict[str, str] = {}
    done, until = 0, time.monotonic() + MOST_BUSY_SECONDS
    wanted = spool.trials()  # those that follow aren't waited for: a sweep that goes on has always some on their way
    while wanted:
        left = []
        try:
            others = patiently(partial(postman.deliver_together, wanted), outage, stopping)
        except StoreFailureError as error:
            raise StoreFailureError(_waits(spool, str(error))) from error
        done += len(wanted) - len(others)
        for trial in others:
            try:
                gone = patiently(partial(postman.deliver, trial), outage, stopping)
            except StoreFailureError as error:
                raise StoreFailureError(_waits(spool, str(error))) from error
            except Exception as error:
                refused[trial] = as_refused(trial, error)
            else:
                done += gone
                left += [] if gone else [trial]
        if not (wanted := [trial for trial in left if spool.has_ended(trial)]):
            break
        if time.monotonic() > until:
            raise StoreFailureError(_waits(spool, "another process has them, and doesn't deliver them"))
        time.sleep(BUSY_SECONDS)
    if refused:
        raise StoreFailureError(_waits(spool, next(iter(refused.values()))))
    spool.clean()
    return done


def deliver_all(tracking_uri: str, storage: str, sweep: str) -> int:
    """Deliver what waits of a sweep, and wait for nothing; how many trials that were."""
    return deliver(Spool.of(tracking_uri, storage, sweep), lambda: True)


def as_refused(trial: str, error: Exception) -> str:
    """What is said of a trial that the store doesn't take, whatever one waits."""
    return f"the tracking store refuses trial {trial} ({without_secrets(first_line(error))[:200]})"


def _waits(spool: Spool, why: str) -> str:
    count = len(spool.trials())
    trials = "1 trial waits" if count == 1 else f"{count} trials wait"
    return f"{why}; {trials} in {near(spool.folder)}, and `optsweep sync {spool.sweep}` delivers"
