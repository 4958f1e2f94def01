"""A sweep's pages in MLflow: addresses, prepared views, what is said in its runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from hand_verdicts import BASE, arm, said, shifted
from optsweep.inference.repeats import seed_index
from optsweep.launch.tracked import home
from optsweep.launch.tracked.curves import spans, summary
from optsweep.report.across.findings import across
from optsweep.report.results import as_json, results
from optsweep.report.verdict import Verdict
from optsweep.tracking import links, names, store, views
from optsweep.tracking.rewrite import beside_others, rewrite_curves, rewrite_params
from optsweep.tracking.schema import SearchTerms, SweepPlan, TrialHead
from optsweep.tracking.views import Common
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

COMMON = Common("accuracy", "nats", searched=("lr", "weight_decay"))


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    found = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    store.check(found)
    return Tracker(found, "home")


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    return said(arm("adamw", BASE), arm("soap_x", shifted(-0.1)), repeats=1)


@pytest.fixture(scope="module")
def content(verdict: Verdict) -> dict[str, Any]:
    """As results.json has it."""
    sweep = verdict.group.sweep
    found: dict[str, Any] = json.loads(as_json(results([sweep], [verdict], across([verdict.group]), [])))
    return found


# -- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        links.all_sweeps(),
        links.sweep_page("7"),
        links.run_page("7", "abc"),
        links.artifact_page("7", "abc", "report/index.html"),
        links.compared(["a", "b"], "7"),
        links.compared(["a"], "7"),
    ],
)
def test_every_page_is_asked_for_among_those_for_training(address: str) -> None:
    fragment = urlsplit(address).fragment
    assert address.startswith("/#/")
    assert parse_qs(urlsplit(fragment).query)["workflowType"] == ["machine_learning"]


def test_a_sweep_s_page_leaves_the_choice_of_runs_to_its_view() -> None:
    """MLflow drops a view from an address that chooses runs itself."""
    asked = parse_qs(urlsplit(urlsplit(links.sweep_page("7", "seeds")).fragment).query)
    assert asked["viewStateShareKey"] == ["seeds"]
    assert asked["compareRunsMode"] == ["CHART"]
    assert not asked.keys() & {"searchFilter", "orderByKey", "orderByAsc", "startTime", "lifecycleFilter"}


# -- views ---------------------------------------------------------------------------------------------------------


def opened(key: str, common: Common = COMMON) -> Mapping[str, Any]:
    return views.state_of(views.tags(common)[names.VIEW + key])


def charts(state: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Those in sight, by section in order."""
    shown = [chart for chart in state["compareRunCharts"] if not chart["deleted"]]
    sections = {section["uuid"]: section["name"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in shown} == sections.keys()
    return {name: [c for c in shown if c["metricSectionId"] == uuid] for uuid, name in sections.items()}


def test_the_verdict_has_each_arm_s_mean_with_both_ends_first_and_its_cost_last() -> None:
    state = opened("verdict")
    found = charts(state)
    assert state["searchFilter"] == "tags.`optsweep.kind` = 'arm'"
    assert [name.partition(":")[0].partition(",")[0] for name in found] == [
        *("Validation loss", "Test loss (nats) and difference", "Learning rate", "Score", "Training", "Cost"),
    ]
    assert max(map(len, found)) <= 39, "longer ones are cut off at 1280 pixels"
    ((first,), *_, last) = found.values()
    assert first["selectedMetricKeys"] == ["val/loss", "val/loss_low", "val/loss_high"]
    assert [chart["metricKey"] for chart in last] == ["cost/ms_per_step", "cost/state_bytes", "cost/train_seconds"]
    assert {"metrics.`test/loss`", "tags.`outcome`", "params.`lr`"} <= set(state["selectedColumns"])
    assert state["isAccordionReordered"]  # else MLflow sorts the sections by name


def test_where_a_metric_decides_it_comes_before_the_loss() -> None:
    ((first, second), *_) = charts(opened("verdict", Common("auc", "nats", "1 − auc", ("lr",)))).values()
    assert (first["metricKey"], second["metricKey"]) == ("val/objective", "val/loss")
    assert [chart["displayName"] for chart in (first, second)] == [
        *("Validation 1 − auc: mean and its 95 % interval", "Validation loss (nats): mean and its 95 % interval"),
    ]
    (score,) = charts(opened("verdict", Common("auc")))["Score"]
    assert (score["metricKey"], score["displayName"]) == ("val/auc", "Validation auc: mean and its 95 % interval")


def test_the_search_has_loss_against_each_searched_key_by_its_logarithm() -> None:
    found = [chart for own in charts(opened("search")).values() for chart in own]
    assert [(c["xaxis"], c["yaxis"]["key"]) for c in found if c["type"] == "SCATTER"] == [
        ({"key": "log10_lr", "type": "PARAM"}, "val/loss"),
        ({"key": "log10_weight_decay", "type": "PARAM"}, "val/loss"),
    ]
    assert [c["selectedParams"] for c in found if c["type"] == "PARALLEL"] == [["log10_lr", "log10_weight_decay"]]
    alone = [chart for own in charts(opened("search", replace(COMMON, searched=("lr",)))).values() for chart in own]
    assert "PARALLEL" not in {chart["type"] for chart in alone}, "which says no more than the one scatter"


def test_seeds_are_grouped_by_arm() -> None:
    state = opened("seeds")
    assert state["groupBy"] == {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "arm"}]}
    assert state["useGroupedValuesInCharts"]


