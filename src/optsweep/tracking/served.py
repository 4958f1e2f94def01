"""Histories of many runs from an MLflow server, many a call.

MLflow's client asks for one run's one metric at a time, ten milliseconds each. The page of its server asks for those
of many runs at once, and so does this; a server that doesn't know the question, or has more to say than it does at
once, is asked as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optsweep.tracking.records import MetricPoint

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow.tracking import MlflowClient

_ASKED = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"

RUNS_AT_ONCE = 50
"""Of the 100 that it takes: their ids stand in the address, which gateways cut off somewhere from four kilobytes on."""

MOST_POINTS = 25_000
"""That it tells at once; whether there were more it doesn't say."""

Points = Mapping[tuple[str, str], Sequence[MetricPoint]]


def served_points(client: MlflowClient, wanted: Mapping[str, Sequence[str]]) -> Points:
    """All points by run and metric, of the metrics that are wanted of each run; of one that was never logged none."""
    found: dict[tuple[str, str], list[MetricPoint]] = {(run, key): [] for run in wanted for key in wanted[run]}
    runs: dict[str, list[str]] = {}
    for run, key in found:
        runs.setdefault(key, []).append(run)
    for key, of in runs.items():
        for start in range(0, len(of), RUNS_AT_ONCE):
            some = of[start : start + RUNS_AT_ONCE]
            for run, point in _asked(client, some, key) or _one_by_one(client, some, key):
                found[run, key].append(point)
    return found


def _asked(client: MlflowClient, runs: Sequence[str], key: str) -> Sequence[tuple[str, MetricPoint]]:
    """Those of these runs; nothing where that can't be asked, or isn't told whole."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.rest_utils import http_request

    store = client._tracking_client.store
    if not isinstance(store, RestStore):
        return []
    credentials = store.get_host_creds()
    try:
        answer: Any = http_request(credentials, _ASKED, "GET", params={"run_id": list(runs), "metric_key": key})  # type: ignore[no-untyped-call]
        told = answer.json()["metrics"] if answer.status_code == 200 else []
    except (MlflowException, ValueError, KeyError, TypeError):
        return []
    if len(told) >= MOST_POINTS:
        return []
    return [(of["run_id"], (key, float(of["value"]), int(of["timestamp"]), int(of["step"]))) for of in told]


def _one_by_one(client: MlflowClient, runs: Sequence[str], key: str) -> Sequence[tuple[str, MetricPoint]]:
    return [
        (run, (key, point.value, point.timestamp, point.step))
        for run in runs
        for point in client.get_metric_history(run, key)
    ]
