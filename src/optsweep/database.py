"""Database files of stores: made whole or not at all, by one process at a time; missed when they vanish."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from pathlib import Path

from optsweep.address import Address
from optsweep.errors import UserError

SQLITE_TIMEOUT = 60.0
"""Seconds to wait for another process's write."""

CREATION_TIMEOUT = 120.0
"""Seconds to wait for another process that makes the same database."""

_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database, by the ends of the names."""


class Condition(Enum):
    """How far a database is made."""

    MISSING = auto()  # no file, an empty one, or one without a table
    HOLLOW = auto()  # left half-made, and holding nothing
    UNFINISHED = auto()  # something is missing that can be added
    WHOLE = auto()


class StoreGoneError(UserError):
    """A store's file was deleted, moved or replaced while it was open."""


def ensure(
    address: Address, look: Callable[[sqlite3.Connection], Condition], make: Callable[[str], None]
) -> Path | None:
    """Make the database that is missing, and mend one that isn't whole; returns where a hollow one was put.

    `look` says of a database with tables what it is, `make` adds what one at an address lacks. A new one is made under
    another name and then renamed: whoever is killed leaves nothing, or all of it.
    """
    file = address.file
    if file is None or condition_of(file, look) is Condition.WHOLE:
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    with alone(file):
        found = condition_of(file, look)  # another process may have made it
        if found is Condition.UNFINISHED:
            make(address.text)
        if found in (Condition.WHOLE, Condition.UNFINISHED):
            return None
        aside = _set_aside(file) if found is Condition.HOLLOW else None
        fresh = file.absolute().with_name(f"{file.name}.new")
        for path in (fresh, *_beside(fresh), *_beside(file)):  # of a process that was killed, of a database deleted
            path.unlink(missing_ok=True)
        new = address.at(fresh)
        new.make_file()
        with _unsynced(fresh):
            make(new.text)
        write_ahead(fresh)
        _sync(fresh)
        fresh.replace(file)
        return aside


@contextlib.contextmanager
def _unsynced(file: Path) -> Iterator[None]:
    """Let SQLAlchemy's connections to a file not wait for the disk: nobody else knows it yet.

    Migrations make hundreds of transactions, each of which waits several times.
    """
    from sqlalchemy import Engine, event

    def connected(connection: sqlite3.Connection, _: object) -> None:
        if Path(connection.execute("PRAGMA database_list").fetchone()[2]).resolve() == file.resolve():
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


def _sync(file: Path) -> None:
    """What was written to a file is on the disk when this returns."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def write_ahead(file: Path) -> None:
    """Let readers of a database and its writer not wait for each other."""
    with connection_to(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def condition_of(file: Path, look: Callable[[sqlite3.Connection], Condition]) -> Condition:
    """How far the database in a file is made; nothing is written."""
    if not file.is_file() or file.stat().st_size == 0:
        return Condition.MISSING
    with connection_to(file) as connection:
        return look(connection) if tables_of(connection) else Condition.MISSING


def tables_of(connection: sqlite3.Connection) -> set[str]:
    """Names of the tables in a database."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name for (name,) in found}


def has_rows(connection: sqlite3.Connection, table: str) -> bool:
    """Whether there is anything in a table, if there is one."""
    return table in tables_of(connection) and connection.execute(f'SELECT 1 FROM "{table}"').fetchone() is not None


@contextlib.contextmanager
def connection_to(file: Path) -> Iterator[sqlite3.Connection]:
    """An open database that is there already. Raises sqlite3.Error."""
    uri = f"{file.absolute().as_uri()}?mode=rw"  # which makes no file
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=SQLITE_TIMEOUT)) as connection:
        yield connection


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """One process at a time makes or mends a database. The lock is SQLite's, on a file beside; its holder ends it."""
    beside = file.with_name(f"{file.name}.lock")
    with contextlib.closing(sqlite3.connect(beside, timeout=CREATION_TIMEOUT, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def _beside(file: Path) -> list[Path]:
    return [file.with_name(file.name + end) for end in _BESIDE]


def _set_aside(file: Path) -> Path:
    """Give a database another name, which is returned."""
    names = (file.with_name(f"{file.name}.half-made{'' if n == 1 else f'-{n}'}") for n in range(1, 1000))
    aside = next(path for path in names if not path.exists())
    for path, name in ((file, aside), *zip(_beside(file), _beside(aside), strict=True)):
        with contextlib.suppress(FileNotFoundError):
            path.rename(name)
    return aside


class OpenFiles:
    """The files of databases that are open, as they were when they were opened."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        files = {address: address.file.absolute() for address in addresses if address.file is not None}
        self._files = {address: (file, identity(file)) for address, file in files.items()}

    def check(self) -> None:
        """Raise StoreGoneError if one was deleted, moved or replaced: what is written to it by now is lost."""
        for address, (file, before) in self._files.items():
            if identity(file) != before:
                raise StoreGoneError(
                    f"{address.key}: {address.file} was deleted, moved or replaced while the sweep ran, which stops "
                    f"here; put it back, or give the same command again: it runs again what is missing"
                )


def identity(file: Path) -> tuple[int, int] | None:
    """Tells a file from whatever else may take its place; None where there is none."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
