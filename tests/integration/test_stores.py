"""Whole small sweeps whose stores are deleted or replaced: what is reported is what was asked for and trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arms import arm_with
from optsweep.config.arm import Arm
from optsweep.database import StoreGoneError
from optsweep.launch.events import Event, Note, Progressed
from optsweep.launch.last_page import note_report
from optsweep.launch.outcome import SweepResult
from optsweep.launch.sweep import run_sweep
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.reader import ArmRecord, load_sweep
from optsweep.train.trial import Phase

STEPS = 10


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arm(steps: int = STEPS) -> Arm:
    found = arm_with({}, trainer__steps=steps, trainer__rungs=2, confirm__seeds=2, task__width=8)
    return replace(found, sweep="s", tracking_uri="sqlite:///mlruns/mlflow.db", storage="sqlite:///mlruns/optuna.db")


def run(told: list[str], steps: int = STEPS) -> SweepResult:
    """The sweep, and its report, as far as the stores know of it."""

    def hear(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.text)

    result = run_sweep([arm(steps)], workers=0, observe=hear)
    note_report(result)
    return result


def stored() -> ArmRecord:
    client = store.client(arm().tracking_uri)
    (found,) = load_sweep(client, "s", store.find_experiment(client, "s")).arms
    return found


def told_losses() -> list[float | None]:
    trials = Studies.open(arm().storage, "s").trials(arm().name, Phase.CONFIRM)
    return [trial.value for trial in trials if trial.state.name == "COMPLETE"]


def test_a_deleted_store_is_made_good_and_said(here: Path) -> None:
    told: list[str] = []
    first = run(told)
    assert told == []
    assert run(told).reported
    for file in here.glob("mlruns/optuna.db*"):
        file.unlink()
    again = run(told, steps=3 * STEPS)
    assert not again.reported
    assert again.results != first.results
    assert told.pop(0) == "3 runs in mlflow.db are of no result in optuna.db: set aside"
    assert "was of other trials" in told.pop(0)
    assert told == []
    assert stored().facts["num_steps"] == 3 * STEPS
    assert [trial.metric("val/loss") for trial in stored().trials] == told_losses()
    for file in here.glob("mlruns/mlflow.db*"):
        file.unlink()
    third = run(told, steps=3 * STEPS)
    assert told == ["2 trials have no curves in mlflow.db any more: they are run again"]
    assert not third.reported
    assert third.trials == 2
    assert [trial.metric("val/loss") for trial in stored().trials] == told_losses()
    assert run(told, steps=3 * STEPS).reported


@pytest.mark.parametrize("what", ["mlruns", "mlruns/optuna.db", "mlruns/mlflow.db"])
def test_a_store_that_vanishes_while_a_sweep_runs_ends_it(here: Path, what: str) -> None:
    def lose(event: Event) -> None:
        if isinstance(event, Progressed) and event.arms[0].done == 1:
            Path(what).rename("elsewhere")

    with pytest.raises(StoreGoneError) as raised:
        run_sweep([arm()], workers=0, observe=lose)
    key = "tracking.storage" if "optuna" in what else "tracking.uri"
    assert str(raised.value).startswith(f"{key}: mlruns/")
    assert "\n" not in str(raised.value)
    assert not Path(what).exists()
