"""Stores that fail for a while: which failures may pass, who says so, and how long one waits for them.

A database is locked, a disk is full, a server is away: none of it is a reason to lose what was trained.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep, time
from typing import TypeVar

from optsweep.address import STORAGE_KEY, TRACKING_KEY, Address, near, read_address
from optsweep.errors import MORE_CONNECTIONS, first_line, is_full_of_clients, without_secrets
from optsweep.terminal import complain
from optsweep.tracking.spool import make_folder

T = TypeVar("T")

PATIENCE_SECONDS = 600.0
"""How long a store may be away before what needs it gives up."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two tries, doubled with each."""

STALE_SECONDS = 120.0
"""After so long without a failure a further one is another outage."""

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of errors."""

_PASSING = DISK_FULL | {errno.EIO, errno.ETIMEDOUT, errno.ESTALE, errno.EAGAIN, errno.EBUSY}
_LASTING = ("no such table", "no such column", "syntax error", "readonly database")
"""SQLite calls these operational errors, but waiting doesn't mend them."""

_MLFLOW_PASSING = frozenset(
    {
        "TEMPORARILY_UNAVAILABLE",
        "INTERNAL_ERROR",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "CANCELLED",
    }
)


class StoreFailureError(Exception):
    """A store was away for longer than anyone waits: no fault of the trial, which is to be run again."""


def passes(error: BaseException) -> bool:
    """Whether a failure may be over by itself: the store is busy, full or away, and what was asked of it is right."""
    from mlflow.exceptions import MlflowException
    from optuna.exceptions import StorageInternalError
    from requests import RequestException
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    if isinstance(error, StorageInternalError):
        return error.__cause__ is None or passes(error.__cause__)
    if isinstance(error, MlflowException):
        return error.error_code in _MLFLOW_PASSING and not _lasts(error)
    if isinstance(error, OperationalError | InterfaceError | sqlite3.OperationalError):
        return not _lasts(error)
    if isinstance(error, DBAPIError):
        return bool(error.connection_invalidated)
    if isinstance(error, OSError) and not isinstance(error, RequestException):
        return error.errno in _PASSING or isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, RequestException | PoolTimeoutError)


def _lasts(error: BaseException) -> bool:
    return any(text in str(error) for text in _LASTING)


def what_failed(error: BaseException, address: Address) -> str:
    """In a few words, of the store at an address: 'mlruns/mlflow.db is locked by another process'."""
    chain = list(_causes(error))
    said = " ".join(str(held) for held in chain).lower()
    shown = f"the server at {address.shown}" if address.is_server else str(address.file or address.shown)
    if any(isinstance(held, OSError) and held.errno in DISK_FULL for held in chain) or _says_full(said):
        folder = shown if address.file is None else near(address.file.parent)
        return f"the disk is full at {folder}"
    if is_full_of_clients(said):
        return f"the database at {shown} {MORE_CONNECTIONS}"
    if "locked" in said or "deadlock" in said:
        return f"the database of {shown} is locked" if address.is_server else f"{shown} is locked by another process"
    if address.is_server:
        code = re.search(r"error code (\d{3})\b", said)
        return f"{shown} " + (f"answers with error {code[1]}" if code else "doesn't answer")
    if address.file is None:
        return f"the database at {shown} doesn't answer"
    return f"{shown} fails ({without_secrets(first_line(chain[-1]))[:120]})"


