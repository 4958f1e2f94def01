"""MLflow: what is written, and when. Names are in tracking_names.py.

Curves are buffered and sent at rungs, every two seconds at most. A trial's run is closed before its study is told, so
a told trial is always complete here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.errors import UserError, without_secrets
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run, RunTag

    from optsweep.train.trial import Outcome, Rung

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")

SERVER_TIMEOUT = 5.0
"""Seconds to wait for a tracking server's first answer."""

FLUSH_SECONDS = 2.0

METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
TAG_CHARACTERS = 7_900


def check(uri: str, *, create: bool = True) -> None:
    """Make sure that the store can be written, creating its schema once. Raises UserError with one line.

    With `create` false a store that isn't there is an error.
    """
    scheme = urllib.parse.urlsplit(uri).scheme
    if scheme in ("http", "https"):
        try:
            with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=SERVER_TIMEOUT):
                return
        except OSError as error:
            raise UserError(f"tracking.uri: no MLflow server answers at {without_secrets(uri)} ({error})") from None
        except ValueError as error:
            raise UserError(f"tracking.uri: {uri} is no address ({error})") from None
    if scheme == "sqlite":
        path = database(uri)
        if not create and not path.is_file():
            raise UserError(f"tracking.uri: there is no store at {path}; run a sweep first, or name another one")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with sqlite3.connect(path, timeout=60) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("CREATE TABLE IF NOT EXISTS optsweep_writable (x)")
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"tracking.uri: {uri} can't be written ({error})") from None
    elif "://" not in uri:
        raise UserError(f"tracking.uri: {uri!r} is not allowed; give sqlite:///PATH, postgresql://… or http(s)://…")
    try:
        client(uri).search_experiments(max_results=1)
    except Exception as error:
        reason = without_secrets(str(error).splitlines()[0])
        raise UserError(f"tracking.uri: {without_secrets(uri)} can't be opened ({reason})") from None


def database(uri: str) -> Path:
    """File of a SQLite URI."""
    return Path(urllib.parse.urlsplit(uri).path.removeprefix("/") if not uri.startswith("sqlite:////") else uri[10:])


def client(uri: str) -> MlflowClient:
    """MLflow's client; imported here because the import takes seconds."""
    import logging

    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


