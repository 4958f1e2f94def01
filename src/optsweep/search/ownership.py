"""Who owns a trial: a lease in a table beside Optuna's (tables.py), in the same database.

Every change of a trial's owner or state is one transaction. Its first statement is one conditional UPDATE of the
trial's lease, which names the token that the caller was given; the row count says whether the caller was in time, and
whatever belongs to the change (state, value, attributes) becomes visible with it or not at all. Nothing is read before
it, so two processes can't both be first: SQLite has one writer at a time, PostgreSQL locks the row and looks at the
condition again. Time is the database's: hosts' clocks differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import TrialState
from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from optsweep.search.tables import LEASES, MOST_NAMED, RUNGS, TRIALS, USER_ATTRIBUTES, VALUES, clock


class LeaseLostError(Exception):
    """The trial has changed hands: whoever had it must drop it."""


@dataclass(frozen=True)
class Claim:
    """One process's hold on one trial, void as soon as the trial changes hands."""

    trial_id: int
    token: int


@dataclass(frozen=True)
class Lease:
    """A claim as the storage has it."""

    claim: Claim
    worker: str
    step: int
    expired: bool  # by the database's clock
    left: float = 0.0  # seconds until then


def utc() -> datetime:
    """Now, as Optuna stores it; nothing is decided by it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Ownership:
    """The leases of all trials in a database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clock = clock(engine)

    def offer(self, connection: Connection, trial_id: int) -> None:
        """Put a new trial up for whoever claims it first, in the transaction that makes it.

        SQLite gives the number of a deleted study's trial to a new one: the old lease begins anew then, and its token
        counts on, so that whoever held it holds nothing.
        """
        anew = (
            update(LEASES)
            .where(LEASES.c.trial_id == trial_id)
            .values(worker=None, token=LEASES.c.token + 1, expires=None, step=0)
        )
        if not connection.execute(anew).rowcount:
            connection.execute(insert(LEASES).values(trial_id=trial_id, token=0, step=0))

    def claim(self, trial_id: int, worker: str, lease: float) -> Claim:
        """Take a waiting trial for `lease` seconds. Raises LeaseLostError if somebody else has it."""
        take = (
            update(LEASES)
            .where(LEASES.c.trial_id == trial_id, LEASES.c.worker.is_(None))
            .values(worker=worker, token=LEASES.c.token + 1, expires=self._clock + lease, step=0)
        )
        with self._engine.begin() as connection:
            _one(connection, take)
            _move(connection, trial_id, TrialState.WAITING, TrialState.RUNNING, datetime_start=utc())
            token = connection.scalar(select(LEASES.c.token).where(LEASES.c.trial_id == trial_id))
        assert token is not None
        return Claim(trial_id, token)

    def renew(self, claim: Claim, lease: float) -> None:
        """Keep a trial for `lease` seconds from now. Raises LeaseLostError if it has changed hands."""
        with self._holding(claim, expires=self._clock + lease):
            pass

    def report(self, claim: Claim, step: int, value: float, lease: float) -> None:
        """Write a rung, and keep the trial. Raises LeaseLostError if it has changed hands."""
        stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        with self._holding(claim, expires=self._clock + lease, step=step) as connection:
            connection.execute(delete(RUNGS).where(RUNGS.c.trial_id == claim.trial_id, RUNGS.c.step == step))
            row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
            connection.execute(insert(RUNGS).values(trial_id=claim.trial_id, **row))

    def end(
        self,
        claim: Claim,
        state: TrialState,
        attributes: Mapping[str, Any],
        value: float | None = None,
        *,
        if_left: float | None = None,
    ) -> None:
        """End a trial, with everything that is known of it. Raises LeaseLostError if it has changed hands.

        With `if_left` also if its lease has as many seconds left; 0: if it has not run out (any more).
        """
        conditions = [] if if_left is None else [LEASES.c.expires < self._clock + if_left]
        with self._holding(claim, *conditions, worker=None, token=LEASES.c.token + 1) as connection:
            _move(connection, claim.trial_id, TrialState.RUNNING, state, datetime_complete=utc())
            for key, content in attributes.items():
                row = {"trial_id": claim.trial_id, "key": key, "value_json": json.dumps(content)}
                connection.execute(insert(USER_ATTRIBUTES).values(row))
            if value is not None:
                stored, kind = TrialValueModel.value_to_stored_repr(value)
                row = {"trial_id": claim.trial_id, "objective": 0, "value": stored, "value_type": kind}
                connection.execute(insert(VALUES).values(row))

    def leases(self, trials: Sequence[int]) -> Mapping[int, Lease]:
        """The leases of those of these trials that are in somebody's hands, by trial."""
        columns = (LEASES.c.trial_id, LEASES.c.token, LEASES.c.worker, LEASES.c.step)
        query = select(*columns, LEASES.c.expires - self._clock).where(LEASES.c.worker.is_not(None))
        found: dict[int, Lease] = {}
        for start in range(0, len(trials), MOST_NAMED):
            with self._engine.connect() as connection:
                rows = connection.execute(query.where(LEASES.c.trial_id.in_(trials[start : start + MOST_NAMED])))
                for trial, token, worker, step, left in rows:
                    found[trial] = Lease(Claim(trial, token), worker, step, left < 0, float(left))
        return found

    @contextmanager
    def _holding(self, claim: Claim, *conditions: ColumnElement[bool], **values: Any) -> Iterator[Connection]:
        """A transaction that begins by changing the lease, if the claim is good; else LeaseLostError."""
        good = (LEASES.c.trial_id == claim.trial_id, LEASES.c.token == claim.token, *conditions)
        with self._engine.begin() as connection:
            _one(connection, update(LEASES).where(*good).values(**values))
            yield connection


def _move(connection: Connection, trial_id: int, before: TrialState, after: TrialState, **times: datetime) -> None:
    """Change the state of a trial whose lease this transaction holds."""
    where = (TRIALS.c.trial_id == trial_id, TRIALS.c.state == before)
    _one(connection, update(TRIALS).where(*where).values(state=after, **times))


def _one(connection: Connection, change: Any) -> None:
    if connection.execute(change).rowcount != 1:
        raise LeaseLostError  # leaves the transaction, which is rolled back
