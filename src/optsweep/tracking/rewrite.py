"""Takes back what MLflow's client can't: params and points of a run that summarises others, and changes with them.

A database is told by MLflow's own table definitions; a server has no such call, and keeps what it was told first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from optsweep.address import TRACKING_KEY, read_address
from optsweep.tracking.contents import histories
from optsweep.tracking.records import MetricPoint
from optsweep.tracking.writer import Tracker

TRIES = 4

_WRITTEN_BY_ANOTHER = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
"""What MLflow says of a param that has another value by now, and of a row that has come to be in the same moment."""


def rewrite_curves(tracker: Tracker, run_id: str, points: Sequence[MetricPoint]) -> None:
    """Let these curves of a run be just these points; on a server points of before stay beside them."""
    wanted: dict[str, list[tuple[int, float]]] = {}
    for key, value, _, step in points:
        wanted.setdefault(key, []).append((step, value))
    held = histories(tracker.client, {run_id: list(wanted)})
    stale = [key for key in wanted if list(held[run_id, key]) != sorted(wanted[key])]
    _forget(tracker, run_id, curves=[key for key in stale if held[run_id, key]])
    tracker.log_points(run_id, [point for point in points if point[0] in stale])


def rewrite_params(tracker: Tracker, run_id: str, params: Mapping[str, object]) -> None:
    """Let these params of a run have these values; on a server one that was said before stays as it was."""

    def write() -> None:
        held = tracker.client.get_run(run_id).data.params
        stale = [key for key, value in params.items() if held.get(key, str(value)) != str(value)]
        _forget(tracker, run_id, params=stale)
        tracker.set_params(run_id, params)

    beside_others(write)


def beside_others(write: Callable[[], None]) -> None:
    """Write what another process may be writing too, as jobs of a stock launcher do: who comes second tries again."""
    from mlflow.exceptions import MlflowException

    for _ in range(TRIES):
        try:
            return write()
        except MlflowException as error:
            if error.error_code not in _WRITTEN_BY_ANOTHER:
                raise
    return write()


def _forget(tracker: Tracker, run_id: str, *, params: Collection[str] = (), curves: Collection[str] = ()) -> None:
    address = read_address(TRACKING_KEY, tracker.client.tracking_uri)
    if address.is_server or not (params or curves):
        return
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam
    from sqlalchemy import create_engine, delete

    engine = create_engine(address.text)
    with engine.begin() as connection:
        for model, keys in ((SqlParam, params), (SqlMetric, curves), (SqlLatestMetric, curves)):
            table = model.__table__
            connection.execute(delete(table).where(table.c.run_uuid == run_id, table.c.key.in_(list(keys))))
    engine.dispose()
