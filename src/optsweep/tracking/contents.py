"""Runs with all that stands in them, and histories of many metrics: a server is asked for many, a database at once.

MLflow's client makes an object of every tag, param and value on the way, and reads one history a call, for each of
which SQLite goes over all points that any run has of that metric.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optsweep.address import TRACKING_KEY, read_address
from optsweep.tracking.records import MetricPoint
from optsweep.tracking.served import served_points
from optsweep.tracking.store import runs

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient
    from sqlalchemy import Connection

History = Sequence[tuple[int, float]]
"""(step, value) by step, those of one step as they were logged; infinity is MLflow's largest float."""

_RUNS_PER_QUERY = 500


def whole_runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """The runs of an experiment, oldest first, with tags, params and last metrics."""
    with _database(client) as connection:
        return runs(client, experiment_id) if connection is None else _runs_of(connection, int(experiment_id))


def histories(client: MlflowClient, wanted: Mapping[str, Sequence[str]]) -> Mapping[tuple[str, str], History]:
    """Histories by run and metric, of the metrics that are wanted of each run; of one that was never logged none."""
    with _database(client) as connection:
        if connection is not None:
            return _histories_of(connection, wanted)
    found = {}
    for (run_id, key), points in served_points(client, wanted).items():
        ordered = sorted(points, key=lambda point: (point[3], point[2]))
        found[run_id, key] = [(step, value) for _, value, _, step in ordered]
    return found


def all_points(client: MlflowClient, of: Sequence[Run]) -> Mapping[str, list[MetricPoint]]:
    """All points of all curves of runs, by run."""
    found: dict[str, list[MetricPoint]] = {str(run.info.run_id): [] for run in of}
    with _database(client) as connection:
        if connection is not None:
            _add_points(connection, found)
            return found
    for (run_id, _), points in served_points(client, {run.info.run_id: list(run.data.metrics) for run in of}).items():
        found[run_id] += points
    return found


def _add_points(connection: Connection, found: Mapping[str, list[MetricPoint]]) -> None:
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import select

    point = SqlMetric.__table__.c
    columns = select(point.run_uuid, point.key, point.value, point.timestamp, point.step, point.is_nan)
    for start in range(0, len(found), _RUNS_PER_QUERY):
        some = list(found)[start : start + _RUNS_PER_QUERY]
        for run_id, key, value, time, step, nan in connection.execute(columns.where(point.run_uuid.in_(some))):
            found[run_id].append((key, _value(value, nan), time, step))


@contextlib.contextmanager
def _database(client: MlflowClient) -> Iterator[Connection | None]:
    """A connection of its own to the database that the client writes to; None if it talks to a server."""
    address = read_address(TRACKING_KEY, client.tracking_uri)
    if address.is_server:
        yield None
        return
    from sqlalchemy import create_engine

    engine = create_engine(address.text)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _runs_of(connection: Connection, experiment: int) -> list[Run]:
    """In the order of `store.runs`."""
    from mlflow.entities import LifecycleStage, Metric, Param, Run, RunData, RunInfo, RunTag
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import select

    run = SqlRun.__table__.c
    mine = (run.experiment_id == experiment) & (run.lifecycle_stage == LifecycleStage.ACTIVE)

    def of_each(table: Any, *columns: str) -> dict[str, list[Any]]:
        rows = select(*(table.c[name] for name in ("run_uuid", *columns))).join(SqlRun.__table__).where(mine)
        held: dict[str, list[Any]] = {}
        for run_id, *row in connection.execute(rows):
            held.setdefault(run_id, []).append(row)
        return held

    tags, params = (of_each(table.__table__, "key", "value") for table in (SqlTag, SqlParam))
    metrics = of_each(SqlLatestMetric.__table__, "key", "value", "timestamp", "step", "is_nan")
    found = []
    for row in connection.execute(select(SqlRun.__table__).where(mine)).mappings():
        run_id = row["run_uuid"]
        named = {"run_id": run_id, "experiment_id": str(experiment), "run_name": row["name"]}
        same = ("user_id", "status", "start_time", "end_time", "lifecycle_stage", "artifact_uri")
        data = RunData(
            [Metric(key, _value(value, nan), *at) for key, value, *at, nan in metrics.get(run_id, [])],
            [Param(*pair) for pair in params.get(run_id, [])],
            [RunTag(*pair) for pair in tags.get(run_id, [])],
        )
        found.append(Run(RunInfo(**named, **{key: row[key] for key in same}), data))
    return sorted(found, key=lambda run: (run.info.start_time or 0, run.info.run_id))


def _histories_of(connection: Connection, wanted: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], History]:
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import select

    point = SqlMetric.__table__.c
    keys = sorted({key for own in wanted.values() for key in own})
    found: dict[tuple[str, str], list[tuple[int, float]]] = {(run, key): [] for run in wanted for key in wanted[run]}
    columns = select(point.run_uuid, point.key, point.step, point.value, point.is_nan)
    order = point.run_uuid, point.key, point.step, point.timestamp, point.value
    for start in range(0, len(wanted), _RUNS_PER_QUERY):
        some = list(wanted)[start : start + _RUNS_PER_QUERY]
        rows = columns.where(point.run_uuid.in_(some), point.key.in_(keys)).order_by(*order)
        for run_id, key, step, value, nan in connection.execute(rows):
            if (history := found.get((run_id, key))) is not None:
                history.append((step, _value(value, nan)))
    return dict(found)


def _value(stored: float, is_nan: bool) -> float:
    return float("nan") if is_nan else stored
