"""The spool: what trials say of themselves waits in files, one a trial, until it has been delivered to MLflow.

A file is locked by the process that writes or delivers it, so it is free again when that process is gone, however it
ended. Its name says whether any of it may have reached MLflow; it is removed when all of it has.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from optsweep.address import STORAGE_KEY, TRACKING_KEY, read_address
from optsweep.tracking.records import Ended, Opened, Record, from_line, to_line

TRIES_TO_MAKE = 10

FRESH, BEGUN, UNNAMED = ".jsonl", ".begun.jsonl", ".tmp"
"""Ends of names: nothing of the file was sent; something may have been; nothing was written yet."""


@dataclass(frozen=True)
class Spool:
    """Where the trials of a sweep wait for their way into its store."""

    tracking_uri: str = field(repr=False)
    storage: str = field(repr=False)
    sweep: str
    folder: Path

    @staticmethod
    def of(tracking_uri: str, storage: str, sweep: str) -> Spool:
        """Beside a local store; of a server beside the file of the studies, else in the working folder."""
        runs = read_address(TRACKING_KEY, tracking_uri)
        file = runs.file or read_address(STORAGE_KEY, storage).file
        beside = file.parent if file is not None else Path("mlruns")
        of = f"{runs.file.name if runs.file is not None else runs.shown} {sweep}"  # the same after a move
        folder = beside / "spool" / hashlib.sha256(of.encode()).hexdigest()[:12]
        return Spool(tracking_uri, storage, sweep, folder.absolute())  # a user's model may change the working folder

    def make_home(self) -> None:
        """The folder that the spools of all sweeps are in, once. Beside a local store it is there."""
        self.folder.parent.parent.mkdir(parents=True, exist_ok=True)

    def trials(self) -> list[str]:
        """Ids of trials that wait, or are being written."""
        try:
            return sorted({path.name.partition(".")[0] for path in self.folder.iterdir() if path.name.endswith(FRESH)})
        except FileNotFoundError:
            return []

    def path(self, trial: str) -> Path | None:
        """The file of a trial; None if there is none."""
        names = self.folder / f"{trial}{FRESH}", self.folder / f"{trial}{BEGUN}"
        return next((path for path in names if path.exists()), None)

    def has_ended(self, trial: str) -> bool:
        """Whether the file of a trial has its end, whoever has the file."""
        lines = self._lines(trial)
        return bool(lines) and isinstance(from_line(lines[-1]), Ended)

    def beginning(self, trial: str) -> Opened | None:
        """How a trial began, whoever has its file."""
        first = from_line(next(iter(self._lines(trial)), b""))
        return first if isinstance(first, Opened) else None

    def _lines(self, trial: str) -> list[bytes]:
        """The whole lines of a file."""
        path = self.path(trial)
        try:
            content = b"" if path is None else path.read_bytes()
        except FileNotFoundError:  # renamed, or delivered
            content = b""
        return content[: content.rfind(b"\n") + 1].splitlines()

    def open(self, trial: str) -> TrialFile:
        """The file of a trial that begins."""
        return TrialFile(self.folder / f"{trial}{FRESH}")

    @contextmanager
    def held(self, path: Path) -> Iterator[SpoolFile | None]:
        """A file that nobody else has, for as long as this lasts; None where somebody has it, or it is gone."""
        try:
            number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            yield SpoolFile(path, number) if _locked(number, path) else None
        finally:
            os.close(number)

    def clean(self) -> None:
        """Take the folder away, if nothing waits in it."""
        for path in (*self.folder.glob("*.voice"), *self.folder.glob(f"*{UNNAMED}")):
            with suppress(OSError), self.held(path) as free:
                if free is not None:
                    free.remove()
        with suppress(OSError):
            self.folder.rmdir()
            self.folder.parent.rmdir()


def make_folder(folder: Path) -> None:
    """A sweep's folder. Its home isn't made: a store that was deleted must not seem to be there again."""
    for path in (folder.parent, folder):
        path.mkdir(exist_ok=True)


def _locked(number: int, path: Path) -> bool:
    """Lock an open file, if it is free and still the one of that name."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(number).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


class SpoolFile:
    """An open file of the spool, of which this process has the lock."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.is_damaged = False  # whether a line among those that were read is none

    @property
    def begun(self) -> bool:
        """Whether something of it may have been sent."""
        return self.path.name.endswith(BEGUN)

    def begin(self) -> None:
        """Note that something of it is going to be sent."""
        if not self.begun:
            fresh = self.path.with_name(self.path.name.removesuffix(FRESH) + BEGUN)
            self.path.rename(fresh)
            self.path = fresh

    def read(self, start: int = 0) -> tuple[list[Record], int]:
        """The records from an offset on, and the offset after them. A line that was cut off isn't read.

        A damaged line between others is left out.
        """
        size = os.fstat(self.number).st_size
        content = os.pread(self.number, size - start, start) if size > start else b""
        whole = content[: content.rfind(b"\n") + 1]
        found = [from_line(line) for line in whole.splitlines()]
        self.is_damaged |= None in found
        return [record for record in found if record is not None], start + len(whole)

    def remove(self) -> None:
        """All of it has been delivered."""
        self.path.unlink(missing_ok=True)


class TrialFile(SpoolFile):
    """A file that is being written: records are kept until they are on the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, -1)
        self._waiting: list[bytes] = []
        self._size = 0
        self._unnamed = path.with_name(path.name.removesuffix(FRESH) + UNNAMED)

    @property
    def is_there(self) -> bool:
        """Whether anything of it is on the disk under its name."""
        return self._size > 0

    @property
    def is_over(self) -> bool:
        """Whether it was written, and closed."""
        return self.is_there and self.number < 0

    def add(self, *records: Record) -> None:
        """Keep records for the next write."""
        self._waiting += map(to_line, records)

    def write(self, *, durable: bool = False) -> None:
        """Write what was kept. Raises OSError, and keeps it then; the next write covers what was written of it."""
        if self.number < 0:
            self._make()
        content = memoryview(b"".join(self._waiting))
        done = 0
        while done < len(content):
            done += os.pwrite(self.number, content[done:], self._size + done)
        if durable:
            os.fsync(self.number)
        if not self._size:  # nobody takes a file without records for one whose writer is gone
            self._unnamed.rename(self.path)
        self._size += done
        self._waiting.clear()

    def close(self) -> None:
        """Whoever wants may deliver it now."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def _make(self) -> None:
        """Open the file, and lock it; somebody may just be taking its folder away, or what a dead writer left there."""
        home = self._unnamed.parent.parent.parent
        for _ in range(TRIES_TO_MAKE):
            if not home.is_dir():  # which waiting doesn't mend
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(home))
            with suppress(FileNotFoundError):
                make_folder(self._unnamed.parent)
                number = os.open(self._unnamed, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o600)
                if _locked(number, self._unnamed):
                    self.number = number
                    return
                os.close(number)
        raise OSError(errno.EBUSY, "somebody takes it away", str(self._unnamed))


def opened(records: Sequence[Record]) -> Opened | None:
    """How the trial began; None where that was never written."""
    return next((record for record in records if isinstance(record, Opened)), None)
