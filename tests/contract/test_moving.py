"""A sweep is copied to other stores, compared, and only then set aside where it was."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import update

from optsweep.errors import UserError
from optsweep.launch import moving
from optsweep.launch.moving import BothStores, move, moved_command
from optsweep.launch.status import status_of
from optsweep.search.moving import copy_studies, studies_content
from optsweep.search.process import process_name
from optsweep.search.seats import SeatLostError
from optsweep.search.slots import Slot
from optsweep.search.storage import open_storage
from optsweep.search.studies import Studies
from optsweep.search.tables import SEATS
from optsweep.tracking import names, store
from optsweep.tracking.contents import histories, whole_runs
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.moving import Experiment, bring_runs
from optsweep.tracking.schema import ArmSheet, SweepSheet, TrialHead
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase

ARMS = ("task=a optimizer=sgd", "task=a optimizer=soap")
DEAD = "gone/1/1.1.1"
SWEEP = "moves"


@dataclass(frozen=True)
class Ground:
    """Where the sweep is, and where it is to go."""

    source: BothStores
    target: BothStores


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making its tables takes seconds."""
    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    store.check(f"sqlite:///{file}")
    return file


@pytest.fixture
def ground(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """Two arms with a result each, files and all, and a trial that a dead worker has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optsweep.launch.worker.leases.is_alive", lambda name: name != DEAD)
    monkeypatch.setattr("optsweep.search.signs.is_alive", lambda name: name != DEAD)
    made = [
        BothStores(f"sqlite:///{tmp_path}/{n}/optuna.db", f"sqlite:///{tmp_path}/{n}/mlflow.db") for n in ("a", "b")
    ]
    source = made[0]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(tables, tmp_path / folder)
    tracker, studies = Tracker(source.tracking_uri, SWEEP), Studies.open(source.storage, SWEEP)
    tracker.write_sheet(tracker.sweep_run(), SweepSheet(command="optsweep -m tracking.storage=x sweep.name=moves"))
    with studies.take_seat(ARMS, whole=True) as seat:
        for arm in ARMS:
            parent = tracker.arm_run(arm, arm)
            tracker.write_sheet(parent, ArmSheet(arm, arm))
            tracker.set_dataset(parent, "a", "digest", "here", {})
            tracker.set_tags(parent, {names.NOTE: f"see run {parent}"})
            studies.set_note(arm, "planned", [1, 0, 1])
            for number in range(2):
                studies.enqueue(seat, arm, Phase.SEARCH, Slot(number, {"lr": 0.1 / 3}, number, "model"))
        for arm in ARMS:
            _train(studies, tracker, arm)
        studies.pop(ARMS[0], Phase.SEARCH, DEAD, -1.0, 1)
    return Ground(source, made[1])


def _train(studies: Studies, tracker: Tracker, arm: str) -> None:
    (work,) = studies.pop(arm, Phase.SEARCH, process_name(), 60.0, 1)
    studies.report(work.claim, 5, 1 / 7, 60.0)
    head = TrialHead(arm, Phase.SEARCH, 0, 0, "model", {"lr": 0.1 / 3}, id=work.id, label=arm)
    log = TrialLog(AtOnce(tracker), tracker.arm_run(arm, arm), head.run_name, head, "accuracy")
    outcome = Outcome(End.FINISHED, 10, 1 / 3, 0.5, None, None, 1.5, 10, artifacts={"path.csv": "1,2\n"})
    log.end(outcome)
    studies.tell(work.claim, End.FINISHED, 1 / 3, 1.5)


def _content(stores: BothStores) -> object:
    return studies_content(open_storage(stores.storage).engine, SWEEP)


def _runs(uri: str) -> dict[str, tuple[object, ...]]:
    """By name, what a report would read of them."""
    client = store.client(uri)
    experiment = client.get_experiment_by_name(SWEEP)
    assert experiment is not None
    found = whole_runs(client, experiment.experiment_id)
    parents = {run.info.run_id: run.info.run_name for run in found}
    curves = histories(client, {run.info.run_id: list(run.data.metrics) for run in found})
    return {
        f"{run.info.run_name} of {parents.get(run.data.tags.get(names.PARENT, ''))}": (
            run.info.status,
            run.info.start_time,
            run.data.params,
            {key: points for (of, key), points in curves.items() if of == run.info.run_id},
            [file.path for file in client.list_artifacts(run.info.run_id)],
        )
        for run in found
    }


def test_a_sweep_is_all_there_afterwards_and_comes_back(ground: Ground) -> None:
    studies, runs = _content(ground.source), _runs(ground.source.tracking_uri)
    said: list[str] = []
    move(SWEEP, ground.source, ground.target, said.append)
    assert _content(ground.target) == studies
    assert _runs(ground.target.tracking_uri) == runs
    tracker = Tracker(ground.target.tracking_uri, SWEEP)
    for arm in ARMS:
        parent = tracker.arm_run(arm, arm)
        assert tracker.arm_sheet(parent) == ArmSheet(arm, arm)
        assert tracker.client.get_run(parent).data.tags[names.NOTE] == f"see run {parent}"
    sheet = tracker.sweep_sheet(tracker.sweep_run())
    assert sheet is not None
    assert sheet.command.startswith("optsweep -m sweep.name=moves tracking.storage=sqlite:///")
    assert "4 trials of 2 arms" in said[0]
    with pytest.raises(UserError, match="no sweep is called moves"):
        status_of(ground.source.storage, SWEEP)
    move(SWEEP, ground.target, ground.source, said.append)
    assert _content(ground.source) == studies
    assert _runs(ground.source.tracking_uri) == runs


def test_the_dead_worker_s_trial_is_run_again_there(ground: Ground) -> None:
    move(SWEEP, ground.source, ground.target, lambda line: None)
    studies = Studies.open(ground.target.storage, SWEEP)
    (running,) = studies.history(ARMS[0], Phase.SEARCH, 1).running
    assert running.lease.worker == DEAD
    assert studies.fail(running.lease.claim, "its worker was lost", died=True)
    assert len(studies.pop(ARMS[1], Phase.SEARCH, "worker", 60.0, 5)) == 1, "what waited waits there"


@pytest.mark.parametrize("cut", ["copy_studies", "rename_studies", "Experiment.add", "Experiment.retire"])
def test_who_is_killed_over_it_goes_on(cut: str, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    before, runs = _content(ground.source), _runs(ground.source.tracking_uri)
    calls = iter(range(100))
    whose, _, name = cut.rpartition(".")
    of = getattr(moving, whose) if whose else moving
    whole = getattr(of, name)

    def killed(*given: object) -> object:
        if next(calls) == (3 if name == "add" else 0):
            raise KeyboardInterrupt
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(of, name, killed)
        with pytest.raises(KeyboardInterrupt):
            move(SWEEP, ground.source, ground.target, lambda line: None)
    assert _content(ground.source) == before, "the source is as it was"
    move(SWEEP, ground.source, ground.target, lambda line: None)
    assert _content(ground.target) == before
    assert _runs(ground.target.tracking_uri) == runs
    experiment = MlflowClient(ground.target.tracking_uri).get_experiment_by_name(SWEEP)
    assert experiment is not None
    assert len(whole_runs(MlflowClient(ground.target.tracking_uri), experiment.experiment_id)) == 5, "none twice"


def _killed(*given: object) -> None:
    raise KeyboardInterrupt


def test_who_is_killed_over_moving_it_on_goes_on(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = _runs(ground.source.tracking_uri)
    move(SWEEP, ground.source, ground.target, lambda line: None)
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "retire", _killed)
        with pytest.raises(KeyboardInterrupt):
            move(SWEEP, ground.target, ground.source, lambda line: None)
    move(SWEEP, ground.target, ground.source, lambda line: None)
    assert _runs(ground.source.tracking_uri) == runs


def test_what_somebody_changes_meanwhile_is_not_set_aside(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = Studies.open(ground.source.storage, SWEEP)
    bring = bring_runs

    def bring_and_change(source: Experiment, target: Experiment) -> str:
        studies.set_note(ARMS[0], "changed", True)
        return bring(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(moving, "bring_runs", bring_and_change)
        with pytest.raises(UserError, match="differ there; nothing is set aside"):
            move(SWEEP, ground.source, ground.target, lambda line: None)
    assert _content(ground.target) == {}
    move(SWEEP, ground.source, ground.target, lambda line: None)
    assert Studies.open(ground.target.storage, SWEEP).note(ARMS[0], "changed")


def test_a_sweep_that_another_planner_has_by_now_is_not_set_aside(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = Studies.open(ground.source.storage, SWEEP)
    copy = copy_studies

    def copy_and_sleep(*given: Any) -> None:
        copy(*given)
        with studies.engine.begin() as connection:
            connection.execute(update(SEATS).values(token="another's", holder=process_name()))

    monkeypatch.setattr(moving, "copy_studies", copy_and_sleep)
    with pytest.raises(SeatLostError):
        move(SWEEP, ground.source, ground.target, lambda line: None)
    assert _runs(ground.source.tracking_uri)
    assert status_of(ground.source.storage, SWEEP).done == 2


def test_not_while_a_worker_holds_a_trial(ground: Ground) -> None:
    studies = Studies.open(ground.source.storage, SWEEP)
    (work,) = studies.pop(ARMS[1], Phase.SEARCH, process_name(), 60.0, 1)
    with pytest.raises(UserError, match="trains for this sweep"):
        move(SWEEP, ground.source, ground.target, lambda line: None)
    assert studies.fail(work.claim, "stopped", excused=True)
    with studies.take_seat(ARMS, whole=True), pytest.raises(UserError, match="has been running this sweep"):
        move(SWEEP, ground.source, ground.target, lambda line: None)


def test_another_sweep_of_that_name_is_left_alone(ground: Ground) -> None:
    studies = Studies.open(ground.target.storage, SWEEP)
    with studies.take_seat(ARMS, whole=True) as seat:
        studies.enqueue(seat, ARMS[0], Phase.SEARCH, Slot(0, {"lr": 1.0}, 0, "model"))
    with pytest.raises(UserError, match="there is a sweep moves at"):
        move(SWEEP, ground.source, ground.target, lambda line: None)
    with pytest.raises(UserError, match="is there already"):
        move(SWEEP, ground.source, ground.source, lambda line: None)
    assert _runs(ground.source.tracking_uri)


def test_a_sweep_whose_name_differs_in_a_capital_stays(ground: Ground) -> None:
    other = Studies.open(ground.source.storage, SWEEP.capitalize())
    with other.take_seat(ARMS, whole=True) as seat:
        other.enqueue(seat, ARMS[0], Phase.SEARCH, Slot(0, {"lr": 1.0}, 0, "model"))
    before = studies_content(other.engine, other.sweep)
    assert list(before) == [f"Moves | {ARMS[0]} | search"]
    move(SWEEP, ground.source, ground.target, lambda line: None)
    assert studies_content(other.engine, other.sweep) == before
    assert not studies_content(open_storage(ground.target.storage).engine, other.sweep)


def test_a_command_names_its_stores_anew_and_no_password() -> None:
    target = BothStores("postgresql+psycopg://ann:hunter2@host/db", "http://host:5000")
    moved = moved_command("optsweep -m 'search.over=[lr,b]' +tracking.uri=x tracking.storage=y sweep.name=a", target)
    assert moved == (
        "optsweep -m 'search.over=[lr,b]' sweep.name=a \"tracking.storage='postgresql+psycopg://ann:***@host/db'\" "
        "tracking.uri=http://host:5000"
    )
    local = BothStores("sqlite:///mlruns/optuna.db", "sqlite:///mlruns/mlflow.db")
    assert moved_command(moved, local) == "optsweep -m 'search.over=[lr,b]' sweep.name=a"
