"""What a database gives at once is what MLflow's client gives run by run and metric by metric."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Param, Run, RunTag

from optsweep.tracking import contents, store
from optsweep.tracking.contents import histories, whole_runs
from optsweep.tracking.writer import Tracker

POINTS = {
    "twice": [(1.0, 10, 1), (2.0, 30, 2), (3.0, 20, 2), (5.0, 40, 3), (4.0, 40, 3)],  # (value, timestamp, step)
    "unordered": [(1.0, 5, 9), (2.0, 6, 3)],
    "odd": [(math.nan, 1, 0), (math.inf, 2, 1), (-math.inf, 3, 2), (0.1 + 0.2, 4, 3)],
}


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store.check(uri)
    made, other = Tracker(uri, "mine"), Tracker(uri, "another")
    for owner, name, keys in (
        (made, "all", POINTS),
        (made, "one", ["twice"]),
        (made, "bare", []),
        (other, "o", POINTS),
    ):
        run_id = owner.client.create_run(owner.experiment_id, run_name=name, tags={}).info.run_id
        owner.client.log_batch(
            run_id,
            metrics=[Metric(key, *point) for key in keys for point in POINTS[key]],
            params=[Param("lr", "1e-3"), Param("empty", "")],
            tags=[RunTag("λ", "a'b\n")],
        )
    made.end(run_id := made.client.create_run(made.experiment_id).info.run_id)
    made.client.delete_run(run_id)
    return made


def test_runs(tracker: Tracker) -> None:
    found = whole_runs(tracker.client, tracker.experiment_id)
    assert len(found) == 3
    assert [_told(run) for run in found] == [_told(run) for run in store.runs(tracker.client, tracker.experiment_id)]


def test_histories(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {run.info.run_id: [*POINTS, "never"] for run in whole_runs(tracker.client, tracker.experiment_id)}
    monkeypatch.setattr(contents, "_RUNS_PER_QUERY", 2)
    at_once = histories(tracker.client, wanted)

    @contextlib.contextmanager
    def a_server(client: object) -> Iterator[None]:
        yield None

    monkeypatch.setattr(contents, "_database", a_server)
    one_by_one = histories(tracker.client, wanted)
    assert repr(sorted(at_once.items())) == repr(sorted(one_by_one.items()))
    assert sorted(len(history) for history in at_once.values()) == [0] * 8 + [2, 4, 5, 5]


def _told(run: Run) -> tuple[Any, ...]:
    data: Any = run.data
    return dict(run.info), *(repr(sorted(part.items())) for part in (data.tags, data.params, data.metrics))
