"""A tracking store in memory, which fails where a test wants it, and what a trial that is written to it looks like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

from optsweep.tracking import names, postman
from optsweep.tracking.courier import Courier
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.spool import Spool
from optsweep.tracking.trial_log import Sink, TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase, Point, Rung


class CutError(ConnectionError):
    """A call that didn't come back."""


@dataclass
class FakeRun:
    """A run as MLflow has it."""

    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: list[tuple[str, float, int, int]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    status: str = "RUNNING"
    deleted: bool = False
    start: int = 0

    def curve(self, key: str) -> list[tuple[int, float]]:
        return [(step, value) for held, value, _, step in self.points if held == key]


@dataclass
class FakeStore:
    """MLflow's client and the tracker at once. `cut(n, name)` says of a call whether it fails, and if so when."""

    runs: dict[str, FakeRun] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    cut: Callable[[int, str], str] = lambda number, name: ""
    experiment_id: str = "0"
    _numbers: Any = field(default_factory=itertools.count)

    @property
    def client(self) -> FakeStore:
        return self

    def _call(self, name: str, do: Callable[[], Any]) -> Any:
        self.calls.append(name)
        when = self.cut(len(self.calls), name)
        if when == "before":
            raise CutError
        if when == "refuse":
            raise MlflowException("Invalid metric name", INVALID_PARAMETER_VALUE)
        done = do()
        if when == "after":
            raise CutError
        return done

    def _run(self, run_id: str) -> FakeRun:
        if run_id not in self.runs or self.runs[run_id].deleted:
            raise MlflowException(f"Run with id={run_id} not found", RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def create_run(self, experiment: str, start: int, tags: dict[str, str], name: str) -> Any:
        def create() -> Any:
            run_id = f"r{next(self._numbers)}"
            self.runs[run_id] = FakeRun({**tags, names.RUN_NAME: name}, start=start)
            return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

        return self._call("create_run", create)

    has_database = False

    def add_whole(self, runs: object) -> list[str]:
        """As on a server, where it takes the client's calls."""
        return []

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        def log() -> None:
            run = self._run(run_id)
            fresh = dict.fromkeys((m.key, m.value, m.timestamp, m.step) for m in metrics)
            run.points += [point for point in fresh if point not in run.points]
            for param in params:
                assert run.params.setdefault(param.key, param.value) == param.value, "MLflow refuses to change one"
            run.tags |= {tag.key: tag.value for tag in tags}

        self._call("log_batch", log)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        self._call("log_text", lambda: self._run(run_id).files.update({name: text}))

    def set_terminated(self, run_id: str, status: str, time: int = 0) -> None:
        self._call("set_terminated", lambda: self._run(run_id).__setattr__("status", status))

    def update_run(self, run_id: str, status: str) -> None:
        self._call("update_run", lambda: self._run(run_id).__setattr__("status", status))

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self._call("set_tags", lambda: self._run(run_id).tags.update(tags))

    def delete_run(self, run_id: str) -> None:
        self._run(run_id).deleted = True

    def search_runs(self, experiments: Sequence[str], condition: str) -> list[Any]:
        trial = condition.rpartition("= ")[2].strip("'")
        ids = [key for key, run in self.runs.items() if run.tags[names.TRIAL] == trial and not run.deleted]
        return self._call("search_runs", lambda: [self._entity(key) for key in ids])  # type: ignore[no-any-return]

    def get_run(self, run_id: str) -> Any:
        self._run(run_id)
        return self._entity(run_id)

    def _entity(self, run_id: str) -> Any:
        run = self.runs[run_id]
        data = SimpleNamespace(tags=run.tags, params=run.params, metrics={key: 0.0 for key, *_ in run.points})
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id, lifecycle_stage="active"), data=data)

    def get_experiment(self, experiment: str) -> Any:
        return SimpleNamespace(lifecycle_stage="active")

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [SimpleNamespace(step=step) for held, _, _, step in self._run(run_id).points if held == key]

    def parent_run(self, arm: str, label: str) -> str:
        return "parent"

    def lost_trials(self, arm: str, phase: Phase, slot: int, reason: str, repeat: int, but: Any, before: float) -> None:
        """As the tracker does it."""
        for run in self.runs.values():
            if run.tags[names.TRIAL] not in but and not run.deleted and run.start <= before:
                run.tags |= {names.STATUS: "crashed", names.ERROR: reason}
                run.status = "FAILED"

    @property
    def alive(self) -> list[FakeRun]:
        return [run for run in self.runs.values() if not run.deleted]


def use(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    """Whoever delivers does so into this store."""
    monkeypatch.setattr(postman, "Tracker", lambda uri, sweep: cast(Tracker, store))
    monkeypatch.setattr(postman, "is_gone", lambda file: False)  # it has none
    return store


def head(trial: str, slot: int = 0) -> TrialHead:
    return TrialHead("arm", Phase.SEARCH, slot, 0, "model", {"lr": 1e-3}, id=trial)


def rung(step: int, loss: float | None = None) -> Rung:
    value = step / 10 if loss is None else loss
    return Rung(step, value, 0.5, (Point(step, value, 1e-3, 1.0, 1e-4),), 1.0, 7, step / 100)


STEPS = [(10, 1.0), (20, 2.0), (30, 3.0)]
"""What `write` leaves of a loss."""

OUTCOME = Outcome(End.FINISHED, 30, 3.0, 0.5, 3.5, 0.5, 0.4, 8, artifacts={"path.csv": "step,x,y\n"})


def write(sink: Sink, trial: str, steps: Sequence[int] = (10, 20, 30), **log: Any) -> TrialLog:
    """A trial with rungs, each of them written."""
    made = TrialLog(sink, "parent", "a trial", head(trial), "accuracy", **log)
    for step in steps:
        made.rung(rung(step))
        made.write()
    return made


def finish(log: TrialLog) -> None:
    log.end(OUTCOME)
    log.close()


class StillCourier(Courier):
    """One whose thread is the test."""

    def __init__(self, spool: Spool, said: list[str], *, leaves: bool = False) -> None:
        super().__init__(spool, said.append, leaves=leaves, start=False)

    def go(self, times: int = 1) -> None:
        """As so many rounds of its thread, a trial that runs always being due."""
        for _ in range(times):
            for letter in self.letters:
                letter.sent = float("-inf")
            self.once()


def one(store: FakeStore) -> tuple[list[tuple[int, float]], str, str]:
    """The one run that there may be: its curve, how it ended, and as what."""
    (run,) = store.alive
    assert run.curve(names.TRAIN_LOSS) == run.curve(names.VAL_LOSS)
    assert len(run.points) == len(set(run.points))
    return run.curve(names.VAL_LOSS), run.tags[names.STATUS], run.status


def killed(courier: StillCourier) -> None:
    """Its process is gone: the system closes its files."""
    for letter in courier.letters:
        letter.file.close()
