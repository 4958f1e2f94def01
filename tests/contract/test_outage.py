"""Stores that fail for a while: who waits, who doesn't, for how long, and in how many lines that is said."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from optuna.exceptions import StorageInternalError
from requests import ConnectionError as RequestError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from arms import arm_with
from optsweep.address import TRACKING_KEY, read_address
from optsweep.launch import work
from optsweep.launch.deferred import Deferred
from optsweep.launch.planner import PlannedArm, Planner
from optsweep.launch.pools.pool import Pool
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.worker import Worker
from optsweep.search.ownership import Claim, LeaseLostError
from optsweep.search.slots import SearchPlan, Slot
from optsweep.search.space import Space
from optsweep.search.studies import Studies
from optsweep.tracking import outage
from optsweep.tracking.outage import Outage, StoreFailureError, passes, patiently, storage_outage, what_failed
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase
from reporting import OUTCOME, reporter


def locked() -> OperationalError:
    return OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))


def of_sql(said: str, code: int = TEMPORARILY_UNAVAILABLE) -> MlflowException:
    """As MLflow's SQL store has it."""
    return MlflowException(str(OperationalError("INSERT", {}, sqlite3.OperationalError(said))), code)


def of_optuna(cause: BaseException) -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit. … e.g. exceeding max length.")
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device")
LOCAL, SERVER, DATABASE = "sqlite:///runs/mlflow.db", "http://u:p@host:5000", "postgresql://u:p@host/db"
SHOWN = "the database at postgresql://u:***@host/db"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses, which take no time here."""
    pauses: list[float] = []
    monkeypatch.setattr(outage, "sleep", pauses.append)
    monkeypatch.setattr(outage, "monotonic", lambda: sum(pauses))
    return pauses


# -- which failures, and in which words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        (LOCAL, locked(), "runs/mlflow.db is locked by another process"),
        (LOCAL, of_sql("database is locked"), "runs/mlflow.db is locked by another process"),
        (LOCAL, of_optuna(locked()), "runs/mlflow.db is locked by another process"),
        (LOCAL, of_sql("database or disk is full"), "the disk is full at runs"),
        (LOCAL, of_optuna(OperationalError("x", {}, Exception("disk is full"))), "the disk is full at runs"),
        (LOCAL, FULL, "the disk is full at runs"),
        (LOCAL, sqlite3.OperationalError("disk I/O error"), "runs/mlflow.db fails (disk I/O error)"),
        (SERVER, RequestError("refused"), "the server at http://host:5000 doesn't answer"),
        (
            SERVER,
            MlflowException("API request failed with exception x"),
            "the server at http://host:5000 doesn't answer",
        ),
        (SERVER, ConnectionResetError(), "the server at http://host:5000 doesn't answer"),
        (
            SERVER,
            MlflowException("API request to endpoint /x failed with error code 503 != 200", TEMPORARILY_UNAVAILABLE),
            "the server at http://host:5000 answers with error 503",
        ),
        (SERVER, of_sql("database is locked"), "the database of the server at http://host:5000 is locked"),
        (DATABASE, OperationalError("x", {}, Exception("could not connect")), f"{SHOWN} doesn't answer"),
        (
            DATABASE,
            OperationalError("x", {}, Exception("FATAL:  sorry, too many clients already")),
            f"{SHOWN} has no connection left; raise its max_connections, or put a pooler such as PgBouncer before it",
        ),
    ],
)
def test_what_may_pass_is_said_in_a_few_words_without_secrets(uri: str, error: Exception, said: str) -> None:
    assert passes(error)
    assert what_failed(error, read_address(TRACKING_KEY, uri)) == said


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("Invalid metric name", INVALID_PARAMETER_VALUE),
        MlflowException("Run not found", RESOURCE_DOES_NOT_EXIST),
        MlflowException("wrong password", PERMISSION_DENIED),
        of_sql("no such table: runs"),
        OperationalError("x", {}, sqlite3.OperationalError("attempt to write a readonly database")),
        IntegrityError("x", {}, sqlite3.IntegrityError("UNIQUE constraint failed")),
        of_optuna(IntegrityError("x", {}, sqlite3.IntegrityError("UNIQUE constraint failed"))),
        FileNotFoundError(errno.ENOENT, "No such file", "data.csv"),
        LeaseLostError(),
        ValueError(),
        KeyError(),
    ],
)
def test_what_waiting_does_not_mend_is_no_outage(error: Exception) -> None:
    assert not passes(error)


def test_a_database_that_is_really_locked_is_one_that_may_pass(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with sqlite3.connect(file) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 0})
        with pytest.raises(OperationalError) as refused, engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (1)"))
    assert passes(refused.value)
    assert what_failed(refused.value, read_address(TRACKING_KEY, f"sqlite:///{file}")).endswith(
        "is locked by another process"
    )


# -- waiting -----------------------------------------------------------------------------------------------------------


def failing(times: int, error: Exception | None = None) -> Callable[[], str]:
    """A call that works after so many failures."""
    left = [times]

    def call() -> str:
        if left[0]:
            left[0] -= 1
            raise error or locked()
        return "done"

    return call


def heard(said: list[str], voice: Path | None = None) -> Outage:
    return Outage(read_address(TRACKING_KEY, LOCAL), "it waits", "over", voice, said.append)


def test_a_call_is_made_again_with_growing_pauses_and_two_lines(clock: list[float]) -> None:
    said: list[str] = []
    assert patiently(failing(7), heard(said)) == "done"
    assert clock == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert said == ["runs/mlflow.db is locked by another process; it waits", "over"]


def test_after_ten_minutes_nobody_waits_any_longer(clock: list[float]) -> None:
    said: list[str] = []
    with pytest.raises(StoreFailureError, match=r"^runs/mlflow\.db is locked by another process, for 10 minutes now$"):
        patiently(failing(10**6), heard(said))
    assert 600 <= sum(clock) <= 620
    assert len(said) == 1


def test_who_is_asked_to_stop_does_not_wait(clock: list[float]) -> None:
    with pytest.raises(StoreFailureError, match=r"by another process$"):
        patiently(failing(10**6), heard([]), lambda: True)
    assert clock == []


def test_what_does_not_pass_is_raised_at_once(clock: list[float]) -> None:
    with pytest.raises(ValueError, match="wrong"):
        patiently(failing(1, ValueError("wrong")), heard([]))
    assert clock == []


def test_of_several_processes_one_speaks_and_when_it_is_gone_another_may(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = (heard(said, tmp_path / "voice") for _ in range(2))
    for _ in range(2):
        first.failed(locked())
        second.failed(locked())
    assert len(said) == 1
    second.worked()
    assert len(said) == 1
    first.worked()
    assert said[1:] == ["over"]
    second.failed(locked())
    assert len(said) == 3


def test_one_that_takes_over_says_only_when_it_is_over(tmp_path: Path) -> None:
    said: list[str] = []
    first, second, third = (heard(said, tmp_path / "voice") for _ in range(3))
    first.failed(locked())
    first.give_up()  # its process ends
    second.failed(locked())
    assert len(said) == 1
    second.worked()
    assert said[1:] == ["over"]
    third.failed(locked())
    assert len(said) == 3, "that is another outage"


# -- planner and workers -----------------------------------------------------------------------------------------------


@dataclass
class FailingPlanner:
    """Each step fails or works as it is told."""

    steps: list[Exception | bool]
    progress: list[Any] = field(default_factory=list)
    done_before: int = 0

    def step(self) -> bool:
        found = self.steps.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def num_done(self) -> int:
        return 3


def pool(clock: list[float]) -> Pool:
    def wait(seconds: float) -> list[tuple[str, str]]:
        clock.append(seconds)
        return []

    return cast(Pool, SimpleNamespace(assign=lambda jobs: None, wait=wait))


def run_with(steps: list[Exception | bool], clock: list[float], said: list[str]) -> int:
    planner = cast(Planner, FailingPlanner(steps))
    jobs = [Job(arm_with({}), "an arm", "", "")]
    return work.work(planner, jobs, pool(clock), "", lambda event: None, heard(said))


def test_the_planner_s_step_is_made_again_while_the_storage_fails(clock: list[float]) -> None:
    said: list[str] = []
    assert run_with([locked(), False, locked(), of_optuna(FULL), False, True], clock, said) == 0
    assert said == [
        "runs/mlflow.db is locked by another process; it waits",
        "over",
        "runs/mlflow.db is locked by another process; it waits",
        "over",
    ]


def test_a_planner_whose_storage_stays_away_gives_up_in_a_line(clock: list[float]) -> None:
    with pytest.raises(StoreFailureError, match="is locked"):
        run_with([False, *[locked()] * 700], clock, [])
    assert sum(clock) >= 600


def test_a_planner_s_mistake_is_raised_at_once(clock: list[float]) -> None:
    with pytest.raises(ZeroDivisionError):
        run_with([False, ZeroDivisionError()], clock, [])


def test_what_the_planner_has_to_write_to_mlflow_waits_in_order_and_does_not_stop_it(clock: list[float]) -> None:
    said: list[str] = []
    written: list[str] = []
    deferred = Deferred(heard(said))
    first = failing(2)
    deferred.add(lambda: written.append(first()))
    deferred.add(lambda: written.append("second"))
    for _ in range(2):
        deferred.try_to_send()
        assert written == []
    deferred.try_to_send()
    deferred.try_to_send()
    assert written == ["done", "second"]
    assert len(said) == 2
    assert clock == []


def test_what_is_sent_at_last_ends_the_outage(tmp_path: Path) -> None:
    """Who speaks of an outage lets go of what says so in the spool's folder, which is taken away."""
    said: list[str] = []
    (tmp_path / "spool").mkdir()
    deferred = Deferred(heard(said, tmp_path / "spool" / "s" / "voice"))
    first, sent = failing(1), list[str]()
    deferred.add(lambda: sent.append(first()))
    deferred.try_to_send()
    deferred.send()
    assert (sent, said[1:]) == (["done"], ["over"])