@pytest.mark.parametrize("key", views.KEYS)
def test_mlflow_has_no_chart_to_add_to_a_view(key: str) -> None:
    """It makes one for every curve that no chart of a view is of, and puts it among the others."""
    state = opened(key)
    assert set(COMMON.curves) <= {chart.get("metricKey") for chart in state["compareRunCharts"]}
    uuids = [chart["uuid"] for chart in state["compareRunCharts"]]
    assert len(uuids) == len(set(uuids))


def test_views_are_short_and_listed_in_reading_order() -> None:
    tags = views.tags(COMMON)
    assert all(len(text) < 5_000 for text in tags.values())  # of an experiment's tag, before MLflow 3.15
    told = sorted((json.loads(text) for text in tags.values()), key=lambda view: -int(view["createdAt"]))
    assert [view["name"].partition(":")[0] for view in told] == ["Verdict", "Search", "Seeds", "Cost"]
    assert all(view["state"].startswith("deflate;") for view in told)


def test_arms_have_in_common_what_all_of_them_search() -> None:
    assert home.in_common([(None, ["lr", "beta1"]), (None, ["weight_decay", "lr"])]).searched == ("lr",)
    assert home.in_common([(None, ["lr"]), (None, [])]).searched == ("lr",)  # one whose settings are given
    assert home.in_common([]).searched == ()


# -- what is said --------------------------------------------------------------------------------------------------


def test_an_arm_s_curve_is_the_mean_with_both_ends_of_its_interval() -> None:
    curves = {0: [(10, 1.0), (20, 2.0)], 1: [(10, 3.0), (20, 2.0)], 2: [(10, 2.0)]}
    found = {(key, step): value for key, value, step in summary("val/loss", curves)}
    assert found == {
        ("val/loss", 10): 2.0,
        ("val/loss_low", 10): pytest.approx(2.0 - 4.302653 / 3**0.5),
        ("val/loss_high", 10): pytest.approx(2.0 + 4.302653 / 3**0.5),
    }  # nothing at a step that a seed doesn't have
    assert [key for key, *_ in summary("train/lr", curves)] == ["train/lr"]
    assert list(summary("val/loss", {0: [(10, 1.8e308)], 1: [(10, 1.0)]})) == []


def test_an_axis_is_where_the_runs_end_and_holds_the_last_intervals(tracker: Tracker) -> None:
    """So that a steep start doesn't press what is compared into a line."""
    run = tracker.arm_run("task=a optimizer=spans", "spans")
    curves = {
        "val/loss": [(0, 9.0), (10, 2.0), (100, 1.0)],
        "val/loss_low": [(0, -50.0), (10, -9.0), (100, 0.5)],
        "val/loss_high": [(0, 90.0), (10, 20.0), (100, 1.5)],
        "train/loss": [(0, 1.0), (100, 1.0)],
    }
    points = [(key, value, step, step) for key, held in curves.items() for step, value in held]
    rewrite_curves(tracker, run, points)
    (found,) = spans(tracker, [run], ["val/loss", "train/loss"])  # a level curve needs no axis of its own
    key, *ends = found
    assert key == "val/loss"
    assert ends == pytest.approx([0.5 - 0.05 * 1.5, 2.0 + 0.05 * 1.5])
    ((first,), *_) = charts(opened("verdict", replace(COMMON, spans=(found,)))).values()
    assert first["range"] == {"yMin": found[1], "yMax": found[2]}


def test_of_several_searches_a_curve_is_over_their_means() -> None:
    curves = {seed_index(0, 0): [(1, 1.0)], seed_index(0, 1): [(1, 3.0)], seed_index(1, 0): [(1, 4.0)]}
    found = {key: value for key, value, _ in summary("val/loss", curves)}
    assert found["val/loss"] == 3.0
    assert found["val/loss_high"] == pytest.approx(3.0 + 12.706205 * 1.0)


