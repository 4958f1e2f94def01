"""Reads the runs of any MLflow experiment as flat rows, whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from optsweep.errors import UserError
from optsweep.tracking.reader import infinity
from optsweep.tracking.store import SweepNotFound, check_store, client, find_experiment, runs

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow import MlflowClient
    from mlflow.entities import Run

Row = Mapping[str, object]


def experiment_rows(uri: str, experiment: str, history: tuple[str, str] | None = None) -> list[tuple[str, Row]]:
    """(name of the run, its columns): `run_id`, `name`, `status`, `params.KEY`, `metrics.KEY`, `tags.KEY`.

    With `history`, (metric, name of the column of steps), a row per logged point of that metric. Raises UserError for a
    store or an experiment that isn't there.
    """
    try:
        check_store(uri)
        opened = client(uri)
        found = runs(opened, find_experiment(opened, experiment))
    except SweepNotFound as error:
        said = str(error).replace("; run a sweep first, or name another store", "").replace("sweep", "experiment")
        raise UserError(f"mlflow:{experiment}: {said}") from None
    rows: list[tuple[str, Row]] = []
    for run in found:
        own = _columns(run)
        points = _points(opened, run, *history) if history else [{}]
        rows += [(run.info.run_name or run.info.run_id, {**own, **point}) for point in points]
    return rows


def _columns(run: Run) -> dict[str, object]:
    data = run.data
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name or "",
        "status": run.info.status,
        **{f"params.{key}": value for key, value in data.params.items()},
        **{f"tags.{key}": value for key, value in data.tags.items() if not key.startswith("mlflow.")},
        **{f"metrics.{key}": infinity(value) for key, value in data.metrics.items()},
    }


def _points(client: MlflowClient, run: Run, metric: str, step: str) -> Iterator[dict[str, object]]:
    """The history of a metric; of a step that was logged twice, the last."""
    if metric not in run.data.metrics:
        return
    history = sorted(
        client.get_metric_history(run.info.run_id, metric), key=lambda point: (point.step, point.timestamp)
    )
    for at, value in {point.step: infinity(point.value) for point in history}.items():
        yield {step: at, f"metrics.{metric}": value}
