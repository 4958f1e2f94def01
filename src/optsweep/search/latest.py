"""Curves of trials in training, for whoever looks on from any machine: the latest word of each, until it ends.

Nothing is decided by them and nothing is lost with them: what a trial came to is in its study and in MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState
from sqlalchemy import Engine, delete, insert, select, update

from optsweep.search.ownership import Claim
from optsweep.search.tables import CURVES, LEASES, TRIALS

MOST_POINTS = 60
"""Of a curve that is told, or one more; those between are left out evenly, the first and the last never."""

Points = Sequence[tuple[int, float]]
"""Steps and values."""


@dataclass(frozen=True)
class Latest:
    """How far a trial in training is, as its worker last said."""

    val: Points = ()
    train: Points = ()

    @staticmethod
    def of(val: Iterable[tuple[int, float]], train: Iterable[tuple[int, float]]) -> Latest:
        """Of all its points."""
        return Latest(_thinned(list(val)), _thinned(list(train)))


def write_latest(engine: Engine, told: Mapping[Claim, Latest], ended: Collection[Claim] = ()) -> None:
    """Tell of trials in training, and forget those that have ended, by one transaction."""
    with engine.begin() as connection:
        for claim, latest in told.items():
            values = {"token": claim.token, "points": json.dumps([latest.val, latest.train])}
            mine = CURVES.c.trial_id == claim.trial_id
            if not connection.execute(update(CURVES).where(mine).values(values)).rowcount:
                connection.execute(insert(CURVES).values(trial_id=claim.trial_id, **values))
        for claim in ended:
            mine = CURVES.c.trial_id == claim.trial_id
            connection.execute(delete(CURVES).where(mine, CURVES.c.token == claim.token))


def forget_ended(engine: Engine) -> None:
    """Forget trials that are in training no more, of whose ends nobody told: their workers have died, or left."""
    running = select(TRIALS.c.trial_id).where(
        TRIALS.c.trial_id == CURVES.c.trial_id, TRIALS.c.state == TrialState.RUNNING
    )
    with engine.begin() as connection:
        connection.execute(delete(CURVES).where(~running.correlate(CURVES).exists()))


def read_latest(engine: Engine, studies: Collection[int]) -> Mapping[int, Latest]:
    """Of those trials of studies that are in training, by trial; one of which nothing was told yet is left out."""
    query = (
        select(CURVES.c.trial_id, CURVES.c.points)
        .join(TRIALS, TRIALS.c.trial_id == CURVES.c.trial_id)
        .join(LEASES, (LEASES.c.trial_id == CURVES.c.trial_id) & (LEASES.c.token == CURVES.c.token))
        .where(TRIALS.c.study_id.in_(studies), LEASES.c.worker.is_not(None))
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return {
        trial: Latest(*([(int(s), float(v)) for s, v in part] for part in json.loads(said))) for trial, said in rows
    }


def _thinned(points: list[tuple[int, float]]) -> Points:
    every = -(-len(points) // MOST_POINTS)
    return points if every < 2 else [*points[:1], *points[-1:0:-every][::-1]]
