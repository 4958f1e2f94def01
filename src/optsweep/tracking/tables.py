"""MLflow's tables in a database file: how far they are made, and making what is missing of them.

MLflow makes them by dozens of migrations, which are no transaction: of whoever was killed in them before they were made
under another name, tables without a version are left, or a migration's temporary ones.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Any

from optsweep.address import TRACKING_KEY, Address, read_address
from optsweep.database import SQLITE_TIMEOUT, Condition, condition_of, ensure, has_rows, tables_of, write_ahead

ARTIFACTS = "artifacts"
"""The folder of artifacts, beside the database."""

_WRITABLE = "optsweep_writable"
"""The table by which it is found out whether a database can be written."""

_VERSION = "alembic_version"
_LEFT_OVER = "_alembic_tmp_"
"""Tables that a migration fills, and then gives the name of the one that it changes."""


def ensure_tables(address: Address) -> Path | None:
    """Make MLflow's tables, and mend what was left half-made; returns where a database that held nothing was put."""
    return ensure(address, _condition, _make)


def holds_nothing(file: Path) -> bool:
    """Whether `ensure_tables` would make the database anew."""
    return condition_of(file, _condition) in (Condition.MISSING, Condition.HOLLOW)


def check_writable(file: Path) -> None:
    """Raises sqlite3.Error or OSError where the database can't be written."""
    write_ahead(file)
    with contextlib.closing(sqlite3.connect(file, timeout=SQLITE_TIMEOUT)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_WRITABLE} (x)")


def _condition(connection: sqlite3.Connection) -> Condition:
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.tracking import sqlalchemy_store  # noqa: F401 – it tells Base of the tables

    tables = tables_of(connection)
    if not tables - {_WRITABLE}:
        return Condition.MISSING
    half_made = not has_rows(connection, _VERSION) or any(name.startswith(_LEFT_OVER) for name in tables)
    if not half_made and set(Base.metadata.tables) <= tables:
        return Condition.WHOLE
    return Condition.UNFINISHED if _holds_something(connection) else Condition.HOLLOW


def _holds_something(connection: sqlite3.Connection) -> bool:
    """Whether there is a run, or an experiment that MLflow doesn't make by itself."""
    if any(has_rows(connection, table) for table in ("runs", f"{_LEFT_OVER}runs")):
        return True
    experiments = [table for table in ("experiments", f"{_LEFT_OVER}experiments") if table in tables_of(connection)]
    return any(
        connection.execute(f"SELECT 1 FROM {table} WHERE experiment_id <> 0").fetchone() for table in experiments
    )


def _make(url: str) -> None:
    file = read_address(TRACKING_KEY, url).file
    assert file is not None
    _finish_left_over(file)
    disconnect(url, file)


def disconnect(url: str, file: Path) -> None:
    """Let MLflow add the tables that are missing, by its own migrations, and close this process's connections."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for noisy in ("mlflow", "alembic"):  # only now: importing it sets the level too
        logging.getLogger(noisy).setLevel(logging.ERROR)
    opened: Any = SqlAlchemyStore  # which has no types
    opened(url, (file.resolve().parent / ARTIFACTS).as_uri()).engine.dispose()


def _finish_left_over(file: Path) -> None:
    """What a migration was killed over is undone, or, if the old table is gone already, done."""
    with contextlib.closing(sqlite3.connect(file, timeout=SQLITE_TIMEOUT)) as connection, connection:
        tables = tables_of(connection)
        for name in sorted(tables):
            if (table := name.removeprefix(_LEFT_OVER)) != name:
                change = "DROP TABLE" if table in tables else "ALTER TABLE"
                connection.execute(f'{change} "{name}"' + ("" if table in tables else f' RENAME TO "{table}"'))
