"""What a run is, of all runs of a sweep at once: a server is asked as ever, a database in one query.

MLflow's client reads every param and last metric besides, which takes seconds per thousand runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optsweep.address import Address
from optsweep.tracking import names
from optsweep.tracking.store import runs

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow import MlflowClient

_TAGS = (names.KIND, names.ARM, names.PHASE, names.TRIAL, names.STATUS)
_NOW = {key: now for now, key in names.SEEN_BEFORE.items()}


@dataclass(frozen=True)
class RunHead:
    """A run, without what was measured in it."""

    run_id: str
    name: str
    is_open: bool  # to MLflow
    is_deleted: bool  # and can be restored
    tags: Mapping[str, str]  # those that say what it is

    @property
    def kind(self) -> str | None:
        """Sweep, arm or trial; None: it is somebody else's, or was never described."""
        return self.tags.get(names.KIND)

    @property
    def arm(self) -> str | None:
        """The arm that it is, or is of."""
        return self.tags.get(names.ARM)


def run_heads(client: MlflowClient, address: Address, experiment_id: str) -> list[RunHead]:
    """All runs of an experiment, deleted ones included, oldest first."""
    if not address.is_server:
        return _of_database(address, experiment_id)
    return [
        RunHead(
            str(run.info.run_id),
            run.info.run_name or "",
            run.info.status == "RUNNING",
            run.info.lifecycle_stage == "deleted",
            {key: text for key in _TAGS if (text := names.tag(run.data.tags, key)) is not None},
        )
        for run in runs(client, experiment_id, deleted=True)
    ]


def _of_database(address: Address, experiment_id: str) -> list[RunHead]:
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from sqlalchemy import and_, create_engine, select

    run, tag = SqlRun.__table__, SqlTag.__table__
    joined = run.outerjoin(tag, and_(tag.c.run_uuid == run.c.run_uuid, tag.c.key.in_((*_TAGS, *_NOW))))
    columns = (run.c.run_uuid, run.c.name, run.c.status, run.c.lifecycle_stage, tag.c.key, tag.c.value)
    mine = select(*columns).select_from(joined).where(run.c.experiment_id == int(experiment_id))
    engine = create_engine(address.text)
    with engine.connect() as connection:
        rows = connection.execute(mine.order_by(run.c.start_time, run.c.run_uuid)).all()
    engine.dispose()
    tags: dict[str, dict[str, str]] = {}
    found: dict[str, tuple[str, bool, bool]] = {}
    for run_id, name, status, stage, key, value in rows:
        found[run_id] = name or "", status == "RUNNING", stage == "deleted"
        tags.setdefault(run_id, {}).update({} if key is None else {_NOW.get(key, key): value})
    return [RunHead(run_id, *known, tags[run_id]) for run_id, known in found.items()]
