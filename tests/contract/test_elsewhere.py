"""Workers that somebody starts elsewhere: what they learn of a sweep's arms, and what the sweep learns of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optsweep.address import STORAGE_KEY, TRACKING_KEY, check_apart, read_address, without_driver
from optsweep.build.fingerprint import Identity
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.errors import UserError
from optsweep.launch.elsewhere.helper import Helper, work_elsewhere
from optsweep.launch.elsewhere.posted import JOB, Posted, ToCompare, post, taken_down
from optsweep.launch.pools.local import LocalPool
from optsweep.launch.prepare.continuity import IDENTITY
from optsweep.launch.status import FINISHED, PLANNED, status_of
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.inquiries import Workbench
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.shared_folder import CHECKPOINTS
from optsweep.search.helping import Help, notes
from optsweep.search.process import process_name
from optsweep.search.slots import Slot
from optsweep.search.storage import check_names, open_storage
from optsweep.search.studies import Studies
from optsweep.tracking import courier
from optsweep.tracking.courier import Courier
from optsweep.tracking.outage import StoreFailureError, storage_outage
from optsweep.tracking.spool import Spool
from optsweep.train.trial import Phase
from spooling import FakeStore, finish, one, use, write

SMALL = ("task=iris_mlp", "optimizer=sgd", "trainer.steps=4", "task.width=4", "sweep.name=far")


@pytest.fixture(scope="module")
def arm() -> Arm:
    composed = arm_of(compose([*SMALL, "tracking.storage='postgresql+psycopg://ann:hunter2@host/db'"]))
    return replace(composed, trainer=replace(composed.trainer, lanes=1))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def _posted(arm: Arm, url: str) -> Posted:
    """An arm's job as it comes back from the studies of its sweep."""
    held, built = open_storage(url), Builds().of(arm)
    studies = Studies(held, arm.sweep)
    post(studies, [Job(arm, "sgd", built.fingerprint, "run", ("task.batch_size",), "key", "#fff")])
    identity = {"exact": dict(built.identity.exact), "approximate": dict(built.identity.approximate)}
    studies.set_note(arm.name, IDENTITY, identity)
    assert "hunter2" not in str(notes(held.engine, arm.sweep, (JOB,)))
    (found,) = taken_down(notes(held.engine, arm.sweep, (JOB, IDENTITY, CHECKPOINTS)), url, "http://host:1")
    return found


def test_a_job_comes_back_as_it_was_posted_and_is_the_same_arm(arm: Arm, url: str) -> None:
    found = _posted(arm, url)
    here = replace(arm, storage=url, tracking_uri="http://host:1", yaml=found.job.arm.yaml)
    assert found.job == Job(here, "sgd", found.job.fingerprint, "", ("task.batch_size",), "key", "#fff")
    bench = Workbench(Builds)
    assert ToCompare([found]).run(bench) == [""]
    other = Identity({**found.identity.exact, "the device": "another"}, found.identity.approximate)
    (said,) = ToCompare([replace(found, identity=other)]).run(bench)
    assert said.startswith("the device was another, is ")


def test_the_folder_of_checkpoints_is_that_of_the_planner_or_as_it_is_called_here(arm: Arm, url: str) -> None:
    shared = Path(url.removeprefix("sqlite:///")).parent / "shared"
    found = _posted(replace(arm, checkpoints=shared), url)
    assert found.job.arm.checkpoints == shared
    noted = notes(open_storage(url).engine, arm.sweep, (JOB, IDENTITY, CHECKPOINTS))
    (other,) = taken_down(noted, url, "http://host:1", Path("/mounted"))
    assert other.job.arm == replace(found.job.arm, checkpoints=Path("/mounted"))


def test_a_script_s_own_task_is_refused_by_its_arm(arm: Arm, url: str) -> None:
    given = replace(arm, task=replace(arm.task, pickled=b"code"))
    held = open_storage(url)
    post(Studies(held, arm.sweep), [Job(given, "sgd", "", "run")])
    with pytest.raises(UserError, match=r"object of the script.*task\._target_"):
        taken_down(notes(held.engine, arm.sweep, (JOB,)), url, "http://host:1")


