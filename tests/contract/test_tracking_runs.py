"""The runs that the product leaves in MLflow: found again whatever their names are; few tags; older stores refused."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from arms import arm_with
from optsweep.build.assemble import Built
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch.prepare.description import Description, described, schedule_trace
from optsweep.launch.sweep import run_sweep
from optsweep.launch.tracked.curves import summarise_arms
from optsweep.launch.tracked.describe import describe_arm, describe_sweep
from optsweep.launch.worker.builds import Builds
from optsweep.optim.schedules import Schedule
from optsweep.report.comparison import compare
from optsweep.report.verdict import verdict
from optsweep.search.studies import Studies
from optsweep.tracking import names, store
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.names import Status
from optsweep.tracking.reader import load_sweep
from optsweep.tracking.schema import Chosen, Timing, TrialHead
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase

NAMES = ("it's", 'a "b"', 'it\'s "so"', "a\\b", "a\\'b", "100%", "a_b", "axb", "a`b", "λ→∞ ½", "''", "a;--", "' or '1")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making its tables takes seconds."""
    found = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    store.check(found)
    return found


@pytest.fixture(scope="module")
def built() -> list[tuple[Arm, Built]]:
    """Two arms of one task."""
    builds, arms = Builds(), (arm_with({}), arm_with({"optimizer": "lion"}))
    return [(arm, builds.of(arm)) for arm in arms]


@pytest.fixture(scope="module")
def pair(built: list[tuple[Arm, Built]]) -> list[tuple[Arm, Description]]:
    """The same, as their planner knows them."""
    return [(arm, described(arm, b)) for arm, b in built]


def head(arm: str, slot: int, phase: Phase = Phase.CONFIRM) -> TrialHead:
    return TrialHead(arm, phase, slot, slot, "chosen", {"lr": 1e-3})


def test_an_arm_is_found_again_whatever_its_name_is(uri: str) -> None:
    tracker = Tracker(uri, "names")
    tracker.sweep_run()
    created = {name: tracker.arm_run(name, name) for name in NAMES}
    for name, run in created.items():
        TrialLog(AtOnce(tracker), run, "t", head(name, 0), "accuracy").write()
        TrialLog(AtOnce(tracker), run, "t", head(name, 1), "accuracy").write()
    again = Tracker(uri, "names")  # as a worker, or a later call
    assert {name: again.arm_run(name, name) for name in NAMES} == created
    for name in NAMES:
        assert len(again.trials(name)) == 2
        again.lost_trials(name, Phase.CONFIRM, 0, "cut off")
        again.supersede(name, [1])
    for name in NAMES:
        tags = {run.data.params["slot"]: run.data.tags for run in again.trials(name)}
        assert [tags[slot][names.STATUS] for slot in "01"] == [Status.CRASHED, Status.RUNNING]
        assert [tags[slot][names.PHASE] for slot in "01"] == [Phase.CONFIRM.value, names.SUPERSEDED]
    loaded = load_sweep(tracker.client, "names", tracker.experiment_id)
    assert {arm.name: [trial.error for trial in arm.trials] for arm in loaded.arms} == {
        name: ["cut off"] for name in NAMES
    }


def test_an_arm_of_the_plan_that_has_not_started_is_named(uri: str, pair: list[tuple[Arm, Description]]) -> None:
    """By what the product writes, and in the report's words."""
    tracker = Tracker(uri, "absent")
    arms = [arm for arm, _ in pair]
    labels = {arms[0].name: "zebra", arms[1].name: "ant"}
    describe_sweep(tracker, arms, labels, None, "cpu", "optsweep")
    describe_arm(tracker, *pair[0], "zebra")
    sweep = load_sweep(tracker.client, "absent", tracker.experiment_id)
    assert sweep.absent == ("ant",)
    (group,) = compare([sweep])
    assert "Partial: ant has not started." in verdict(group).caveats
    describe_arm(tracker, *pair[1], "ant")
    sweep = load_sweep(tracker.client, "absent", tracker.experiment_id)
    assert sweep.absent == ()
    assert [arm.label for arm in sweep.arms] == ["zebra", "ant"], "in the order of the plan"


