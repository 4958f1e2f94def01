"""Trials' runs with all that is in them, by one transaction: into a database, by MLflow's own table definitions.

MLflow's client makes one in four sessions, seven commits and an object for each point (benchmarks/NOTES.md).
"""

from __future__ import annotations

import math
import re
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optsweep.address import Address
from optsweep.tracking import names
from optsweep.tracking.records import MetricPoint

if TYPE_CHECKING:  # importing them costs seconds
    from sqlalchemy import Engine

LOCK_SECONDS = 20
"""To wait for another process's write, as MLflow does."""

MOST_IN_NAME, MOST_IN_PARAM, MOST_IN_TAG = 250, 6_000, 8_000
"""Characters that MLflow takes."""

_PLAIN_NAME = re.compile(r"\w[\w.\- ]*(/\w[\w.\- ]*)*")
"""Names to which MLflow surely has no objection; whether it has to others its client is to say."""

_LARGEST = 1.7976931348623157e308
"""As which MLflow stores infinity."""


@dataclass(frozen=True)
class WholeRun:
    """A run that has ended."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[MetricPoint]
    status: str
    start: int  # milliseconds since 1970, as `end`
    end: int

    @property
    def is_plain(self) -> bool:
        """Whether all of it is surely as MLflow wants it."""
        keys = {*self.tags, *self.params, *(point[0] for point in self.points)}
        return (
            all(len(key) <= MOST_IN_NAME and _PLAIN_NAME.fullmatch(key) for key in keys)
            and 0 < len(self.name) <= MOST_IN_NAME
            and all(len(text) <= MOST_IN_TAG for text in self.tags.values())
            and all(len(text) <= MOST_IN_PARAM for text in self.params.values())
        )


class Database:
    """The database of a tracking store, for whole runs."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @cached_property
    def _engine(self) -> Engine:
        from sqlalchemy import NullPool, create_engine

        if (file := self.address.file) is None:
            return create_engine(
                self.address.text, pool_size=1, pool_pre_ping=True
            )  # to connect takes longer than a run
        there = f"{file.absolute().as_uri()}?mode=rw"  # one that is gone isn't made anew
        return create_engine(
            "sqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(there, uri=True, timeout=LOCK_SECONDS)
        )

    def add(self, experiment_id: str, runs: Sequence[WholeRun]) -> list[str]:
        """Make runs, all of them or nothing; returns their ids.

        None are made where that is for MLflow's client to do, or to refuse.
        """
        from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLatestMetric, SqlMetric, SqlParam, SqlTag
        from mlflow.store.tracking.dbmodels.models import SqlRun as Run
        from sqlalchemy import insert, select

        if not all(run.is_plain for run in runs):
            return []
        experiment = SqlExperiment.__table__.c
        number = int(experiment_id)
        where = select(experiment.artifact_location, experiment.lifecycle_stage)
        with self._engine.begin() as connection:
            found = connection.execute(where.where(experiment.experiment_id == number)).one_or_none()
            if found is None or found.lifecycle_stage != "active":
                return []
            heads = [_head(run, number, found.artifact_location) for run in runs]
            points = [_points(run.points) for run in runs]
            ids = [str(head["run_uuid"]) for head in heads]
            tables: Sequence[tuple[Any, Sequence[Sequence[Mapping[str, Any]]]]] = (
                (Run.__table__, [[head] for head in heads]),
                (SqlTag.__table__, [_pairs({**run.tags, names.RUN_NAME: run.name}) for run in runs]),
                (SqlParam.__table__, [_pairs(run.params) for run in runs]),
                (SqlMetric.__table__, points),
                (SqlLatestMetric.__table__, [_latest(of) for of in points]),
            )
            for table, parts in tables:
                rows = [{**row, "run_uuid": run_id} for run_id, part in zip(ids, parts, strict=True) for row in part]
                if rows:
                    connection.execute(insert(table), rows)
        return ids


def _head(run: WholeRun, experiment: int, location: str) -> dict[str, Any]:
    """As MLflow's client makes it, and ends it."""
    from mlflow.utils.uri import append_to_uri_path

    joined: Any = append_to_uri_path  # which has no types
    run_id = uuid.uuid4().hex
    return {
        "run_uuid": run_id,
        "experiment_id": experiment,
        "name": run.name,
        "artifact_uri": joined(location, run_id, "artifacts"),
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": run.tags.get("mlflow.user", "unknown"),
        "status": run.status,
        "start_time": run.start,
        "end_time": run.end,
        "lifecycle_stage": "active",
    }


def _pairs(of: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": text} for key, text in of.items()]


def _points(points: Iterable[MetricPoint]) -> list[dict[str, Any]]:
    """As MLflow stores them, each once."""
    stored = dict.fromkeys((key, *_stored(value), time, step) for key, value, time, step in points)
    fields = ("key", "value", "is_nan", "timestamp", "step")
    return [dict(zip(fields, point, strict=True)) for point in stored]


def _stored(value: float) -> tuple[float, bool]:
    if math.isnan(value):
        return 0.0, True
    return max(-_LARGEST, min(_LARGEST, value)), False


def _latest(points: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last point of each curve, by MLflow's order."""
    found: dict[str, Mapping[str, Any]] = {}
    for point in points:
        held = found.setdefault(point["key"], point)
        if _order(point) > _order(held):
            found[point["key"]] = point
    return list(found.values())


def _order(point: Mapping[str, Any]) -> tuple[int, int, float]:
    return point["step"], point["timestamp"], point["value"]