def test_who_helps_is_seen_and_what_a_worker_has_is_found(arm: Arm, url: str) -> None:
    held = open_storage(url)
    studies = Studies(held, arm.sweep)
    with studies.take_seat([arm.name], whole=True) as seat:
        studies.enqueue(seat, arm.name, Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"))
        with Help(held.engine, arm.sweep, 3) as found:
            (work,) = studies.pop(arm.name, Phase.SEARCH, process_name(), 60.0, 1)
            assert found.held_by([process_name()]) == [work.claim]
            assert found.held_by(["somebody"]) == []
            lines = list(status_of(url, arm.sweep).lines())
            assert any(line.startswith("3 workers of `optsweep work`: process ") for line in lines), lines
            assert any(line.startswith("worker with 1 trial: process ") for line in lines), lines
            assert found.planner() is not None
        assert not any("optsweep work" in line for line in status_of(url, arm.sweep).lines())
    assert Help(held.engine, arm.sweep, 1).planner() is None


class _Pool(LocalPool):
    """One that only notes what it is told."""

    def __init__(self) -> None:
        super().__init__(1)
        self.assigned: list[list[str]] = []

    def ask(self, request: Any, tell: Any = None) -> Any:
        return [""] * len(request.posted)

    def assign(self, jobs: Sequence[Job]) -> None:
        self.assigned.append([job.label for job in jobs])


def _post(studies: Studies, arm: Arm, label: str) -> None:
    """As a planner does, one arm after the other."""
    post(studies, [Job(arm, label, "print", "run")])
    studies.set_note(arm.name, IDENTITY, {"exact": {}, "approximate": {}})


def test_what_is_posted_later_is_worked_too_and_the_same_again_disturbs_nobody(
    arm: Arm, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = open_storage(url)
    studies, other = Studies(held, arm.sweep), replace(arm, axes={"trainer.steps": "4"})
    for each in (arm, other):
        studies.set_note(each.name, PLANNED, [1, 1, 1])
    _post(studies, arm, "first")
    pool, compared, said = _Pool(), list[list[str]](), list[str]()

    def beside(posted: Sequence[Posted]) -> list[str]:
        compared.append([held.job.label for held in posted])
        return [""] * len(posted)

    def finish_all() -> None:
        for each in (arm, other):
            studies.set_note(each.name, FINISHED, [1, 1, 1])

    seats = ExitStack()

    def command_again() -> None:
        seats.close()
        seats.enter_context(studies.take_seat([arm.name], whole=True))

    steps: Iterator[Callable[[], None]] = iter([lambda: _post(studies, other, "second"), command_again, finish_all])
    monkeypatch.setattr(Helper, "_watch", lambda self, stop, until: next(steps)())
    with seats, Help(held.engine, arm.sweep, 1) as help_:
        seats.enter_context(studies.take_seat([arm.name], whole=True))
        helper = Helper(held, studies, pool, help_, storage_outage(url), said.append, beside)
        noted = (JOB, IDENTITY)
        helper.run(
            lambda: taken_down(
                {name: of for name, of in notes(held.engine, arm.sweep, noted).items() if set(noted) <= of.keys()},
                url,
                "http://host:1",
            ),
            60.0,
        )
    assert pool.assigned == [["first"], ["first", "second"]]
    assert compared == [["second"]]
    assert said[-1] == "sweep far is done"


def test_stores_and_sweeps_that_are_not_there_are_refused(
    arm: Arm, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def help_out(sweep: str, workers: int | None = 1) -> None:
        work_elsewhere(url, f"sqlite:///{tmp_path}/mlflow.db", sweep, workers, lambda line: None)

    with pytest.raises(UserError, match=r"tracking\.storage: there is no store at"):
        help_out("far")
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"
    with pytest.raises(UserError, match="--workers: 0 is not allowed"):
        help_out("far", 0)
    Studies.open(url, "far").set_note(arm.name, PLANNED, [1, 1, 1])
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\0 and more")
    with pytest.raises(UserError, match=r"no sweep is called fat \(did you mean far"):
        help_out("fat")


def test_an_end_counts_as_written_once_the_store_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = use(FakeStore(), monkeypatch)
    spool = Spool.of(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db", "a")
    with_thread = Courier(spool, registers=True)
    log = write(with_thread.open("t"), "t")
    finish(log)
    assert one(store)[1:] == ("finished", "FINISHED"), "before the study is told"
    assert spool.trials() == []
    with_thread.close()


def test_a_store_that_stays_away_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeStore(cut=lambda number, name: "before"), monkeypatch)
    monkeypatch.setattr(courier, "PATIENCE_SECONDS", 0.05)
    spool = Spool.of(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db", "a")
    said: list[str] = []
    away = Courier(spool, said.append, registers=True)
    log = write(away.open("t"), "t")
    with pytest.raises(StoreFailureError):
        finish(log)
    assert spool.trials() == ["t"], "it waits where it is"
    away.close()


def test_names_that_a_server_would_not_take_are_refused_beforehand() -> None:
    server = "postgresql+psycopg://ann:hunter2@host/db"
    check_names("sqlite:///x.db", "s", ["a" * 600])
    check_names(server, "s", ["a" * 400])
    with pytest.raises(UserError, match=r"tracking\.storage: .*host/db takes names of 460 characters.*has 601") as said:
        check_names(server, "s", ["a", "b" * 600])
    assert "hunter2" not in str(said.value)


def test_one_database_for_both_stores_is_refused() -> None:
    runs = read_address(TRACKING_KEY, "postgresql+psycopg://ann:hunter2@host/db")
    check_apart(read_address(STORAGE_KEY, "postgresql+psycopg://ann:hunter2@host/studies"), runs)
    same = read_address(STORAGE_KEY, "postgresql://ann:hunter2@host/db")
    with pytest.raises(UserError, match=r"tracking\.storage: .*@host/db is tracking\.uri as well") as said:
        check_apart(same, runs)
    assert "hunter2" not in str(said.value)
    file = "sqlite:///mlruns/../both.db"
    with pytest.raises(UserError, match="a database of its own"):
        check_apart(read_address(STORAGE_KEY, file), read_address(TRACKING_KEY, "sqlite:///both.db"))


def test_a_server_s_driver_is_named_where_the_address_leaves_it_open() -> None:
    assert read_address(STORAGE_KEY, "postgresql://ann@host/db").text == "postgresql+psycopg://ann@host/db"
    assert read_address(STORAGE_KEY, "postgresql+psycopg2://ann@host/db").text == "postgresql+psycopg2://ann@host/db"
    missing = without_driver(STORAGE_KEY, "postgresql+psycopg://host", ImportError("No module named 'psycopg'"))
    assert "pip install 'optsweep[postgres]'" in str(missing)