def test_a_step_that_failed_looks_at_everything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked at before the failure had its effects; what wasn't would be taken for unchanged."""

    studies, arm = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s"), arm_with({})
    plan = SearchPlan(trials=0, lag=1, sampler="gp", pruner="none", reruns=0.0, seed=0, arm=arm.name)
    seat = studies.take_seat([arm.name], whole=True)
    tracker = cast(Tracker, SimpleNamespace(note_chosen=lambda *_: None))
    tasks = [PlannedArm(Job(arm, "a", "", ""), plan, Space({}))]
    planner = Planner(tasks, studies, seat, tracker, seeds=2, baseline=arm.name, retries=1)
    planner.step()
    assert len(studies.trials(arm.name, Phase.CONFIRM)) == 2
    (popped,) = studies.pop(arm.name, Phase.CONFIRM, "w", 60.0, 1)
    studies.fail(popped.claim, "interrupted", excused=True)
    real, calls = studies.enqueue, failing(1)
    monkeypatch.setattr(studies, "enqueue", lambda *args: (calls(), real(*args)))
    with pytest.raises(OperationalError):
        planner.step()
    planner.step()
    assert len(studies.trials(arm.name, Phase.CONFIRM)) == 3


@pytest.mark.parametrize("got_through", [False, True])
def test_a_result_waits_in_memory_until_its_study_can_be_told(
    tmp_path: Path, clock: list[float], got_through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a call that seemed to fail got through: told is told."""

    observer, studies, works, logs = reporter(tmp_path, 1, "none")
    real, fails = studies.tell, failing(3)

    def tell(*args: Any) -> None:
        if got_through and len(clock) == 0:
            real(*args)
        fails()
        real(*args)

    monkeypatch.setattr(studies, "tell", tell)
    waiting = storage_outage(f"sqlite:///{tmp_path}/optuna.db")
    waiting.say = lambda line: None
    monkeypatch.setattr(observer.worker, "waiting", lambda call: patiently(call, waiting))
    observer.on_end(0, OUTCOME)
    assert (observer.told, observer.training) == (1, {})
    assert logs[0].ends == ["finished"]
    assert studies.was_told(works[0].claim)


def test_a_trial_that_was_given_up_was_not_told(tmp_path: Path) -> None:

    _, studies, works, _ = reporter(tmp_path, 1, "none")
    assert not studies.was_told(works[0].claim)
    studies.fail(works[0].claim, "silent")
    assert not studies.was_told(works[0].claim)


def test_what_was_taken_before_the_storage_failed_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    studies = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")
    seat = studies.take_seat(["a"], whole=True)
    for number in range(3):
        studies.enqueue(seat, "a", Phase.SEARCH, Slot(number, {}, 0, "fixed"))
    real, taken = studies._ownership.claim, list[Claim]()

    def claim(*args: Any) -> Claim:
        if len(taken) == 2:
            raise locked()
        taken.append(real(*args))
        return taken[-1]

    monkeypatch.setattr(studies._ownership, "claim", claim)
    assert [found.claim for found in studies.pop("a", Phase.SEARCH, "w", 60.0, 3)] == taken
    with pytest.raises(OperationalError):
        studies.pop("a", Phase.SEARCH, "w", 60.0, 3)


def test_a_worker_waits_for_the_storage_at_its_start(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:

    arm = replace(arm_with({}), storage=f"sqlite:///{tmp_path}/o.db", tracking_uri=f"sqlite:///{tmp_path}/m.db")
    real, fails = Studies.__init__, failing(2)

    def init(self: Studies, *args: Any) -> None:
        fails()
        real(self, *args)

    monkeypatch.setattr(Studies, "__init__", init)
    worker = Worker([Job(arm, "", "", "")])
    worker.close()
    assert clock == [0.5, 1.0]
    assert not (tmp_path / "m.db").exists(), "it asks nothing of MLflow"
