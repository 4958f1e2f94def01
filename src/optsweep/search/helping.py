"""Processes that help a sweep from elsewhere: known to its storage for as long as they say so, told when it is done."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, Float, and_, delete, exists, insert, literal, select, update
from sqlalchemy.exc import SQLAlchemyError

from optsweep.search.heartbeat import Heartbeat
from optsweep.search.overview import in_sweep
from optsweep.search.ownership import Claim
from optsweep.search.process import machine_of, process_name
from optsweep.search.study_names import StudyName
from optsweep.search.tables import HELPERS, LEASES, NOTES, SEATS, STUDIES, clock
from optsweep.train.trial import Phase

HELP_SECONDS = 60.0
"""How long a process counts as helping that isn't heard of."""

FORGET_SECONDS = 3600.0
"""How long it is remembered from then on: what its workers had may still be in their hands, as far as that is known."""


class Help:
    """A process's `workers` for a sweep. Within it the storage knows of them."""

    def __init__(self, engine: Engine, sweep: str, workers: int) -> None:
        self._engine, self._clock, self.sweep, self.workers = engine, clock(engine), sweep, workers
        self._process = process_name()
        self._heartbeat = Heartbeat(self._beat)

    def __enter__(self) -> Help:
        self._beat()
        self._heartbeat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._heartbeat.stop()
        with suppress(SQLAlchemyError), self._engine.begin() as connection:  # it runs out by itself
            connection.execute(delete(HELPERS).where(*self._mine))

    @property
    def _mine(self) -> tuple[Any, ...]:
        return HELPERS.c.sweep == self.sweep, HELPERS.c.process == self._process

    def _beat(self) -> None:
        values = {"workers": self.workers, "expires": self._clock + HELP_SECONDS}
        with self._engine.begin() as connection:
            connection.execute(delete(HELPERS).where(HELPERS.c.expires < self._clock - FORGET_SECONDS))
            if not connection.execute(update(HELPERS).where(*self._mine).values(values)).rowcount:
                connection.execute(insert(HELPERS).values(sweep=self.sweep, process=self._process, **values))

    def planner(self) -> float | None:
        """Since when the sweep has the planner that it has, by the database's clock; None where it has none."""
        held = (SEATS.c.sweep == self.sweep, SEATS.c.holder.is_not(None), SEATS.c.expires > self._clock)
        with self._engine.connect() as connection:
            return connection.scalar(select(SEATS.c.since).where(*held).order_by(SEATS.c.since.desc()).limit(1))

    def held_by(self, workers: Collection[str]) -> list[Claim]:
        """The trials that workers of these names have."""
        mine = select(LEASES.c.trial_id, LEASES.c.token).where(LEASES.c.worker.in_(list(workers)))
        with self._engine.connect() as connection:
            return [Claim(*row) for row in connection.execute(mine)]


def lost_machines(engine: Engine, sweep: str) -> set[str]:
    """Where somebody has helped, or planned, who isn't heard of any more, and nobody else does."""
    now = clock(engine)
    helped = select(HELPERS.c.process, HELPERS.c.expires - now).where(HELPERS.c.sweep == sweep)
    planned = select(SEATS.c.holder, SEATS.c.expires - now).where(SEATS.c.sweep == sweep, SEATS.c.holder.is_not(None))
    with engine.connect() as connection:
        found = [(machine_of(name), left) for query in (helped, planned) for name, left in connection.execute(query)]
    return {machine for machine, left in found if left < 0} - {machine for machine, left in found if left >= 0}


def remember_lost(connection: Connection, sweep: str, processes: Mapping[str, float]) -> None:
    """Note processes whose seat was taken, with when that had run out: their machines may be gone."""
    for process, expires in processes.items():
        known = exists().where(HELPERS.c.sweep == sweep, HELPERS.c.process == process)
        row = select(literal(sweep), literal(process), literal(0), literal(expires, Float(53))).where(~known)
        connection.execute(insert(HELPERS).from_select(["sweep", "process", "workers", "expires"], row))


def notes(engine: Engine, sweep: str, keys: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
    """What is noted of a sweep's arms under these keys, by arm, by one query; of further repeats nothing."""
    mine = and_(in_sweep(sweep), NOTES.c.key.in_(list(keys)))
    query = select(STUDIES.c.study_name, NOTES.c.key, NOTES.c.value_json).join(NOTES).where(mine)
    found: dict[str, dict[str, Any]] = {}
    with engine.connect() as connection:
        for name, key, value in connection.execute(query.order_by(STUDIES.c.study_id)):
            study = StudyName.read(name)
            if study is not None and (study.phase, study.repeat) == (Phase.SEARCH, 0):
                found.setdefault(study.arm, {})[key] = json.loads(value)
    return found