def test_a_later_call_keeps_what_an_earlier_one_left(uri: str, pair: list[tuple[Arm, Description]]) -> None:
    """Arms that it doesn't know, planned looks, the baseline, choices and timings."""
    tracker = Tracker(uri, "again")
    (first, built), (second, _) = pair
    auto = replace(first, confirm_seeds="auto")
    run, _ = describe_sweep(
        tracker, [auto, second], {first.name: "one", second.name: "two"}, second.name, "cpu", "optsweep"
    )
    job = describe_arm(tracker, first, built, "one")
    chosen = Chosen({"lr": 0.5}, 0.0, 2, {"lr": {"low": True, "high": False}}, {"lr": (0.1, 1.0)}, (3, 4))
    tracker.note_chosen(job.parent_run, chosen)
    tracker.note_timing(job.parent_run, Timing(2.0, 1.0, 3.0, 5))
    tracker.note_report(run, "results")
    later = Tracker(uri, "again")
    same, plan = describe_sweep(later, [first], {first.name: "renamed"}, None, "cpu", "optsweep")
    assert same == run
    assert [title.label for title in plan.arms] == ["renamed", "two"]
    assert plan.baseline == second.name
    assert plan.confirm.looks == (5, 10, 20)
    assert describe_arm(later, first, built, "renamed") == replace(job, label="renamed")
    sheet, whole = later.arm_sheet(job.parent_run), later.sweep_sheet(run)
    assert sheet is not None
    assert whole is not None
    assert (sheet.label, sheet.chosen, sheet.timing) == ("renamed", chosen, Timing(2.0, 1.0, 3.0, 5))
    assert (whole.reported, whole.plan) == ("results", plan)


def test_people_see_six_short_tags_at_most(uri: str, pair: list[tuple[Arm, Description]]) -> None:
    tracker = Tracker(uri, "tags")
    describe_sweep(tracker, [arm for arm, _ in pair], {arm.name: arm.name for arm, _ in pair}, None, "cpu", "optsweep")
    job = describe_arm(tracker, *pair[0], "adamw + cosine")
    diverged = TrialLog(AtOnce(tracker), job.parent_run, "t", head(job.arm.name, 0), "accuracy")
    diverged.end(Outcome(End.DIVERGED, 4, 9.0, 0.0, None, None, 1.0, 8, "training loss was not finite at step 4"))
    TrialLog(AtOnce(tracker), job.parent_run, "t", head(job.arm.name, 1), "accuracy").crash("OSError: the disk is gone")
    runs = store.runs(tracker.client, tracker.experiment_id)
    assert len(runs) == 4
    for run in runs:
        seen = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
        assert len(seen) <= 6
        assert all(len(value) <= 80 for value in seen.values()), seen
    by_kind: Mapping[str, Mapping[str, str]] = {run.data.tags[names.KIND]: run.data.tags for run in runs}
    assert "optsweep" in by_kind["sweep"]["mlflow.note.content"]
    assert "parameters" in by_kind["arm"]["mlflow.note.content"]


def test_median_curves_have_a_slot_that_ran_twice_once(uri: str, pair: list[tuple[Arm, Description]]) -> None:
    """The first attempt's result was never told, so its run is no result of the sweep's."""
    tracker = Tracker(uri, "medians")
    job = describe_arm(tracker, *pair[0], "a")
    for loss in (5.0, 1.0):
        log = TrialLog(AtOnce(tracker), job.parent_run, "t", head(job.arm.name, 0), "accuracy")
        log.end(Outcome(End.FINISHED, 4, loss, 0.5, loss, 0.5, 1.0, 8, ""))
    summarise_arms(tracker, {job.arm.name: job.parent_run})
    found = tracker.client.get_metric_history(job.parent_run, names.TEST_LOSS)
    assert [point.value for point in found] == [1.0]


def test_what_was_said_of_an_arm_of_other_settings_is_not_kept(uri: str, pair: list[tuple[Arm, Description]]) -> None:
    tracker = Tracker(uri, "other settings")
    (arm, built), (_, other) = pair
    job = describe_arm(tracker, arm, other, "a")
    tracker.note_timing(job.parent_run, Timing(2.0, 1.0, 3.0, 5))
    describe_arm(tracker, arm, built, "a")
    sheet = tracker.arm_sheet(job.parent_run)
    assert sheet is not None
    assert (sheet.timing, sheet.fingerprint) == (None, built.fingerprint)


