"""A results.json as an object: what the report states, its tables and figures, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import hand_sweeps as hand
import optsweep
from optsweep.errors import UserError
from optsweep.report import write
from optsweep.report.comparison import compare
from optsweep.report.results import MOST_POINTS, as_json
from optsweep.report.table import table
from optsweep.report.verdict import verdict
from optsweep.result.result import Result, summary
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve, SweepRecord
from optsweep.train.trial import Phase

CURVE = {100: 4.0, 200: 3.0, 400: 2.123456}
HOSTILE = "<script>alert('x')</script>"


def trained(arm: ArmRecord, points: int = 40) -> ArmRecord:
    """With training losses, and a search."""
    steps = np.arange(points) * 10
    curve = Curve(steps, 5 - steps / (steps[-1] + 1))
    confirm = [replace(trial, curves={**trial.curves, names.TRAIN_LOSS: curve}) for trial in arm.trials]
    search = [
        replace(hand.trial(arm.name, seed, loss, None), phase=Phase.SEARCH, origin="quasi-random", params={"lr": lr})
        for seed, (loss, lr) in enumerate([(2.0, "0.001"), (2.5, "0.01"), (None, "0.1")])
    ]
    return replace(arm, trials=(*search, *confirm))


def sweep(*labels: str, points: int = 40, **known: Any) -> SweepRecord:
    means = dict(zip(labels, (2.0, 1.5, 2.02), strict=False))
    arms = [
        trained(hand.arm(x, hand.seeds(m, hand.NOISE[i:] + hand.NOISE[:i]), reached=CURVE, **known), points)
        for i, (x, m) in enumerate(means.items())
    ]
    return replace(hand.sweep(*arms), command="optsweep -cn x")


def result(*sweeps: SweepRecord) -> Result:
    return Result.of(json.loads(as_json(write.stated(sweeps))), "here")


TWO = sweep("adamw", "soap")


def test_it_states_what_the_report_states() -> None:
    found, groups = result(TWO), compare([TWO])
    assert found.verdict == verdict(groups[0]).text
    assert found.table == table(groups)
    assert found.labels == ("charlm + adamw", "charlm + soap")
    assert str(found) == found.verdict
    again = compare([group.sweep for group in found.groups])
    assert [verdict(group).text for group in again] == [verdict(group).text for group in groups]
    assert verdict(again[0]).caveats == verdict(groups[0]).caveats
    assert not found.partial


def test_several_tasks_come_as_several_groups() -> None:
    arms = [
        trained(hand.arm(x, hand.seeds(m), task=t)) for t in ("iris", "wine") for x, m in (("sgd", 2.0), ("soap", 1.5))
    ]
    several = hand.sweep(*arms)
    found = result(several)
    assert len(found.verdicts) == len(found.content["verdicts"]) > 2 == len(found.groups)
    assert {"01-iris-val_loss", "02-wine-val_loss", "across-ranks"} <= set(found.figures)
    assert len(found.figure("02-wine-val_loss").axes[0].lines) == 2
    with pytest.raises(UserError, match="'val_loss' is one of several; give one of '01-iris-val_loss', '02-wine"):
        found.figure("val_loss")


def test_frames_have_what_the_trials_logged() -> None:
    found = result(TWO)
    arms = found.arms.set_index("arm")
    assert arms.loc["charlm + adamw", "baseline"]
    assert arms.loc["charlm + soap", "test_loss"] == pytest.approx(1.5)
    assert arms.loc["charlm + soap", "difference"] == pytest.approx(-0.5)
    assert arms.loc["charlm + soap", "difference_low"] < -0.5 < arms.loc["charlm + soap", "difference_high"]
    assert arms.loc["charlm + soap", "lr"] == 5e-4
    trials = found.trials
    assert len(trials) == 2 * (3 + 6)
    assert list(trials.columns[:8]) == ["task", "arm", "phase", "repeat", "slot", "seed", "origin", "status"]
    search = trials[trials.phase == "search"]
    assert search.lr.tolist() == [0.001, 0.01, 0.1] * 2
    assert search.status.tolist() == ["finished", "finished", "diverged"] * 2
    curves = found.curves
    one = curves[(curves.arm == "charlm + soap") & (curves.seed == 1) & (curves.metric == "val_loss")]
    assert dict(zip(one.step, one.value, strict=True)) == {100: 4.0, 200: 3.0, 400: 2.12346}
    assert len(curves[curves.metric == "train_loss"]) == 2 * 6 * 40


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    (arm,) = result(sweep("adamw", points=1000)).content["groups"][0]["arms"]
    assert MOST_POINTS / 2 < len(arm["logged"]) <= MOST_POINTS
    assert arm["logged"][-1] == 9990


@pytest.mark.parametrize("name", ["difference", "val_loss", "train_loss", "lr_sensitivity"])
def test_figures_are_the_reports(name: str) -> None:
    (drawn,) = [plan.draw() for kind in write._FIGURES for plan in kind(compare([TWO])[0]) if plan.name == name]
    found = result(TWO).figure(name)
    assert isinstance(found, Figure)
    for ours, theirs in zip(found.axes, drawn.axes, strict=True):
        assert len(ours.lines) == len(theirs.lines)
        for one, other in zip(ours.lines, theirs.lines, strict=True):
            assert np.allclose(one.get_xydata(), other.get_xydata(), rtol=1e-5, equal_nan=True)


def test_a_wrong_figure_is_told_which_there_are() -> None:
    found = result(TWO)
    line = r"figure: there is no 'val_los' \(did you mean val_loss\?\); there are difference, .*val_loss, "
    with pytest.raises(UserError, match=line):
        found.figure("val_los")


def test_a_notebook_shows_verdict_conditions_table_and_figure_escaped() -> None:
    found = result(sweep("adamw", HOSTILE))
    shown = found._repr_html_()
    coloured = re.findall(r'<(?:td|th) style="[^"]*; color: inherit; background: none"', shown)
    assert len(coloured) == len(re.findall(r"<(?:td|th)\b", shown)) > 0  # else a dark Jupyter colours them for its page
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    for condition in found.content["groups"][0]["conditions"]:
        assert condition.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#x27;") in shown
    assert shown.count("<tr ") == 1 + 2
    assert len(re.findall(r'<img src="data:image/svg\+xml;base64,', shown)) == 1
    assert not re.search(r'(src|href)="(?!data:)', shown)
    assert found.figure("val_loss")._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_an_arm_that_is_not_there_is_told_the_nearest() -> None:
    found = result(TWO)
    assert found.best("charlm + soap").label == found.best("charlm,soap,400").label
    with pytest.raises(UserError, match=r"best: there is no 'charlm \+ saop' \(did you mean charlm \+ soap\?\)"):
        found.best("charlm + saop")


def test_what_machines_read_is_documented_and_stable() -> None:
    found = summary(result(TWO))
    json.dumps(found)
    page = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text()
    assert set(found) == {
        "format",
        "sweeps",
        "report",
        "note",
        "partial",
        "verdict",
        "caveats",
        "groups",
        "best",
        "table",
    }
    assert all(f"`{key}`" in page for key in found)
    (group,) = found["groups"]
    assert set(group) == {"title", "baseline", "headline", "conditions", "arms", "comparisons"}
    assert group["comparisons"][0]["candidate"] == "charlm,soap,400"
    assert [best["hyper"]["lr"] for best in found["best"]] == [5e-4, 5e-4]


# -- what is refused ---------------------------------------------------------------------------------------------------


def damaged(**changes: Any) -> Mapping[str, Any]:
    return {**json.loads(as_json(write.stated([TWO]))), **changes}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "it is damaged, no JSON; optsweep report NAME writes it again"),
        ("[]", "it holds no sweep's results"),
        ('{"kind": "judged runs"}', "it holds runs made elsewhere"),
        (json.dumps(damaged(format=99)), "it is of format 99, and this version of optsweep reads 1"),
        (json.dumps(damaged(sweeps=[{"name": "x"}])), r"it is damaged \('plan' is missing\)"),
        (json.dumps(damaged(groups=3)), r"it is damaged \('int' object is not iterable\)"),
        (
            as_json(damaged()).replace('"finished"', '"finnished"'),
            "it is damaged .'finnished' is not a valid Status",
        ),
    ],
)
def test_a_file_that_is_no_results_is_refused(content: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=f"results.json: {line}"):
        optsweep.load(tmp_path)
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        optsweep.load(tmp_path / "none.json")


def test_results_of_before_are_read_as_far_as_they_go() -> None:
    """Without search trials, curves, configs and conditions, as docs/gallery has them."""
    for path in sorted((Path(__file__).parents[2] / "docs" / "gallery" / "results").glob("*.json"))[:3]:
        found = optsweep.load(path)
        assert all(group["headline"] in found.verdict for group in found.content["groups"])
        assert found.arms.shape[0] == len(found.labels)
        assert "test_loss" in str(found.figures)
        assert len(found.trials) > 0


def test_status_words_are_those_of_the_tracking() -> None:
    assert {str(status) for status in Status} <= set(result(TWO).arms.columns)
