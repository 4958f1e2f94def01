"""Sweeps as SLURM jobs, as far as that goes without a cluster: what is asked for, what is kept, what a job does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optsweep.errors import GoesOnError, UserError
from optsweep.launch.elsewhere.posted import JOB
from optsweep.launch.prepare.continuity import IDENTITY
from optsweep.launch.slurm import cluster, job
from optsweep.launch.slurm.job import Notice, PlannerTask, WorkerTask
from optsweep.launch.slurm.record import JobEnd, SlurmJob, Submitted, alone, folder_of, outcome_of
from optsweep.launch.slurm.request import SlurmRequest, as_arguments
from optsweep.launch.slurm.stores import is_open, seconds_of_seat
from optsweep.launch.slurm.sweep import SlurmSweep
from optsweep.launch.slurm.told import standing
from optsweep.launch.status import FINISHED, PLANNED
from optsweep.search import seats
from optsweep.search.process import process_name
from optsweep.search.studies import Studies

PLANNER, WORKERS = SlurmJob("12", "p"), (SlurmJob("13_0", "a"), SlurmJob("13_1", "b"))


def _request(keys: dict[str, Any]) -> SlurmRequest:
    return SlurmRequest(**keys)


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ({}, ["--cpus-per-task=1", "--nodes=1", "--ntasks=1", "--requeue"]),
        ({"requeue": False, "time": 90}, ["--time=90", "--no-requeue"]),
        ({"time": "1-02:00:00", "mem": "8G", "partition": "a,b"}, ["--time=1-02:00:00", "--mem=8G", "--partition=a,b"]),
        ({"gpus_per_worker": 2, "cpus_per_worker": 8}, ["--gpus-per-node=2", "--cpus-per-task=8"]),
        ({"sbatch": {"exclusive": True, "constraint": "a100"}}, ["--exclusive", "--constraint=a100"]),
    ],
)
def test_what_sbatch_is_told(keys: dict[str, Any], arguments: list[str]) -> None:
    assert set(arguments) <= set(as_arguments(SlurmRequest(**keys).flags))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("time", "90:00"),
        ("time", 0),
        ("time", "00:00:00"),
        ("time", True),
        ("mem", "8 GB"),
        ("mem", "0"),
        ("partition", "gpu; rm"),
        ("workers", -1),
        ("gpus_per_worker", 0.5),
        ("setup", "module load cuda"),
        ("sbatch", {"array": 3}),
        ("sbatch", {"--nice": 3}),
        ("sbatch", {"nice": [1]}),
    ],
)
def test_a_wrong_key_is_named(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^hydra\.launcher\.{key}"):
        _request({key: value})


def test_a_job_has_a_process_for_its_cores_or_one_for_each_gpu() -> None:
    assert SlurmRequest(cpus_per_worker=8).processes(threads=3) == 2
    assert SlurmRequest().processes(threads=4) == 1
    assert SlurmRequest(gpus_per_worker=1, cpus_per_worker=8).processes(threads=1) is None


def test_a_short_job_is_told_of_its_end_late_enough_to_have_begun() -> None:
    assert SlurmRequest().notice_seconds == SlurmRequest(time="1-00:00:00").notice_seconds == 120
    assert _request({"time": 4}).notice_seconds == SlurmRequest(time="0:04:00").notice_seconds == 60


def test_sweeps_have_folders_of_their_own_without_a_percent_sign() -> None:
    assert folder_of("mine").name == "mine"
    assert "%" not in folder_of("50%j").name
    assert folder_of("50%j") != folder_of("50_j")


def test_jobs_are_told_of_in_lines(tmp_path: Path) -> None:
    record = Submitted("optsweep …", PLANNER, (*WORKERS, SlurmJob("13_2", "c")))
    record.write(tmp_path)
    assert Submitted.read(tmp_path) == record
    (tmp_path / "b.json").write_text(json.dumps({"code": 2, "said": "its arms are others here"}))
    states = {"12": cluster.JobState("RUNNING", "None", "n1"), "13_0": cluster.JobState("PENDING", "Priority", "")}
    planner, workers = standing(record, states, tmp_path)
    assert planner.startswith("planner: job 12, running on n1; log: ")
    silent, _ = standing(record, states, tmp_path, {"n1", "n2"})
    assert silent.startswith("planner: job 12, running on n1, which doesn't answer; log: ")
    assert workers == (
        "workers: job 13: 1 pending (Priority), 1 has ended with exit code 2 (its arms are others here), 1 is gone"
    )


@dataclass
class Controller:
    """What SLURM is asked to do."""

    running: bool
    requeued: list[str]
    cancelled: list[tuple[set[str], bool]]

    def requeue(self, job: str) -> bool:
        """It can be, unless it is 99."""
        self.requeued.append(job)
        return job != "99"


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    made = Controller(True, [], [])
    monkeypatch.setattr(cluster, "is_running", lambda job, node: made.running)
    monkeypatch.setattr(cluster, "requeue", made.requeue)
    monkeypatch.setattr(
        cluster, "cancel", lambda jobs, waiting_only=False: made.cancelled.append((set(jobs), waiting_only))
    )
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    return made


@contextmanager
def _signals_kept() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def _planner(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, number: int | None = None) -> PlannerTask:
    """Whose child ends with a code, after a signal."""

    def child(notice: Notice, arguments: Any, **variables: str) -> JobEnd:
        if number is not None:
            os.kill(os.getpid(), number)
        return JobEnd(code, "why")

    monkeypatch.setattr(Notice, "run", child)
    Submitted("", PLANNER, WORKERS).write(folder)
    return PlannerTask(folder, PLANNER.name, "s", f"sqlite:///{folder}/studies.db", True, ("sweep.name=s",))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_job_that_is_told_of_its_end_has_itself_requeued(
    number: int, controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _signals_kept():
        _planner(tmp_path, monkeypatch, 130, number)()
        controller.running = False  # SLURM requeues it, or somebody has cancelled it
        _planner(tmp_path, monkeypatch, 130, number)()
    assert controller.requeued == ["12"]
    assert controller.cancelled == []
    assert outcome_of(tmp_path, PLANNER) is None


@pytest.mark.parametrize(("number", "requeue"), [("12", False), ("99", True)])
def test_a_job_that_cannot_begin_again_fails_for_slurm_too(
    number: str, requeue: bool, controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", number)
    planner = _planner(tmp_path, monkeypatch, 130, signal.SIGUSR2)
    with _signals_kept(), pytest.raises(SystemExit, match="130"):
        replace(planner, requeue=requeue)()
    assert outcome_of(tmp_path, PLANNER) is None, "the sweep's command finds it gone"


@pytest.mark.parametrize(("restarts", "looks"), [(None, 0), ("1", 3)])
def test_a_requeued_planner_waits_for_one_that_lives(
    restarts: str | None, looks: int, controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node that SLURM has lost sight of."""
    left = [9.0, 9.0, 0.0]
    monkeypatch.setattr(job, "seconds_of_seat", lambda storage, sweep: left.pop(0))
    monkeypatch.setattr(job, "SEAT_SECONDS", 0.0)
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    if restarts is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    with _signals_kept():
        _planner(tmp_path, monkeypatch, 0)()
    assert len(left) == 3 - looks