# -- versions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "age"), [({"optsweep.plan": "{}"}, "an older"), ({}, "an older"), ({"optsweep.schema": "99"}, "a newer")]
)
def test_a_sweep_of_another_version_is_neither_read_nor_gone_on_with(
    uri: str, tmp_path: Path, pair: list[tuple[Arm, Description]], tags: Mapping[str, str], age: str
) -> None:
    name = f"old {sorted(tags)}"
    client = store.client(uri)
    experiment = client.create_experiment(name)
    client.create_run(experiment, tags={"optsweep.kind": "sweep", **tags})
    said = f"tracking.uri: sweep {name} was written by {age} version of optsweep; give another sweep.name"
    with pytest.raises(UserError) as refused:
        load_sweep(client, name, experiment)
    assert str(refused.value) == said
    storage = f"sqlite:///{tmp_path}/optuna.db"
    arm = replace(pair[0][0], sweep=name, tracking_uri=uri, storage=storage)
    with pytest.raises(UserError) as refused:
        run_sweep([arm], workers=0)
    assert str(refused.value) == said
    assert len(store.runs(client, experiment)) == 1
    assert Studies.open(storage, name).note(arm.name, "planner") is None


def test_a_second_call_for_a_sweep_that_runs_is_refused_and_writes_nothing(
    uri: str, tmp_path: Path, pair: list[tuple[Arm, Description]]
) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    arm = replace(pair[0][0], sweep="runs", tracking_uri=uri, storage=storage)
    studies = Studies.open(storage, arm.sweep)
    with studies.take_seat([arm.name], whole=True), pytest.raises(UserError) as refused:
        run_sweep([arm], workers=0)
    assert str(refused.value).startswith(f"sweep.name=runs: process {os.getpid()} on host {socket.gethostname()} has ")
    assert "\n" not in str(refused.value)
    assert store.client(uri).get_experiment_by_name("runs") is None
    assert not studies.trials(arm.name, Phase.SEARCH)
    assert studies.note(arm.name, "content") is None


# -- schedules -----------------------------------------------------------------------------------------------------


def test_every_step_of_a_schedule_is_stored_and_read(uri: str, built: list[tuple[Arm, Built]]) -> None:
    tracker = Tracker(uri, "schedule")
    arm, b = built[0]
    program = replace(b.program, num_steps=40, schedule=Schedule("linear", {}, "linear", 10))
    describe_sweep(tracker, [arm], {arm.name: "a"}, None, "cpu", "optsweep")
    describe_arm(tracker, arm, described(arm, replace(b, program=program)), "a")
    (record,) = load_sweep(tracker.client, "schedule", tracker.experiment_id).arms
    assert record.schedule is not None
    assert record.schedule.steps.tolist() == list(range(40))
    by_hand = [(step + 1) / 10 for step in range(10)] + [1 - k / 29 for k in range(30)]
    assert record.schedule.multipliers == pytest.approx(by_hand)
    assert record.facts["samples_seen"] == 40 * program.batch_size


def test_a_long_schedule_is_thinned_and_keeps_its_ends_and_its_corner(built: list[tuple[Arm, Built]]) -> None:
    program = replace(built[0][1].program, num_steps=30_011, schedule=Schedule("linear", {}, "linear", 1_237))
    trace = schedule_trace(program)
    assert trace is not None
    assert 2_000 <= len(trace.steps) <= 2_003
    assert np.diff(trace.steps).max() <= 16
    assert {0, 1_236, 1_237, 1_238, 30_010} <= set(trace.steps.tolist())
    after = 1 - (trace.steps - 1_237) / (30_010 - 1_237)
    assert trace.multipliers == pytest.approx(np.where(trace.steps < 1_237, (trace.steps + 1) / 1_237, after))


def test_a_schedule_that_listens_has_no_trace(built: list[tuple[Arm, Built]]) -> None:
    assert schedule_trace(replace(built[0][1].program, schedule=Schedule("plateau"))) is None


def test_two_processes_never_make_one_database_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def making(uri: str) -> MlflowClient:
        other = sqlite3.connect(tmp_path / "mlflow.db.lock", timeout=0, isolation_level=None)
        with contextlib.closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN EXCLUSIVE")
        seen.append(uri)
        return made(uri)

    made = store.client
    monkeypatch.setattr(store, "client", making)
    new = f"sqlite:///{tmp_path}/mlflow.db"
    store.check(new)
    store.check(new)  # the lock is free again
    assert seen == [new, new]
