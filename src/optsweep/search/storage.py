"""Optuna's storage with our tables beside its own: opened, made where it is missing, mended where it is half-made."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError

from optsweep.address import STORAGE_KEY, read_address
from optsweep.database import SQLITE_TIMEOUT, Condition, ensure, has_rows, tables_of, write_ahead
from optsweep.errors import UserError, first_line, without_secrets
from optsweep.search.ownership import TABLES, create_tables

TRIES_TO_CREATE = 20
"""A server's tables are made one by one, and two processes that make them get in each other's way at any of them."""


def storage_at(url: str) -> RDBStorage:
    """The storage, as `open_storage` opens it. Raises UserError if that can't be done."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return open_storage(url)
    except UserError:
        raise
    except Exception as error:
        reason = without_secrets(first_line(error))
        raise UserError(f"{STORAGE_KEY}: {without_secrets(url)} can't be opened: {reason}") from None


def open_storage(url: str) -> RDBStorage:
    """The storage with all its tables; those of a file are made by one process alone, whole or not at all."""
    address = read_address(STORAGE_KEY, url)
    address.check_usable()
    if address.file is not None:
        ensure(address, _condition, _make)
        write_ahead(address.file)
        return _storage(url)
    for _ in range(TRIES_TO_CREATE):
        with suppress(DBAPIError):
            return _storage(url)
    return _storage(url)


def _condition(connection: sqlite3.Connection) -> Condition:
    """Whether what is made last is there; opening the storage makes what is not."""
    last = {table.name for table in TABLES.sorted_tables}
    whole = has_rows(connection, "alembic_version") and last <= tables_of(connection)
    return Condition.WHOLE if whole else Condition.UNFINISHED


def _make(url: str) -> None:
    _storage(url).engine.dispose()


def _storage(url: str) -> RDBStorage:
    is_file = read_address(STORAGE_KEY, url).file is not None
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT}} if is_file else {})
    create_tables(storage.engine)
    return storage