def _says_full(said: str) -> bool:
    return any(text in said for text in ("disk is full", "no space left", "disk quota"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


@dataclass
class Outage:
    """Whether a store works. Of all processes that notice, one says so, when it stops and when it works again."""

    address: Address
    meanwhile: str  # what becomes of the work: "training goes on, curves wait in …"
    over: str  # what is said when it works again
    voice: Path | None = None  # locked by the process that speaks
    say: Callable[[str], None] = complain
    reason: str = ""  # empty: it works
    _since: float = field(default=0.0, init=False)
    _voice: int | None = field(default=None, init=False)
    _said: bool = field(default=False, init=False)

    def failed(self, error: BaseException) -> None:
        """A call has failed."""
        if not self.reason:
            self._since = monotonic()
        self.reason = what_failed(error, self.address)
        if not self._said and self._may_speak():
            self._said = True
            if not self._was_said():
                self.say(f"{self.reason}; {self.meanwhile}")
        self._mark(b"said")

    def worked(self) -> None:
        """A call has worked."""
        if self._said:
            self.say(self.over)
            self._mark(b"")
        self.reason = ""
        self.give_up()

    def give_up(self) -> None:
        """Look no longer whether it works: another process may speak."""
        self._said = False
        if self._voice is not None:
            os.close(self._voice)
            self._voice = None

    @property
    def over_patience(self) -> bool:
        """Whether it has been failing for longer than anyone waits."""
        return bool(self.reason) and monotonic() - self._since >= PATIENCE_SECONDS

    def _was_said(self) -> bool:
        """Whether one that has ended since has said it: the outage goes on, and isn't another one."""
        if self._voice is None:
            return False
        found = os.fstat(self._voice)
        return found.st_size > 0 and time() - found.st_mtime < STALE_SECONDS

    def _mark(self, text: bytes) -> None:
        """Leave behind whether it was said."""
        if self._voice is not None:
            with suppress(OSError):  # the disk may be what is full
                os.ftruncate(self._voice, 0)
                os.pwrite(self._voice, text, 0)

    def _may_speak(self) -> bool:
        """Whether no other process speaks already; where that can't be known, this one does."""
        if self.voice is None:
            return True
        try:
            make_folder(self.voice.parent)
            held = os.open(self.voice, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            return False
        self._voice = held
        return True


def storage_outage(url: str, folder: Path | None = None) -> Outage:
    """Of the studies' storage; processes that know the sweep's `folder` in the spool say it once."""
    address = read_address(STORAGE_KEY, url)
    meanwhile = f"what is to be written waits, for {_minutes()} at most"
    voice = None if folder is None else folder / "storage.voice"
    return Outage(address, meanwhile, f"{address.file or address.shown} works again", voice)


def tracking_outage(uri: str, folder: Path, *, training: bool = False) -> Outage:
    """Of the tracking store, whose records wait in a folder: while trials train, or when nothing else is left to do."""
    address = read_address(TRACKING_KEY, uri)
    over = f"{address.file or address.shown} works again, and gets what waits"
    what = "training goes on" if training else f"it is tried again for {_minutes()}"
    return Outage(address, f"{what}, curves wait in {near(folder)}", over, folder / "tracking.voice")


def disk_outage(folder: Path) -> Outage:
    """Of the disk that the spool is on."""
    address = Address(TRACKING_KEY, "", "", file=folder / "curves")
    meanwhile = "training goes on, curves wait in memory"
    return Outage(address, meanwhile, f"curves are written to {near(folder)} again", folder / "disk.voice")


def _minutes() -> str:
    return f"{PATIENCE_SECONDS / 60:.0f} minutes"


def _note(error: Exception, outage: Outage) -> None:
    """Note that a store fails; raises what is another error."""
    if not passes(error):
        raise error
    outage.failed(error)


def once(call: Callable[[], T], outage: Outage) -> T | None:
    """The call's result; None while its store fails, for who does something else before the next try.

    Raises StoreFailureError when nobody waits any longer.
    """
    try:
        found = call()
    except Exception as error:
        _note(error, outage)
        if outage.over_patience:
            raise StoreFailureError(outage.reason) from error
        return None
    outage.worked()
    return found


def patiently(call: Callable[[], T], outage: Outage, stopping: Callable[[], bool] = lambda: False) -> T:
    """The call's result, tried again while its store fails. Raises StoreFailureError when nobody waits any longer."""
    pause = FIRST_PAUSE
    while True:
        try:
            found = call()
        except Exception as error:
            _note(error, outage)
            if (over := outage.over_patience) or stopping():
                outage.give_up()
                raise StoreFailureError(f"{outage.reason}, for {_minutes()} now" if over else outage.reason) from error
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            outage.worked()
            return found