def test_the_description_asks_answers_and_says_where_the_rest_is(content: dict[str, Any]) -> None:
    text = home.description(content, "7")
    assert text.startswith("**Is soap\\_x better than adamw on charlm?**")
    assert r"soap\_x is better than adamw" in text
    assert "p &lt; 0.0001" in text
    assert "#/experiments/7/runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=seeds" in text
    assert "artifacts/report/index.html?workflowType=machine_learning" in text
    assert len(text) <= home.NOTE_CHARACTERS


def test_the_description_shows_the_main_figure_and_stays_short(content: dict[str, Any]) -> None:
    drawn = [{"name": name, "title": "T"} for name in ("01-a-cost", "01-a-difference", "02-b-difference")]
    long = {**content, "figures": drawn, "verdicts": ["word " * 3000]}
    text = home.description(long, "7")
    run = content["sweeps"][0]["run_id"]
    assert f"(get-artifact?path=report/figures/01-a-difference.png&run_uuid={run})" in unquote(text)
    assert " …" in text
    assert len(text) <= home.NOTE_CHARACTERS
    assert "get-artifact" not in home.description(long, "7", figure=False)


def test_a_description_that_is_too_long_ends_whole(content: dict[str, Any]) -> None:
    sweep = {**content["sweeps"][0], "command": "optsweep " + "a_key=value " * 120}
    text = home.description({**content, "verdicts": ["p < 0.1 a_b " * 900], "sweeps": [sweep]}, "7")
    assert text.endswith("a_key=value\n```")
    assert len(text) <= home.NOTE_CHARACTERS
    sweep["command"] *= 2
    assert "```" not in home.description({**content, "sweeps": [sweep]}, "7")


def test_the_verdict_s_numbers_are_metrics_that_mlflow_takes(content: dict[str, Any]) -> None:
    (told,) = content["groups"][0]["comparisons"]
    metrics = home.verdict_metrics(content)
    assert metrics["verdict/difference"] == told["paired_t"]["mean"]
    assert metrics["verdict/difference_low"] == told["paired_t"]["low"]
    assert metrics["verdict/p"] == told["p_holm"]
    assert not [key for key in metrics if key not in COMMON.curves]
    group = content["groups"][0]
    other = {**told, "candidate": "b", "steps_ratio": {"estimate": "inf"}}
    arms = [*group["arms"], {**group["arms"][0], "name": "b", "label": "muon + λ=0.1, no decay"}]
    several = {**content, "groups": [{**group, "title": "long " * 60, "arms": arms, "comparisons": [told, other]}]}
    assert max(map(len, home.verdict_metrics({**several, "groups": [*several["groups"], group]}))) <= 250
    assert [key for key in home.verdict_metrics(several) if key.endswith("/difference")] == [
        "soap_x/difference",
        "muon lambda:0.1 no decay/difference",
    ]
    assert "muon lambda:0.1 no decay/steps_ratio" not in home.verdict_metrics(several)


def test_an_arm_s_chosen_setting_is_its_params(content: dict[str, Any]) -> None:
    arm = content["groups"][0]["arms"][0]
    assert home.chosen_params(arm) == {"lr": "5e-4"}
    again = {**arm["chosen"], "params": {"lr": 0.002}, "choices": {"optimizer.nesterov": True}}
    assert home.chosen_params({**arm, "chosen_again": [None, again]}) == {
        "lr": "5e-4, 2e-3",
        "optimizer.nesterov": "True",
    }
    assert home.chosen_params({**arm, "chosen": None, "chosen_again": []}) == {}


def test_a_command_is_folded_between_its_words() -> None:
    command = "optsweep -m " + " ".join(f"key_{i}=value" for i in range(12)) + " 'sweep.name=a b'"
    folded = home._folded(command)
    assert max(map(len, folded.splitlines())) <= 80
    assert folded.replace(" \\\n  ", " ") == command
    assert home._folded("optsweep 'open") == "optsweep 'open"


