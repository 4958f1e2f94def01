"""A sweep's studies from one database to another: all of them, and the same, by one transaction; or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, insert, select, update

from optsweep.search.overview import in_sweep
from optsweep.search.tables import (
    DIRECTIONS,
    HEARTBEATS,
    LEASES,
    NOTES,
    PARAMS,
    RUNGS,
    STUDIES,
    STUDY_SYSTEM_ATTRIBUTES,
    SYSTEM_ATTRIBUTES,
    TRIALS,
    USER_ATTRIBUTES,
    VALUES,
)

OF_STUDIES = (DIRECTIONS, NOTES, STUDY_SYSTEM_ATTRIBUTES)
OF_TRIALS = (PARAMS, VALUES, RUNGS, USER_ATTRIBUTES, SYSTEM_ATTRIBUTES, HEARTBEATS, LEASES)
ROWS_AT_ONCE = 2_000

Rows = Sequence[Mapping[str, Any]]


class DifferentError(Exception):
    """What was copied isn't what it was copied from."""


def copy_studies(source: Engine, target: Engine, sweep: str, content: Mapping[str, Any]) -> None:
    """Make a sweep's studies, whose content is known, anew in another database: trials in their order, with leases.

    Raises DifferentError, and nothing is made, where they aren't the same there, or somebody has changed them since.
    """
    with target.begin() as here:
        with source.connect() as there:
            _copy(there, here, sweep)
        if not _content(here, sweep) == content == studies_content(source, sweep):
            raise DifferentError


def _copy(there: Connection, here: Connection, sweep: str) -> None:
    studies = _copied(here, STUDIES, list(_of_sweep(there, sweep)))
    for table in OF_STUDIES:
        _copied(here, table, _moved(_rows_of(there, table, sweep), "study_id", studies))
    trials = _copied(here, TRIALS, _moved(_rows_of(there, TRIALS, sweep), "study_id", studies))
    for start in range(0, len(trials), ROWS_AT_ONCE):  # SQLite gives numbers of deleted studies' trials out again
        some = list(trials.values())[start : start + ROWS_AT_ONCE]
        here.execute(delete(LEASES).where(LEASES.c.trial_id.in_(some)))
    for table in OF_TRIALS:
        _copied(here, table, _moved(_rows_of(there, table, sweep), "trial_id", trials))


def studies_content(engine: Engine, sweep: str) -> Mapping[str, Any]:
    """All that a database has of a sweep's studies, by their names, without its own numbers for them and for trials."""
    with engine.connect() as connection:
        return _content(connection, sweep)


def _content(connection: Connection, sweep: str) -> Mapping[str, Any]:
    names = {row["study_id"]: row["study_name"] for row in _of_sweep(connection, sweep)}
    content: dict[str, list[Any]] = {name: [] for name in names.values()}
    places: dict[int, tuple[str, int]] = {}  # of trials: study, and place in it
    for row in _rows_of(connection, TRIALS, sweep):
        name = names[row["study_id"]]
        places[row["trial_id"]] = name, len(content[name])
        content[name].append((TRIALS.name, len(content[name]), _plain(row, "study_id", "trial_id")))
    for table in OF_STUDIES:
        for row in _rows_of(connection, table, sweep):
            content[names[row["study_id"]]].append((table.name, _plain(row, "study_id", *_own_key(table))))
    for table in OF_TRIALS:
        for row in _rows_of(connection, table, sweep):
            name, place = places[row["trial_id"]]
            content[name].append((table.name, place, _plain(row, "trial_id", *_own_key(table))))
    return {name: sorted(map(repr, rows)) for name, rows in content.items()}


def rename_studies(engine: Engine, sweep: str, name: str) -> None:
    """Let a sweep's studies be those of another name."""
    with engine.begin() as connection:
        for row in list(_of_sweep(connection, sweep)):
            renamed = name + row["study_name"].removeprefix(sweep)
            connection.execute(update(STUDIES).where(STUDIES.c.study_id == row["study_id"]).values(study_name=renamed))


def _of_sweep(connection: Connection, sweep: str) -> Iterator[Mapping[str, Any]]:
    mine = in_sweep(sweep)
    for row in connection.execute(select(STUDIES).where(mine).order_by(STUDIES.c.study_id)).mappings():
        yield dict(row)


def _rows_of(connection: Connection, table: Table, sweep: str) -> Rows:
    """A table's rows of a sweep, oldest first."""
    if "study_id" in table.c:
        joined = table.join(STUDIES, STUDIES.c.study_id == table.c.study_id)
    else:
        joined = table.join(TRIALS, TRIALS.c.trial_id == table.c.trial_id).join(STUDIES)
    mine = in_sweep(sweep)
    query = select(table).select_from(joined).where(mine).order_by(*table.primary_key)
    return [dict(row) for row in connection.execute(query).mappings()]


def _moved(rows: Rows, key: str, numbers: Mapping[int, int]) -> Rows:
    """The rows with the other database's number of what they belong to."""
    return [{**row, key: numbers[row[key]]} for row in rows]


def _copied(connection: Connection, table: Table, rows: Rows) -> dict[int, int]:
    """Insert rows, numbered anew where the table numbers them; the new numbers by those of before."""
    own = _own_key(table)
    fresh = [{key: value for key, value in row.items() if key not in own} for row in rows]
    numbers: dict[int, int] = {}
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = fresh[start : start + ROWS_AT_ONCE]
        if not own:
            connection.execute(insert(table), some)
            continue
        (key,) = own
        made = connection.execute(insert(table).returning(table.c[key], sort_by_parameter_order=True), some)
        before = (row[key] for row in rows[start : start + ROWS_AT_ONCE])
        numbers |= dict(zip(before, made.scalars(), strict=True))
    return numbers


def _own_key(table: Table) -> tuple[str, ...]:
    """The column by which a database numbers a table's rows, if it does."""
    return tuple(column.name for column in table.primary_key if column is table.autoincrement_column)


def _plain(row: Mapping[str, Any], *without: str) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in row.items() if key not in without)
