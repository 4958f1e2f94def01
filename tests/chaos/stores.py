"""What a sweep has left in its stores and its report, read as files: without a line of the product's own code."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPTUNA, MLFLOW = Path("mlruns/optuna.db"), Path("mlruns/mlflow.db")
ENDED = ("COMPLETE", "PRUNED")
MEASURED = ("cost/", "verdict/time_ratio")
"""Metrics that time or the machine decides."""

Slot = tuple[str, str, int, int]
"""(arm, phase, repeat, number)."""


@contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can't write. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5.0)) as connection:
        yield connection


@dataclass(frozen=True)
class Counts:
    """How far a sweep has come by its studies."""

    ended: int = 0
    running: int = 0


def counts(folder: Path) -> Counts:
    """Of all trials; none while the store is being made."""
    try:
        with reading(folder / OPTUNA) as connection:
            found = dict(connection.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall())
    except sqlite3.Error:
        return Counts()
    return Counts(sum(found.get(state, 0) for state in ENDED), found.get("RUNNING", 0))


def holds(folder: Path) -> Mapping[int, int]:
    """By process id of the workers that hold a trial: the most deaths in a row that one of their slots has had."""
    attributes = (
        "SELECT t.trial_id, t.study_id, t.state, a.key, a.value_json FROM trials t "
        "JOIN trial_user_attributes a USING (trial_id) WHERE a.key IN ('slot', 'died', 'excused') ORDER BY t.trial_id"
    )
    try:
        with reading(folder / OPTUNA) as connection:
            rows = connection.execute(attributes).fetchall()
            leases = connection.execute("SELECT trial_id, worker FROM optsweep_leases WHERE worker IS NOT NULL")
            workers = dict(leases.fetchall())
    except sqlite3.Error:
        return {}
    trials: dict[int, dict[str, Any]] = {}
    for trial, study, state, key, value in rows:
        trials.setdefault(trial, {"study": study, "state": state})[key] = json.loads(value)
    deaths: dict[tuple[int, int], int] = {}
    held: dict[int, int] = {}
    for trial, of in trials.items():
        slot = (of["study"], of.get("slot", -1))
        if of["state"] == "FAIL" and not of.get("excused"):
            deaths[slot] = deaths.get(slot, 0) + 1 if of.get("died") else 0
        elif of["state"] == "RUNNING" and trial in workers:
            pid = int(str(workers[trial]).split("/")[-2])
            held[pid] = max(held.get(pid, 0), deaths.get(slot, 0))
    return held


# -- results -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """One run of a slot in MLflow."""

    run: str
    status: str  # the run's own
    ended: str  # the tag
    params: Mapping[str, str]
    points: Mapping[tuple[str, int], Sequence[str]]  # (metric, step): values


@dataclass(frozen=True)
class Found:
    """Everything that was decided and found, of one sweep."""

    told: Mapping[Slot, Sequence[Mapping[str, str]]]  # in the studies; more than one is doubled
    attempts: Mapping[Slot, Sequence[Attempt]]  # in MLflow, without superseded ones
    states: Mapping[str, int]  # runs of all kinds by status
    curves: Mapping[str, Mapping[tuple[str, int], Sequence[str]]]  # of the arms' own runs
    report: Any = None  # results.json without what time and machine decide
    lacks: Sequence[str] = field(default_factory=tuple)  # of the report

    def current(self, slot: Slot) -> Sequence[Attempt]:
        """Runs of a slot that have a result."""
        return [a for a in self.attempts.get(slot, ()) if a.ended not in ("crashed", "running")]


def find(folder: Path, sweep: str) -> Found:
    """Read a sweep's stores and report. Raises sqlite3.Error."""
    with reading(folder / OPTUNA) as connection:
        told = _told(connection, sweep)
    with reading(folder / MLFLOW) as connection:
        attempts, states, curves = _runs(connection, sweep)
    report, lacks = read_report(folder, sweep)
    return Found(told, attempts, states, curves, report, lacks)


