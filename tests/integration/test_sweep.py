"""Whole sweeps, small: the same numbers whatever the workers, resumed, grown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from optsweep.errors import UserError
from optsweep.imported import TRUSTED_VARIABLE
from optsweep.launch.verify import verify
from optsweep.report.across.findings import across
from optsweep.report.comparison import compare
from optsweep.report.results import as_json, results
from optsweep.report.verdict import verdict
from optsweep.tracking import names
from optsweep.tracking.reader import TrialRecord, load_sweep
from optsweep.train.trial import Phase
from patience import PATIENCE_SECONDS
from sweeping import SWEEP, numbers, run, start


def test_every_arm_has_its_budget_and_mlflow_holds_every_curve(reference: Path) -> None:
    found = numbers(reference)
    assert len(found) == 4 * (4 + 2)
    assert all(value is not None for _, _, value in found.values())
    client = MlflowClient(f"sqlite:///{reference}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    trials = [r for r in runs if r.data.tags[names.KIND] == "trial"]
    parents = {r.info.run_id: r for r in runs if r.data.tags[names.KIND] == "arm"}
    assert len(trials) == 24
    assert len(parents) == 4
    assert {r.info.status for r in runs} == {"FINISHED"}
    for trial in trials:
        tags, metrics = trial.data.tags, trial.data.metrics
        assert tags["mlflow.parentRunId"] in parents
        assert len(metrics) <= 11
        assert {names.TRAIN_LOSS, names.VAL_LOSS, names.LR, names.GRAD_NORM, names.UPDATE_RATIO} <= set(metrics)
        assert (names.TEST_LOSS in metrics) == (tags[names.PHASE] == "confirm")
        assert {"lr", "weight_decay", "seed"} <= set(trial.data.params)
        params, _, value = found[tags[names.ARM], tags[names.PHASE], int(trial.data.params["slot"])]
        assert metrics[names.VAL_LOSS] == value
        assert float(trial.data.params["lr"]) == params["lr"]
    history_of = client.get_metric_history(trials[0].info.run_id, names.VAL_LOSS)
    assert [m.step for m in history_of] == [0, 10, 20]
    parent = next(iter(parents.values()))
    arms = load_sweep(client, "small", experiment.experiment_id).arms
    assert all(arm.timing is not None and arm.timing.ms_per_step > 0 for arm in arms)
    assert parent.inputs is not None
    assert parent.inputs.dataset_inputs[0].dataset.name == "digits_mlp"
    assert [a.path for a in client.list_artifacts(parent.info.run_id)] == ["config.yaml", "optsweep"]


@pytest.mark.parametrize("workers", [3])
def test_same_numbers_whatever_the_number_of_workers(reference: Path, folder: Path, workers: int) -> None:
    run(folder, "-m", *SWEEP, f"hydra.launcher.workers={workers}")
    assert numbers(folder) == numbers(reference)


def test_the_same_command_again_repeats_nothing_and_a_plan_may_grow(reference: Path, folder: Path) -> None:
    shutil.rmtree(folder / "mlruns")
    shutil.copytree(reference / "mlruns", folder / "mlruns")
    before = numbers(folder)
    out = run(folder, "-m", *SWEEP, "hydra.launcher.report=true")
    assert numbers(folder) == before
    assert "report" in out
    assert (folder / "reports" / "small" / "index.html").is_file()

    grown = [a for a in SWEEP if not a.startswith(("confirm.seeds", "optimizer="))]
    run(folder, "-m", *grown, "confirm.seeds=3", "optimizer=momentum,soap,adamw", "hydra.launcher.workers=1")
    after = numbers(folder)
    assert {key: after[key] for key in before} == before
    assert len(after) == 6 * (4 + 3)

    changed = [a for a in SWEEP if not a.startswith("trainer.steps")]
    process = start(folder, "-m", *changed, "trainer.steps=30")
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert "trainer.steps was 20, is 30" in out
    assert numbers(folder) == after


def trials(folder: Path) -> list[TrialRecord]:
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    sweep = load_sweep(client, "small", experiment.experiment_id)
    assert all(len(arm.all_chosen) == sweep.plan.repeats for arm in sweep.arms)
    return [trial for arm in sweep.arms for trial in arm.trials]


def test_a_repeat_is_a_search_of_its_own_and_the_first_is_the_single_one(folder: Path, tmp_path_factory: Any) -> None:
    few = [a for a in SWEEP if not a.startswith("schedule=")]
    run(folder, "-m", *few, "hydra.launcher.workers=2")
    single, ran = numbers(folder), {trial.run_id for trial in trials(folder)}
    run(folder, "-m", *few, "sweep.repeats=2", "hydra.launcher.workers=3")
    grown = trials(folder)
    assert numbers(folder) == single
    assert {trial.run_id for trial in grown if trial.repeat == 0} == ran  # nothing was run again
    second = numbers(folder, repeat=1)
    assert len(second) == len(single) == 2 * (4 + 2)

    points = {key: params for key, (params, _, _) in second.items() if key[1] == "search" and key[2] < 2}
    first = [params for key, (params, _, _) in single.items() if key in points]
    assert not any(params in first for params in points.values())
    seeds = {(trial.arm, trial.repeat): set[int]() for trial in grown}
    for trial in grown:
        if trial.phase is Phase.CONFIRM:
            seeds[trial.arm, trial.repeat].add(trial.seed)
    assert {frozenset(held) for (_, repeat), held in seeds.items() if repeat == 0} == {frozenset({0, 1})}
    assert {frozenset(held) for (_, repeat), held in seeds.items() if repeat == 1} == {frozenset({10**6, 10**6 + 1})}
    assert all(second[key][2] != value for key, (_, _, value) in single.items())

    other = tmp_path_factory.mktemp("other")
    run(other, "-m", *few, "sweep.repeats=2", "hydra.launcher.workers=1")
    assert (numbers(other), numbers(other, repeat=1)) == (single, second)


def test_a_stock_launcher_works_too_and_gives_the_same_numbers(reference: Path, folder: Path) -> None:
    stock = [a for a in SWEEP if not a.startswith("hydra.launcher")]
    run(folder, "-m", *stock, "hydra/launcher=basic")
    assert numbers(folder) == numbers(reference)
    assert (folder / "reports" / "small" / "index.html").is_file()


def test_lanes_external_optimizers_and_one_plain_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUSTED_VARIABLE, "pytorch_optimizer")
    small = [*(a for a in SWEEP[3:] if not a.startswith("search.over")), "hydra.launcher.workers=0"]
    external = "optimizer._target_=torch.optim.Adagrad,pytorch_optimizer.Lion"
    run(folder, "-m", "optimizer=external", external, "schedule=linear", "trainer.lanes=2", *small)
    found = numbers(folder)
    assert len(found) == 2 * 6
    assert all(value is not None for _, _, value in found.values())
    one = ["optimizer=soap", "schedule=cosine", "optimizer.lr=3e-3", "search=none", *small[:1], "trainer.steps=20"]
    out = run(folder, *one, "hydra.launcher.workers=0", "sweep.name=one")
    assert len(numbers(folder, "one")) == 1
    assert "reports/one/index.html" in out


def test_an_arm_s_own_curves_are_the_medians_over_its_confirm_trials(reference: Path) -> None:
    client = MlflowClient(f"sqlite:///{reference}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    arm = next(run for run in runs if run.data.tags[names.KIND] == "arm")
    confirm = [
        run
        for run in runs
        if run.data.tags.get(names.ARM) == arm.data.tags[names.ARM] and run.data.tags.get(names.PHASE) == "confirm"
    ]
    assert len(confirm) == 2
    for key in (names.VAL_LOSS, names.TEST_LOSS):
        middle = sum(run.data.metrics[key] for run in confirm) / 2
        assert arm.data.metrics[key] == pytest.approx(middle)
    curve = client.get_metric_history(arm.info.run_id, names.VAL_LOSS)
    assert [point.step for point in curve] == [0, 10, 20]


def test_choices_of_the_program_are_searched_grown_and_reported(folder: Path) -> None:
    """Batch size and clipping beside the LR, two lanes: trials of one program train together."""
    arguments = [
        *("task=iris_mlp", "optimizer=momentum", "search.over=[lr,task.batch_size,trainer.clip_norm]"),
        *("search.space.task.batch_size=[8,16]", "search.space.trainer.clip_norm=[0.5,null]", "confirm.seeds=2"),
        *("trainer.steps=20", "trainer.rungs=2", "trainer.lanes=2", "sweep.name=mixed", "hydra.launcher.workers=0"),
    ]
    run(folder, "-m", *arguments, "search.trials=4", "hydra.launcher.report=false")
    before = numbers(folder, "mixed")
    run(folder, "-m", *arguments, "search.trials=6")
    after = numbers(folder, "mixed")
    assert all(after[key] == value for key, value in before.items() if key[1] == "search")
    settings = [params for (_, phase, _), (params, _, _) in after.items() if phase == "search"]
    assert len(settings) == 6
    assert {params["task.batch_size"] for params in settings} == {8, 16}
    assert {params["trainer.clip_norm"] for params in settings} == {0.5, None}
    assert all(value is not None for _, _, value in after.values())
    (group,) = json.loads((folder / "reports" / "mixed" / "results.json").read_text())["groups"]
    (arm,) = group["arms"]
    chosen = arm["chosen"]["choices"]
    assert chosen["task.batch_size"] in (8, 16)
    assert {trial["params"]["task.batch_size"] for trial in arm["confirm"]} == {str(chosen["task.batch_size"])}
    assert arm["facts"]["batch_size"] == chosen["task.batch_size"]
    assert arm["facts"]["samples_seen"] == arm["samples_seen"] == 20 * chosen["task.batch_size"]
    page = (folder / "reports" / "mixed" / "index.html").read_text()
    assert f"task.batch_size {chosen['task.batch_size']}" in page


def test_results_say_enough_to_run_a_trial_again(reference: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{reference}/mlruns/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    sweeps = [load_sweep(client, "small", experiment.experiment_id)]
    groups = compare(sweeps)
    content = as_json(results(sweeps, [verdict(group) for group in groups], across(groups), []))
    path = tmp_path / "results.json"
    path.write_text(content)
    found = verify(path, share=0.1, seed=1)
    assert (len(found.reruns), found.of, found.agree) == (2, 24, True)
    stated = json.loads(content)
    for arm in stated["groups"][0]["arms"]:
        assert all(len(trial["val_loss_at_rungs"]) == len(arm["rungs"]) == 3 for trial in arm["confirm"])
        assert {trial["origin"] for trial in arm["search"]} >= {"quasi-random"}
        for trial in arm["search"]:
            trial["value"] += 0.1
        for trial in arm["confirm"]:
            trial["metrics"]["test/loss"] += 0.1
    path.write_text(json.dumps(stated))
    wrong = verify(path, share=0.1, seed=1)
    assert not wrong.agree
    assert wrong.reruns[0].arm in wrong.summary
    assert "2 don't agree" in wrong.summary
    del stated["groups"][0]["arms"][0]["config"]
    path.write_text(json.dumps(stated))
    with pytest.raises(UserError, match="doesn't say how"):
        verify(path)