def test_a_task_of_an_array_has_itself_requeued_and_not_all_of_it(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")  # whose number one of the tasks has
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with _signals_kept():
        _planner(tmp_path, monkeypatch, 130, signal.SIGUSR2)()
    assert controller.requeued == ["12_3"]


def test_a_command_that_comes_between_submits_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of("s")

    def submitted_meanwhile(arms: object, *, report: bool) -> None:
        with alone(folder):
            Submitted("c", PLANNER).write(folder)

    monkeypatch.setattr("optsweep.launch.slurm.sweep.finished", submitted_meanwhile)
    monkeypatch.setattr(SlurmSweep, "_check", lambda self: None)
    monkeypatch.setattr(cluster, "states", lambda: {"12": cluster.JobState("RUNNING", "None", "n1")})
    said: list[str] = []
    arm: Any = SimpleNamespace(sweep="s")
    with pytest.raises(GoesOnError):
        SlurmSweep([arm], (), "c", SlurmRequest(), False, said.append).carry_on()
    assert said[0].startswith("planner: job 12, running on n1")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_command_that_waits_ends_when_the_job_that_plans_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optsweep.launch.slurm.sweep.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("optsweep.launch.slurm.sweep.ASK_SECONDS", -1.0)
    monkeypatch.setattr(SlurmSweep, "_progress", lambda self: iter(lambda: [], None))
    there = {"12": cluster.JobState("RUNNING", "None", "n1")}
    answers: list[Any] = [UserError("squeue: the controller is away"), there, {}, there, {}, {}]

    def states() -> dict[str, cluster.JobState]:
        answer: Any = answers.pop(0)
        if isinstance(answer, UserError):
            raise answer
        return dict(answer)

    monkeypatch.setattr(cluster, "states", states)
    arm: Any = SimpleNamespace(sweep="s")
    sweep = SlurmSweep([arm], (), "c", SlurmRequest(wait=True), False, print)
    with pytest.raises(UserError, match=r"^job 12, which planned the sweep, is gone: .*; the same command submits"):
        sweep._wait(Submitted("c", PLANNER))
    assert not answers, "missing twice in a row"


def test_without_sacct_that_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.why_no_accounts() == "sacct: No such file or directory"


def test_of_stores_that_are_still_to_come_nothing_is_said_and_of_others_a_line(tmp_path: Path) -> None:
    studies, said = tmp_path / "studies.db", list[str]()
    arm: Any = SimpleNamespace(sweep="s", storage=f"sqlite:///{studies}", tracking_uri=f"sqlite:///{tmp_path}/runs.db")
    progress = SlurmSweep([arm], (), "c", SlurmRequest(), False, said.append)._progress()
    assert next(progress) == []
    studies.write_text("no database" * 100)
    assert next(progress) == []  # it may be in the making
    (line,) = next(progress)
    assert line.startswith("how far it is can't be read (tracking.storage: ")
    assert next(progress) == []
    studies.unlink()
    Studies.open(arm.storage, "another")
    assert next(progress) == []
    Studies.open(arm.storage, "s").set_note("arm", PLANNED, [4, 2, 1])
    assert next(progress) == []  # there are no runs yet


def test_workers_end_with_a_planner_that_fails(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _signals_kept(), pytest.raises(SystemExit, match="2"):
        _planner(tmp_path, monkeypatch, 2)()
    assert controller.cancelled == [({"13"}, False)]
    assert outcome_of(tmp_path, PLANNER) == JobEnd(2, "why")
    storage = f"sqlite:///{tmp_path}/studies.db"
    for key, said in ((IDENTITY, {}), (JOB, {}), (PLANNED, [4, 2, 1])):
        Studies.open(storage, "s").set_note("arm", key, said)
    late = WorkerTask(tmp_path, "a", "s", storage, True, "", PLANNER, 1)
    with _signals_kept():
        late()
    assert outcome_of(tmp_path, WORKERS[0]) == JobEnd(0, "the job that plans the sweep has ended")


def test_a_finished_sweep_leaves_nobody_in_the_queue(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _signals_kept():
        _planner(tmp_path, monkeypatch, 0, signal.SIGTERM)()
    assert controller.cancelled == [({"13"}, True)]
    assert controller.requeued == []


def test_workers_wait_for_arms_with_something_left(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    assert not is_open(storage, "s")
    assert not (tmp_path / "studies.db").exists()
    studies = Studies.open(storage, "s")
    assert not is_open(storage, "s")
    studies.set_note("arm", PLANNED, [4, 2, 1])
    assert not is_open(storage, "s")
    studies.set_note("arm", IDENTITY, {})
    studies.set_note("arm", JOB, {})
    assert is_open(storage, "s")
    studies.set_note("arm", FINISHED, [4, 2, 1])
    assert not is_open(storage, "s")
    studies.set_note("arm", PLANNED, [8, 2, 1])
    assert is_open(storage, "s")


def test_a_planner_waits_for_the_lease_of_a_lost_node_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    assert seconds_of_seat(storage, "s") == 0
    host, pid, start = process_name().rsplit("/", 2)
    for sweep, holder, waits in (("lost", f"elsewhere/{pid}/{start}", True), ("dead", f"{host}/{pid}/{start}x", False)):
        monkeypatch.setattr(seats, "process_name", lambda holder=holder: holder)
        Studies.open(storage, sweep).take_seat(["arm"], whole=True)
        assert (0 < seconds_of_seat(storage, sweep) <= seats.SEAT_SECONDS) is waits