def test_what_a_grown_plan_changes_replaces_what_was_said(tracker: Tracker) -> None:
    run = tracker.sweep_run()
    for trials in (8, 16):
        rewrite_params(tracker, run, home.plan_params(SweepPlan(search=SearchTerms(trials=trials, sampler="gp"))))
    for low in (1.0, 2.0, 2.0):
        rewrite_curves(tracker, run, [("val/loss", low, 1000, 1), ("val/loss", 0.5, 1002, 2)])
    found = tracker.client.get_run(run).data
    assert (found.params["search.trials"], found.params["search.sampler"]) == ("16", "gp")
    history = tracker.client.get_metric_history(run, "val/loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 2.0), (2, 0.5)]


def test_two_that_write_at_once_get_over_each_other(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a stock launcher begin together, and each knows of other arms."""
    run, other, log = tracker.arm_run("at once", "at once"), MlflowClient(tracker.uri), tracker.client.log_batch
    said = {"arms": "1"}

    def later(run_id: str, **what: Any) -> None:
        while said:
            other.log_param(run_id, *said.popitem())  # between its look and its write
        log(run_id, **what)

    monkeypatch.setattr(tracker.client, "log_batch", later)
    rewrite_params(tracker, run, {"arms": 2, "seed": 0})
    params = tracker.client.get_run(run).data.params
    assert (params["arms"], params["seed"]) == ("2", "0")


def test_what_is_refused_for_good_is_raised() -> None:
    tries: list[int] = []

    def write() -> None:
        tries.append(1)
        raise MlflowException("too long", INVALID_PARAMETER_VALUE)

    with pytest.raises(MlflowException, match="too long"):
        beside_others(write)
    assert 1 < len(tries) < 10


def test_what_only_machines_read_is_out_of_sight_and_found_as_before(tracker: Tracker) -> None:
    arm = tracker.arm_run("task=a optimizer=b", "b")
    head = TrialHead("task=a optimizer=b", Phase.SEARCH, 3, 3, "model", {"lr": 1.2345e-3}, id="f00", label="b")
    tags = tracker.client.get_run(arm).data.tags
    assert [key for key in {**tags, **head.tags()} if not key.startswith("mlflow.")] == [
        *("optsweep.kind", "optsweep.phase", "optsweep.status", "arm"),
    ]
    before = {names.SEEN_BEFORE.get(key, key): value for key, value in head.tags().items()}
    assert "optsweep.trial" in before
    assert TrialHead.of(before, head.params()) == TrialHead.of(head.tags(), head.params())


def test_trials_names_differ_in_what_a_list_shows_of_them() -> None:
    heads = [
        TrialHead("a", Phase.SEARCH, 3, seed_index(repeat, 3), "model", {"lr": lr}, label="a long name of an arm")
        for repeat, lr in ((0, 1.2345e-3), (1, 2e-2))
    ]
    assert [head.run_name for head in heads] == [
        "search 3 · lr 0.00123 · a long name of an arm",
        "repeat 1, search 3 · lr 0.02 · a long name of an arm",
    ]
    confirm = TrialHead("a", Phase.CONFIRM, 2, 2, "chosen", {"lr": 1e-3}, label="b")
    assert confirm.run_name == "confirm 2 · b"


def test_another_call_of_a_sweep_leaves_the_axes_that_its_report_gave(tracker: Tracker) -> None:
    shown = Tracker(tracker.uri, "axes")

    def ends() -> list[Mapping[str, float]]:
        tags = shown.client.get_experiment(shown.experiment_id).tags
        charts = views.state_of(tags[names.VIEW + "verdict"])["compareRunCharts"]
        return [chart["range"] for chart in charts if "range" in chart]

    home.show_views(shown, replace(COMMON, spans=(("val/loss", 1.0, 2.0),)))
    home.show_views(shown, COMMON)
    assert ends() == [{"yMin": 1.0, "yMax": 2.0}]
    home.show_views(shown, replace(COMMON, unit="bits"))  # other views
    assert ends() == []


@pytest.mark.parametrize("tag", ["", "{}", '{"state": "deflate;AA"}', '{"state": "deflate;eJwDAAAAAAE="}', "[]"])
def test_a_view_of_somebody_else_is_another(tag: str) -> None:
    assert not views.same_but_for_axes(tag, views.tags(COMMON)[names.VIEW + "verdict"])


def test_a_report_is_shown_on_all_pages_of_its_sweep(tracker: Tracker, tmp_path: Path, content: dict[str, Any]) -> None:
    shown = Tracker(tracker.uri, "shown")
    arms = content["groups"][0]["arms"]
    runs = {arm["name"]: shown.arm_run(arm["name"], arm["label"]) for arm in arms}
    told = json.loads(json.dumps(content).replace("run-adamw", runs["adamw"]).replace("run-soap_x", runs["soap_x"]))
    (tmp_path / "results.json").write_text(json.dumps(told))
    for _ in range(2):  # again changes nothing
        home.show_report(tracker.uri, "shown", tmp_path, curves=True)
    experiment = shown.client.get_experiment(shown.experiment_id)
    assert experiment.tags[names.NOTE].startswith("**Is soap\\_x better than adamw on charlm?** On charlm")
    assert {names.VIEW + key for key in views.KEYS} <= experiment.tags.keys()
    candidate = shown.client.get_run(runs["soap_x"]).data
    assert candidate.tags[names.OUTCOME] == "better"
    assert (candidate.params["lr"], candidate.metrics[names.MS_PER_STEP]) == ("5e-4", 2.0)
    assert candidate.metrics[names.DIFFERENCE] < 0
    assert shown.client.get_run(runs["adamw"]).data.tags[names.OUTCOME] == "baseline"
    own = shown.client.get_metric_history(shown.sweep_run(), names.DIFFERENCE)
    assert [point.value for point in own] == [candidate.metrics[names.DIFFERENCE]]