class Tracker:
    """One sweep's experiment."""

    def __init__(self, uri: str, sweep: str) -> None:
        self.uri, self.sweep = uri, sweep
        self.client = client(uri)
        self.experiment_id = self._experiment()
        self._runs: dict[str, str] = {}

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.sweep)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None
        if self.uri.startswith("sqlite"):
            folder = hashlib.sha256(self.sweep.encode()).hexdigest()[:12]
            location = (database(self.uri).resolve().parent / "artifacts" / folder).as_uri()
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI's pages for training, not for agents
        return str(self.client.create_experiment(self.sweep, artifact_location=location, tags=tags))

    # -- sweep and arms: the planner's runs ------------------------------------------------------------------------

    def sweep_run(self) -> str:
        """The run of kind `sweep`, found or created."""
        return self._run("sweep", "", "sweep " + self.sweep, {})

    def arm_run(self, arm: str, label: str, tags: Mapping[str, str] | None = None) -> str:
        """The parent run of an arm, found or created."""
        return self._run("arm", arm, label, tags or {})

    def _run(self, kind: str, arm: str, name: str, tags: Mapping[str, str]) -> str:
        key = f"{kind} {arm}"
        if key not in self._runs:
            found = self.find({names.KIND: kind, **({names.ARM: arm} if arm else {})})
            if found:
                run_id = str(found[0].info.run_id)
            else:
                all_tags = {names.KIND: kind, names.ARM: arm, **tags, **_source_tags()}
                run_id = str(self.client.create_run(self.experiment_id, tags=all_tags, run_name=name).info.run_id)
            self._runs[key] = run_id
        return self._runs[key]

    def find(self, tags: Mapping[str, str]) -> list[Run]:
        """Runs with these tags, oldest first."""
        text = " and ".join(f"tags.`{key}` = '{_quoted(value)}'" for key, value in tags.items())
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], text, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def set_tags(self, run_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags; what is no string becomes JSON."""
        from mlflow.entities import RunTag

        texts = {key: value if isinstance(value, str) else as_json(value) for key, value in tags.items()}
        self.client.log_batch(run_id, tags=[RunTag(key, text[:TAG_CHARACTERS]) for key, text in texts.items()])

    def set_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log params that are not there yet; MLflow refuses to change one."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        fresh = [Param(key, str(value)[:6000]) for key, value in params.items() if key not in known]
        for i in range(0, len(fresh), PARAMS_PER_CALL):
            self.client.log_batch(run_id, params=fresh[i : i + PARAMS_PER_CALL])

    def log_points(self, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Log (key, value, timestamp in milliseconds, step)."""
        from mlflow.entities import Metric

        for i in range(0, len(points), METRICS_PER_CALL):
            self.client.log_batch(run_id, metrics=[Metric(*point) for point in points[i : i + METRICS_PER_CALL]])

    def set_dataset(self, run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Log the data that an arm trains on as an MLflow data set."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = self.client.get_run(run_id).inputs
        if inputs is not None and inputs.dataset_inputs:
            return
        dataset = Dataset(
            name=name,
            digest=digest,
            source_type="code",
            source=as_json({"tags": {"origin": source}}),
            profile=as_json(profile),
        )
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def log_text(self, run_id: str, text: str, file: str) -> None:
        """Attach a text file."""
        self.client.log_text(run_id, text, file)

    def end(self, run_id: str, failed: bool = False) -> None:
        """Close a run of the planner."""
        self.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    # -- trials: the workers' runs ---------------------------------------------------------------------------------

    def lost_trials(self, arm: str, phase: Phase, slot: int, reason: str) -> None:
        """Mark what earlier attempts at a slot left open as crashed."""
        tags = {names.KIND: "trial", names.ARM: arm, names.PHASE: phase.value, names.SLOT: str(slot)}
        with _store():
            for run in self.find(tags):
                if run.data.tags.get(names.STATUS) == Status.RUNNING:
                    run_id = str(run.info.run_id)
                    self.set_tags(run_id, {names.STATUS: Status.CRASHED.value, names.ERROR: reason})
                    self.client.set_terminated(run_id, "FAILED")

    def supersede(self, arm: str, slots: Sequence[int]) -> None:
        """Take confirm trials at these slots, and no others, out of the phase: their setting is not the chosen one."""
        for run in self.find({names.KIND: "trial", names.ARM: arm}):
            phase = run.data.tags.get(names.PHASE)
            if phase in (Phase.CONFIRM.value, names.SUPERSEDED):
                wanted = names.SUPERSEDED if int(run.data.tags[names.SLOT]) in slots else Phase.CONFIRM.value
                if wanted != phase:
                    self.set_tags(str(run.info.run_id), {names.PHASE: wanted})


class StoreFailureError(Exception):
    """The store stopped working (a dead server, a full disk): no fault of the trial, which is to be run again."""


@contextlib.contextmanager
def _store() -> Iterator[None]:
    """Tell failures of the store from failures of training."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        raise StoreFailureError(str(error).splitlines()[0][:300]) from error


class TrialLog:
    """One trial's run: opened at its start, written at rungs, closed before its study is told.

    A write costs about 10 ms on SQLite whatever it holds, so rungs that follow each other faster than
    `FLUSH_SECONDS` are sent together.
    """

    def __init__(
        self, tracker: Tracker, parent: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any], metric: str
    ) -> None:
        from mlflow.entities import Param, RunTag

        self.tracker, self.metric = tracker, metric
        self._pending: list[Metric] = []
        self._written = time.monotonic()
        all_tags = {
            names.KIND: "trial",
            names.STATUS: Status.RUNNING.value,
            "mlflow.parentRunId": parent,
            **tags,
            **_source_tags(),
        }
        with _store():
            run = tracker.client.create_run(tracker.experiment_id, run_name=name, tags={})
            self.run_id = str(run.info.run_id)
            tracker.client.log_batch(
                self.run_id,
                params=[Param(key, str(value)) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in all_tags.items()],
            )

    def rung(self, rung: Rung) -> None:
        """Keep everything since the rung before, and send it if the last write is long enough ago."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(names.VAL_LOSS, rung.val_loss, now, rung.step)]
        metrics.append(Metric(names.val_metric(self.metric), rung.val_score, now, rung.step))
        for point in rung.points:
            metrics += [
                Metric(names.TRAIN_LOSS, point.loss, now, point.step),
                Metric(names.LR, point.lr, now, point.step),
                Metric(names.GRAD_NORM, point.grad_norm, now, point.step),
                Metric(names.UPDATE_RATIO, point.update_ratio, now, point.step),
            ]
        if rung.ms_per_step is not None:
            metrics.append(Metric(names.MS_PER_STEP, rung.ms_per_step, now, rung.step))
            metrics.append(Metric(names.PEAK_BYTES, float(rung.peak_bytes), now, rung.step))
        self._pending += metrics
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self._send(())

    def _send(self, tags: Sequence[RunTag]) -> None:
        """Write what is pending, in as few calls as MLflow allows, tags with the last."""
        pending, self._pending, self._written = self._pending, [], time.monotonic()
        parts = [pending[i : i + METRICS_PER_CALL] for i in range(0, len(pending), METRICS_PER_CALL)] or [[]]
        with _store():
            for part in parts[:-1]:
                self.tracker.client.log_batch(self.run_id, metrics=part)
            self.tracker.client.log_batch(self.run_id, metrics=parts[-1], tags=tags)

    def end(self, outcome: Outcome) -> None:
        """Write the result and close the run."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        if outcome.test_loss is not None and outcome.test_score is not None:
            self._pending += [
                Metric(names.TEST_LOSS, outcome.test_loss, now, outcome.step),
                Metric(names.test_metric(self.metric), outcome.test_score, now, outcome.step),
            ]
        tags = {
            names.STATUS: outcome.end.value,
            names.TRAIN_SECONDS: f"{outcome.train_seconds:.4f}",
            names.STATE_BYTES: str(outcome.state_bytes),
        }
        if outcome.reason:
            tags[names.ERROR] = outcome.reason
        self._send([RunTag(key, value) for key, value in tags.items()])
        with _store():
            for name, text in outcome.artifacts.items():
                self.tracker.client.log_text(self.run_id, text, name)
            self.tracker.client.set_terminated(self.run_id, "FINISHED")

    def crash(self, reason: str) -> None:
        """Close the run as crashed."""
        from mlflow.entities import RunTag

        self._send([RunTag(names.STATUS, Status.CRASHED.value), RunTag(names.ERROR, reason)])
        with _store():
            self.tracker.client.set_terminated(self.run_id, "FAILED")


def as_json(value: object) -> str:
    """Canonical JSON."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def plain(value: Any) -> Any:
    """As it comes back from JSON, so that it can be compared with what was stored."""
    return json.loads(json.dumps(value, default=str))


def parse(text: str) -> Any:
    """From JSON."""
    return json.loads(text)


def _quoted(value: str) -> str:
    return value.replace("'", "\\'")


def _source_tags() -> dict[str, str]:
    commit = git_commit()
    return {
        "mlflow.source.name": "optsweep",
        "mlflow.source.type": "LOCAL",
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


_COMMIT: list[str | None] = []


def git_commit() -> str | None:
    """Commit of the working directory's repository, if it is one; asked once per process."""
    if not _COMMIT:
        import subprocess

        try:
            done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
            _COMMIT.append(done.stdout.strip() or None)
        except (OSError, subprocess.TimeoutExpired):
            _COMMIT.append(None)
    return _COMMIT[0]
