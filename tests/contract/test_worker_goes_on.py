"""A trial that one worker leaves is gone on with by the next one: same result, one run, no point twice."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.config.arm import Arm
from optsweep.launch.prepare.description import described
from optsweep.launch.tracked.describe import describe_arm
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.ranks.rendezvous import LostRank, RankError
from optsweep.launch.worker.worker import Worker
from optsweep.search.seats import Seat
from optsweep.search.slots import Slot
from optsweep.search.studies import WENT_ON, Studies
from optsweep.tracking import names
from optsweep.tracking.writer import Tracker
from optsweep.train.evaluate import evaluate
from optsweep.train.trial import Phase

NOT_NUMBERS = {names.TRAIN_SECONDS, names.PEAK_BYTES}


class Sweep:
    """An arm whose only slot is attempted by workers in turn."""

    def __init__(self, folder: Path, name: str, lanes: int) -> None:
        uri, storage = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db"
        self.arm: Arm = arm_with(
            {"schedule": "plateau", "averaging": "ema"},
            sweep__name=name,
            search__pruner="median",
            tracking__uri=uri,
            tracking__storage=storage,
            task__width=4,
            optimizer__lr=0.01,
            trainer__steps=12,
            trainer__rungs=3,
            trainer__lanes=lanes,
            trainer__checkpoint_seconds=1e-9,
        )
        tracker = Tracker(uri, name)
        self.job: Job = describe_arm(tracker, self.arm, described(self.arm, build_arm(self.arm)), "adamw")
        self.studies = Studies.open(storage, name)
        self.seat: Seat = self.studies.take_seat([self.arm.name], whole=True)
        self.client, self.experiment = MlflowClient(uri), tracker.experiment_id

    def attempt(self, *, pauses: int | None) -> None:
        """Train, up to so many pauses."""
        history = self.studies.history(self.arm.name, Phase.SEARCH, 1)
        earlier = history.earlier.get(0, ())
        slot = Slot(0, {}, 0, "fixed")
        self.studies.enqueue(self.seat, self.arm.name, Phase.SEARCH, slot, len(earlier), earlier=earlier)
        asked = count(1)
        worker = Worker([self.job], builds=Builds("cpu"), stopping=lambda: pauses is not None and next(asked) >= pauses)
        try:
            assert worker.work_once()
        finally:
            worker.close()

    @property
    def slot(self) -> Slot:
        return self.studies.history(self.arm.name, Phase.SEARCH, 1).slots[0]

    def runs(self) -> list[Run]:
        return list(self.client.search_runs([self.experiment], f"tags.`{names.KIND}` = 'trial'"))

    def curves(self, run: Run) -> dict[str, list[Metric]]:
        return {key: self.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}


@pytest.mark.parametrize("lost", [False, True])
def test_a_trial_goes_on_in_its_run_and_has_all_points_if_that_is_lost(lost: bool, tmp_path: Path) -> None:
    whole, cut = Sweep(tmp_path, "whole", lanes=2), Sweep(tmp_path, "cut", lanes=2)
    whole.attempt(pauses=None)
    cut.attempt(pauses=2)  # at the second evaluation
    folder = next((tmp_path / "checkpoints").iterdir())
    assert len(list(folder.iterdir())) == 1
    if lost:
        for run in cut.runs():
            cut.client.delete_run(run.info.run_id)
    cut.attempt(pauses=2)  # at the third: the first pause is after a step
    cut.attempt(pauses=None)
    assert cut.slot == whole.slot, "its rungs too, by which others are pruned"
    assert not folder.exists(), "a trial that has ended is kept no more"
    (expected,), (run,) = whole.runs(), cut.runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.STATUS] == "finished"
    curves = cut.curves(run)
    assert curves.keys() == whole.curves(expected).keys()
    for key, points in whole.curves(expected).items():
        if key not in NOT_NUMBERS:
            numbers = [(point.step, point.value) for point in points]
            assert [(point.step, point.value) for point in curves[key]] == numbers, key


def test_a_rank_that_dies_costs_what_a_worker_that_dies_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = Sweep(tmp_path, "whole", lanes=1), Sweep(tmp_path, "cut", lanes=1)
    whole.attempt(pauses=None)
    asked = count(1)

    def evaluated(*given: Any) -> Any:
        if next(asked) == 3:
            raise RankError(LostRank("rank 1 died (SIGKILL)", died=True))
        return evaluate(*given)

    with monkeypatch.context() as patched:
        patched.setattr("optsweep.train.run.evaluate", evaluated)
        cut.attempt(pauses=None)
    assert len(cut.studies.history(cut.arm.name, Phase.SEARCH, 1).earlier[0]) == 1
    assert len(list((tmp_path / "checkpoints").rglob("*.pt"))) == 1
    cut.attempt(pauses=None)
    assert cut.slot == whole.slot
    trial = cut.studies.trials(cut.arm.name, Phase.SEARCH)[-1]
    assert WENT_ON in trial.user_attrs
    (run,) = cut.runs()
    assert run.data.tags[names.STATUS] == "finished"


def test_damage_and_errors_cost_an_attempt_and_not_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(tmp_path, "cut", 1)
    sweep.attempt(pauses=2)
    (path,) = (tmp_path / "checkpoints").rglob("*.pt")
    path.write_bytes(path.read_bytes()[:-100])
    sweep.attempt(pauses=2)
    said = capsys.readouterr().err
    assert "is set aside, because it is damaged; the trial starts anew" in said
    assert len(list((tmp_path / "checkpoints").rglob("*.pt"))) == 1
    with monkeypatch.context() as patched:
        patched.setattr("optsweep.train.run.evaluate", lambda *_: 1 / 0)
        sweep.attempt(pauses=None)
    assert not list((tmp_path / "checkpoints").rglob("*.pt")), "its state may be the reason"
    assert not sweep.studies.history(sweep.arm.name, Phase.SEARCH, 1).earlier.get(0)
    sweep.attempt(pauses=None)
    assert sweep.slot.value is not None
    *crashed, finished = sorted(run.data.tags[names.STATUS] for run in sweep.runs())
    assert (set(crashed), finished) == ({"crashed"}, "finished"), "of the first attempts where they took long"