def _told(connection: sqlite3.Connection, sweep: str) -> dict[Slot, list[Mapping[str, str]]]:
    studies: dict[int, tuple[str, str, int]] = {}
    for study, name in connection.execute("SELECT study_id, study_name FROM studies").fetchall():
        of, *rest = name.split(" | ")
        if of == sweep and len(rest) in (2, 3):
            studies[study] = (rest[0], rest[1].lower(), int(rest[2]) if len(rest) == 3 else 0)
    decisive = ("params", "seed", "origin", "end", "test_loss", "test_blocks", "prune_above")
    found: dict[Slot, list[Mapping[str, str]]] = {}
    query = "SELECT trial_id, study_id, state FROM trials ORDER BY trial_id"
    for trial, study, state in connection.execute(query).fetchall():
        if study not in studies or state not in ENDED:
            continue
        attributes = dict(
            connection.execute("SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?", (trial,))
        )
        values = connection.execute("SELECT value, value_type FROM trial_values WHERE trial_id = ?", (trial,))
        rungs = connection.execute(
            "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = ? ORDER BY step", (trial,)
        )
        one = {key: attributes[key] for key in decisive if key in attributes}
        one |= {"state": state, "value": repr(values.fetchall()), "rungs": repr(rungs.fetchall())}
        found.setdefault((*studies[study], int(attributes["slot"])), []).append(one)
    return found


def _runs(connection: sqlite3.Connection, sweep: str) -> tuple[Any, Any, Any]:
    of_sweep = (
        "SELECT r.run_uuid FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id "
        "WHERE e.name = ? AND r.lifecycle_stage = 'active'"
    )
    status = dict(
        connection.execute(f"SELECT run_uuid, status FROM runs WHERE run_uuid IN ({of_sweep})", (sweep,)).fetchall()
    )
    tags, params = (_by_run(connection, table, of_sweep, sweep) for table in ("tags", "params"))
    points: dict[str, dict[tuple[str, int], list[str]]] = {}
    query = f"SELECT run_uuid, key, step, value, is_nan FROM metrics WHERE run_uuid IN ({of_sweep})"
    for run, key, step, value, is_nan in connection.execute(query, (sweep,)):
        if not key.startswith(MEASURED):
            points.setdefault(run, {}).setdefault((key, step), []).append("nan" if is_nan else repr(value))
    attempts: dict[Slot, list[Attempt]] = {}
    curves = {}
    states: dict[str, int] = {}
    for run, of in status.items():
        states[of] = states.get(of, 0) + 1
        held, kind = tags.get(run, {}), tags.get(run, {}).get("optsweep.kind")
        if kind == "arm" and "optsweep.phase" not in held:  # and not set aside
            curves[held.get("mlflow.optsweep.arm", "")] = points.get(run, {})
        if kind == "trial" and held.get("optsweep.phase") in ("search", "confirm"):
            own = params.get(run, {})
            slot = (held.get("mlflow.optsweep.arm", ""), held["optsweep.phase"], int(own["repeat"]), int(own["slot"]))
            attempt = Attempt(run, of, held.get("optsweep.status", ""), own, points.get(run, {}))
            attempts.setdefault(slot, []).append(attempt)
    return attempts, states, curves


def _by_run(connection: sqlite3.Connection, table: str, of_sweep: str, sweep: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    query = f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid IN ({of_sweep})"
    for run, key, value in connection.execute(query, (sweep,)):
        found.setdefault(run, {})[key] = value
    return found


# -- the report ----------------------------------------------------------------------------------------------------


def read_report(folder: Path, sweep: str) -> tuple[Any, list[str]]:
    """results.json without what time and machine decide, and what the report lacks to be complete."""
    at = folder / "reports" / sweep
    lacks = [name for name in ("index.html", "results.csv") if not (at / name).is_file()]
    try:
        content = json.loads((at / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, [*lacks, f"results.json ({type(error).__name__})"]
    if "index.html" not in lacks and not (at / "index.html").read_text().rstrip().endswith("</html>"):
        lacks.append("the end of index.html")
    for group in content["groups"]:
        if group["partial"]:
            lacks.append("trials (its group is partial)")
    for held in content["sweeps"]:
        lacks += [f"arm {label}" for label in held["arms_not_started"]]
    return decided(content), lacks


VOLATILE = frozenset(
    {
        *("run_id", "experiment_id", "environment", "sessions", "command", "config"),
        *("timing", "run_seconds", "seconds_ratio", "time_ratio", "cost/peak_bytes", "cost/train_seconds"),
        *("verdicts", "headline", "sentence", "figures", "lanes_found"),  # texts, which say what a step costs
    }
)
"""Keys of results.json that time, machine and addresses decide, and texts, which are made of the rest."""


def decided(content: Any) -> Any:
    """Without volatile keys, at any depth."""
    if isinstance(content, dict):
        return {key: decided(value) for key, value in content.items() if key not in VOLATILE}
    if isinstance(content, list):
        return [decided(value) for value in content]
    return content
