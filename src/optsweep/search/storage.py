"""Optuna's storage with our tables beside its own: opened, made where it is missing, mended where it is half-made."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import Engine, NullPool, create_engine, inspect
from sqlalchemy.exc import DBAPIError

from optsweep.address import STORAGE_KEY, read_address, refusal, without_driver
from optsweep.database import SQLITE_TIMEOUT, Condition, ensure, has_rows, tables_of, write_ahead
from optsweep.errors import MORE_CONNECTIONS, NotThereError, UserError, is_full_of_clients, without_secrets
from optsweep.search.tables import STUDIES, TABLES, create_tables

TRIES_TO_CREATE = 20
"""A server's tables are made one by one, and two processes that make them get in each other's way at any of them."""


FILE_OPTIONS: dict[str, Any] = {"connect_args": {"timeout": SQLITE_TIMEOUT}}

SERVER_OPTIONS: dict[str, Any] = {"pool_size": 1, "max_overflow": 3, "pool_pre_ping": True}
"""A process keeps one connection, for many share a server; its heartbeat has another one for moments. One that is dead,
as after a restart of the server, is found so before it is used."""


UPGRADE = "`optuna storage upgrade --storage ADDRESS`"
"""What is said of an older storage, which Optuna doesn't change by itself."""

MOST_IN_NAME = 460
"""Characters of a sweep's and an arm's name together: a server's columns have 512, and what they are of follows, and
when the sweep was moved to somewhere else."""


def check_names(url: str, sweep: str, arms: Iterable[str]) -> None:
    """Raise UserError for an arm whose name a database server wouldn't take; a file takes any."""
    address = read_address(STORAGE_KEY, url)
    longest = max(arms, key=len, default="")
    if address.file is None and len(sweep) + len(longest) > MOST_IN_NAME:
        raise UserError(
            f"{STORAGE_KEY}: {address.shown} takes names of {MOST_IN_NAME} characters, and sweep {sweep} with its arm "
            f"'{longest[:80]}…' has {len(sweep) + len(longest)}; sweep over fewer keys at once, or use a file"
        )


def storage_at(url: str, *, make: bool = True) -> RDBStorage:
    """As `open_storage`. Raises UserError, in one line, for whatever is wrong with it.

    Whoever looks makes no tables (`make`) in a server's database, which may be another one than was meant.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if not (make or has_studies(url)):
            shown = read_address(STORAGE_KEY, url).shown
            raise NotThereError(
                f"{STORAGE_KEY}: there are no studies at {shown}; run a sweep first, or name another store"
            )
        return open_storage(url)
    except UserError:
        raise
    except ImportError as error:
        raise without_driver(STORAGE_KEY, without_secrets(url), error.__cause__ or error) from None
    except Exception as error:
        shown = f"{STORAGE_KEY}: {without_secrets(url)}"
        if is_full_of_clients(f"{error} {error.__cause__}"):
            raise UserError(f"{shown} {MORE_CONNECTIONS}") from None
        if "compatible with the table schema" in str(error):
            raise UserError(
                f"{shown} was written by another version of Optuna: {UPGRADE} brings an older one up to this version, "
                f"and `pip install -U optuna` reads a newer one (optsweep doctor says which)"
            ) from None
        raise UserError(f"{shown} can't be opened ({refusal(error)})") from None


def has_studies(url: str) -> bool:
    """Whether there is a store of studies, which is looked at without being made. Raises what a server says."""
    address = read_address(STORAGE_KEY, url)
    if address.file is not None:
        return address.is_there
    address.check_usable()
    with looking_into(url) as engine:
        return inspect(engine).has_table(STUDIES.name)


@contextmanager
def looking_into(url: str) -> Iterator[Engine]:
    """The database as it is, for a question: nothing is made in it, and no connection to it is kept."""
    engine = create_engine(read_address(STORAGE_KEY, url).text, poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def open_storage(url: str) -> RDBStorage:
    """The storage with all its tables; those of a file are made by one process alone, whole or not at all."""
    address = read_address(STORAGE_KEY, url)
    address.check_usable()
    if address.file is not None:
        ensure(address, _condition, _make)
        write_ahead(address.file)
        return _storage(url)
    for _ in range(TRIES_TO_CREATE):
        try:
            return _storage(url)
        except DBAPIError as error:
            if error.statement is None:  # it wasn't reached, or lets nobody in: each try may take minutes
                raise
    return _storage(url)


def _condition(connection: sqlite3.Connection) -> Condition:
    """Whether what is made last is there; opening the storage makes what is not."""
    last = {table.name for table in TABLES.sorted_tables}
    whole = has_rows(connection, "alembic_version") and last <= tables_of(connection)
    return Condition.WHOLE if whole else Condition.UNFINISHED


def _make(url: str) -> None:
    _storage(url).engine.dispose()


def _storage(url: str) -> RDBStorage:
    address = read_address(STORAGE_KEY, url)
    is_file = address.file is not None
    storage = RDBStorage(address.text, engine_kwargs=FILE_OPTIONS if is_file else SERVER_OPTIONS)
    create_tables(storage.engine)
    return storage
