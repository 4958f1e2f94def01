"""How long a start takes to hold the two stores against each other.

    python benchmarks/stores.py 10000

A sweep of so many finished trials is made up, two arms of them, straight in the tables of both databases.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

from optsweep.launch.reconcile import reconcile
from optsweep.search.studies import Studies
from optsweep.tracking import names, store
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

ARMS = ("task=a optimizer=adamw schedule=cosine", "task=a optimizer=soap schedule=schedule_free")
METRICS = 10


def measure(folder: Path, count: int) -> tuple[float, float]:
    """Seconds of a look where nothing differs, and of one where every run is gone."""
    url, uri = f"sqlite:///{folder}/optuna.db", f"sqlite:///{folder}/mlflow.db"
    store.check(uri)
    tracker, studies = Tracker(uri, "many"), Studies.open(url, "many")
    tracker.sweep_run()
    parents = {arm: tracker.arm_run(arm, arm) for arm in ARMS}
    of = {arm: studies.ensure(arm, Phase.SEARCH) for arm in ARMS}
    heads = [
        TrialHead(ARMS[n % 2], Phase.SEARCH, n // 2, 0, "model", {"lr": 0.1, "weight_decay": 0.01}, id=uuid.uuid4().hex)
        for n in range(count)
    ]
    with closing(sqlite3.connect(folder / "optuna.db")) as connection, connection:
        _fill_studies(connection, of, heads)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        _fill_runs(connection, tracker.experiment_id, parents, heads)
    with studies.take_seat(ARMS, whole=True) as seat:
        begin = time.perf_counter()
        assert not reconcile(studies, seat, tracker, ARMS)
        alike = time.perf_counter() - begin
        empty = Tracker(uri, "empty")
        begin = time.perf_counter()
        assert len(reconcile(studies, seat, empty, ARMS).again) == count
        return alike, time.perf_counter() - begin


def _fill_studies(connection: sqlite3.Connection, of: dict[str, int], heads: list[TrialHead]) -> None:
    for n, head in enumerate(heads, 1):
        row = (n, n // 2, of[head.arm], "COMPLETE", "2026-01-01", "2026-01-01")
        connection.execute("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?)", row)
        attributes = {"id": head.id, "slot": head.slot, "params": dict(head.hyper), "seed": 0, "origin": "model"}
        attributes |= {"attempt": 0, "prune_above": {}, "end": "finished", "train_seconds": 1.0}
        rows = [(n, key, json.dumps(value)) for key, value in attributes.items()]
        insert = "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)"
        connection.executemany(insert, rows)


def _fill_runs(
    connection: sqlite3.Connection, experiment: str, parents: dict[str, str], heads: list[TrialHead]
) -> None:
    for head in heads:
        run = uuid.uuid4().hex
        connection.execute(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, experiment_id) "
            "VALUES (?, 'a trial', 'me', 'FINISHED', 1, 'active', ?)",
            (run, experiment),
        )
        tags = {**head.tags(), names.STATUS: "finished", names.PARENT: parents[head.arm], names.RUN_NAME: "a trial"}
        rows = [(key, value, run) for key, value in tags.items()]
        connection.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", rows)
        rows = [(key, value, run) for key, value in head.params().items()]
        connection.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", rows)
        last = [(f"metric {n}", 1.0, 1, 1, 0, run) for n in range(METRICS)]
        insert = "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
        connection.executemany(insert, last)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        alike, gone = measure(Path(made), int(sys.argv[1]))
    print(f"{sys.argv[1]} trials: {alike:.1f} s where nothing differs, {gone:.1f} s where every run is gone")
