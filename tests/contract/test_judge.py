"""Runs made elsewhere: what is read, what is refused in a line, what is said, and under which conditions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from optsweep import api
from optsweep.cli.doorman import run
from optsweep.errors import UserError
from optsweep.inference.comparison import Conclusion
from optsweep.report.judged import sayings
from optsweep.report.judged.findings import Judgement, Procedure, judge
from optsweep.report.judged.question import Question
from optsweep.report.judged.runs import gather
from optsweep.report.judged.table import read_table

ASKED: dict[str, Any] = {"arm": "optimizer", "seed": "seed", "metric": "loss"}
Rows = list[dict[str, object]]
NOISE = np.random.default_rng(5).normal(size=(4, 40)) * 0.01


def rows(**arms: Sequence[float]) -> Rows:
    return [{"optimizer": arm, "seed": seed, "loss": x} for arm, held in arms.items() for seed, x in enumerate(held)]


def judged(source: Rows | Path, **more: Any) -> Judgement:
    question = Question(**{**ASKED, **more})
    return judge(gather(read_table(source, question.metric, question.step, ""), question), question)


def noisy(mean: float, noise: int, count: int = 6) -> list[float]:
    return [mean + float(x) for x in NOISE[noise, :count]]


TWO = rows(adamw=noisy(2.1, 0), soap=noisy(2.0, 1))


# -- which test ----------------------------------------------------------------------------------------------------


def test_shared_seeds_are_paired_and_others_are_not() -> None:
    ours, theirs = noisy(2.0, 1), noisy(2.1, 0)
    (paired,) = judged(TWO).comparisons
    assert paired.method is Procedure.PAIRED
    assert paired.test is not None
    assert paired.test.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    for unpaired in (judged(TWO, unpaired=True), judged(TWO, seed=None)):
        (found,) = unpaired.comparisons
        assert found.method is Procedure.WELCH
        assert found.test is not None
        assert found.test.p == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).pvalue)
    few = rows(adamw=noisy(2.1, 0)) + [{**row, "seed": f"b{row['seed']}"} for row in rows(soap=noisy(2.0, 1))]
    assert judged(few).methods == (Procedure.WELCH,)


def test_holm_is_over_all_comparisons_and_each_may_have_its_own_baseline() -> None:
    three = rows(a=noisy(2.0, 0), b=noisy(2.004, 1), c=noisy(1.9, 2))
    found = judged(three, against_previous=True)
    assert [(c.candidate.label, c.baseline.label) for c in found.comparisons] == [("b", "a"), ("c", "b")]
    raw = [c.test.p for c in found.comparisons if c.test and c.test.p is not None]
    assert found.comparisons[1].p_holm == pytest.approx(2 * raw[1])
    assert [c.outcome for c in found.comparisons] == [Conclusion.NO_DIFFERENCE, Conclusion.BETTER]
    ordered = judged(three, against_previous=True, arms=("c", "a"))
    assert [(c.candidate.label, c.baseline.label) for c in ordered.comparisons] == [("a", "c")]
    assert {c.baseline.label for c in judged(three, baseline="b").comparisons} == {"b"}


def test_one_sided_intervals_agree_with_their_test() -> None:
    close = rows(a=noisy(2.0, 0), b=noisy(1.988, 1))
    (found,) = judged(close, unpaired=True, one_sided=True).comparisons
    two_sided = judged(close, unpaired=True).comparisons[0]
    assert found.test
    assert two_sided.test
    assert found.test.p is not None
    assert found.test.high is not None
    assert found.test.p == pytest.approx((two_sided.test.p or 0) / 2)
    assert 0.025 < found.test.p < 0.05  # a two-sided 95 % interval would include 0
    assert found.test.high < 0


def test_higher_is_better_turns_conclusion_and_words_not_numbers() -> None:
    found = judged(TWO, higher_is_better=True)
    assert found.comparisons[0].outcome is Conclusion.WORSE
    text = sayings.headline(found)
    assert text.startswith("soap ends lower than adamw: mean loss lower by 0.1")
    assert "interval of the difference −0.1" in text


# -- what is said --------------------------------------------------------------------------------------------------


def test_what_cannot_be_known_is_said_with_every_verdict() -> None:
    text = sayings.text(judged(TWO, baseline="adamw"))
    for condition in ("equal tuning budgets", "a search was included", "Paired by seed", "fixed before results"):
        assert condition in text
    assert "better than" not in text
    assert "No baseline was named" not in text
    assert "No baseline was named, so it is the first arm, adamw." in sayings.text(judged(TWO))
    assert "Unpaired, because equal seeds are said not to be the same" in sayings.text(judged(TWO, unpaired=True))
    assert "no column of seeds" in sayings.text(judged(TWO, seed=None))
    known = sayings.text(judged(TWO, sigma=0.01))
    assert "take the SD of a run as known, 0.01; that of these runs within an arm is 0.0" in known


def test_an_arm_with_a_diverged_run_is_never_ahead_and_missing_values_are_named() -> None:
    held = rows(adamw=noisy(2.1, 0), soap=[*noisy(2.0, 1)[:5], np.inf])
    found = judged(held)
    assert found.comparisons[0].outcome is Conclusion.UNTESTED
    assert "soap is ahead where runs finished, so nothing is concluded" in sayings.headline(found)
    assert "But soap diverged on 1 run." in sayings.headline(found)
    gone = judged([*TWO, {"optimizer": "soap", "seed": 9, "loss": ""}])
    assert gone.gathered.left_out == ("1 row without loss left out (row 13).",)


def test_one_run_per_arm_shows_nothing_without_a_known_sigma() -> None:
    single = rows(adamw=[2.1], soap=[2.0])
    assert judged(single).comparisons[0].outcome is Conclusion.UNTESTED
    assert "soap has one run and adamw has one run" in sayings.headline(judged(single))
    assert judged(single, sigma=0.01).comparisons[0].outcome is Conclusion.BETTER


def test_copies_of_a_run_are_counted_once_or_noticed() -> None:
    again = judged([*TWO, TWO[0]])
    assert again.gathered.left_out == ("1 row repeating an earlier one counted once (row 13).",)
    copied = rows(adamw=[2.1234567, 2.1234567, 2.2], soap=[2.0, 2.0, 1.9])
    assert judged(copied).duplicates == ("adamw",)  # two digits may agree by chance


# -- curves --------------------------------------------------------------------------------------------------------


def curve(arm: str, seed: int, last: int, offset: float = 0.0) -> Rows:
    noise = float(NOISE[0, seed])
    return [
        {"optimizer": arm, "seed": seed, "step": step, "loss": 3 - step / 100 + noise + offset}
        for step in range(0, last + 1, 10)
    ]


CURVES = [*curve("a", 0, 40), *curve("a", 1, 40), *curve("b", 2, 60), *curve("b", 3, 60), *curve("c", 4, 20)]


def test_the_step_is_common_and_runs_without_it_are_named() -> None:
    assert judged(CURVES, step="step").gathered.at == 20  # the last that every arm has
    found = judged(CURVES, step="step", at=40.0)
    assert [arm.label for arm in found.arms] == ["a", "b"]
    assert found.gathered.absent == (("c", 1),)
    assert found.gathered.left_out == ("1 run of 1 arm left out, without a point at step 40: all of c.",)
    assert "2 of 4 runs go on after step 40 (b 2)" in sayings.text(found)
    last = judged(CURVES, step="step", at="last")
    assert last.arms[1].steps == (60,)
    assert "The runs end at different steps" in sayings.text(last)


def test_a_slope_brings_runs_to_one_step() -> None:
    same_curve = judged(CURVES, step="step", at="last", per_step=0.01, arms=("a", "b"), unpaired=True)
    assert same_curve.comparisons[0].outcome is Conclusion.NO_DIFFERENCE
    assert same_curve.arms[0].reference == 40
    assert judged(CURVES, step="step", at="last", arms=("a", "b"), unpaired=True).comparisons[0].outcome.better


def test_a_run_that_diverged_before_the_step_is_no_missing_one() -> None:
    lost = [*curve("b", 5, 30), {"optimizer": "b", "seed": 5, "step": 35, "loss": "nan"}]
    found = judged([*CURVES, *lost], step="step", at=40.0)
    assert found.arms[1].diverged_seeds == 1


def test_a_name_that_several_runs_share_is_told_apart_by_its_steps() -> None:
    held = [*curve("a", 0, 40), *curve("a", 0, 40, 0.01), *curve("b", 1, 40), *curve("b", 1, 40, 0.02)]
    with pytest.raises(UserError, match="give --restarts"):
        judged(held, step="step")
    assert [arm.count for arm in judged(held, step="step", restarts=True).arms] == [2, 2]


# -- where runs come from ------------------------------------------------------------------------------------------


def write(path: Path, held: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(held[0]))
        writer.writeheader()
        writer.writerows(held)
    return path


def test_a_table_of_wandb_s_api_with_dictionaries(tmp_path: Path) -> None:
    held = [
        {
            "": place,
            "summary": str({"_step": 10, "loss": row["loss"], "gap": float("nan")}),
            "config": str({"optimizer": row["optimizer"], "seed": row["seed"], "model": {"width": 3}}),
            "name": f"run-{place}",
        }
        for place, row in enumerate(TWO)
    ]
    assert judged(write(tmp_path / "project.csv", held)).methods == (Procedure.PAIRED,)


def test_a_table_of_wandb_s_page_leaves_out_runs_that_crashed(tmp_path: Path) -> None:
    held = [{"Name": "x", "State": "finished", **row} for row in TWO]
    held.append({"Name": "y", "State": "crashed", "optimizer": "soap", "seed": 9, "loss": 9.0})
    found = judged(write(tmp_path / "wandb.csv", held), metric="Loss")
    assert found.gathered.left_out == ("1 row of runs that didn't finish left out (line 14).",)


def test_a_chart_of_wandb_s_page(tmp_path: Path) -> None:
    names = [f"{arm}-{seed}" for arm in ("adamw", "soap") for seed in range(3)]
    held = []
    for step in (10, 20):
        row: dict[str, object] = {"Step": step}
        for place, name in enumerate(names):
            value = "" if name == "soap-2" and step == 20 else 2 - step / 100 + place / 10 + NOISE[0, place]
            row |= {f"{name} - val/loss": value, f"{name} - val/loss__MIN": value, f"{name} - val/loss__MAX": value}
        held.append(row)
    path = write(tmp_path / "chart.csv", held)
    told: dict[str, Any] = {"metric": "val/loss", "step": "Step", "names": r"(?P<optimizer>.+)-(?P<seed>\d+)"}
    found = judged(path, at=20.0, **told)
    assert [arm.count for arm in found.arms] == [3, 2]
    assert found.comparisons[0].method is Procedure.PAIRED
    with pytest.raises(UserError, match="--arm optimizer: no such column"):
        judged(path, **{**told, "names": None})


def test_an_experiment_of_mlflow(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("mine", artifact_location=str(tmp_path / "a"))
    for row in TWO[:2] + TWO[6:8]:
        made = client.create_run(experiment).info.run_id
        for key in ("optimizer", "seed"):
            client.log_param(made, key, row[key])
        for step in (1, 2):
            client.log_metric(made, "loss", float(str(row["loss"])) / step, step=step)
        client.set_terminated(made)
    asked = Question(**ASKED)
    last = judge(gather(read_table("mlflow:mine", "loss", None, uri), asked), asked)
    assert last.comparisons[0].method is Procedure.PAIRED
    assert last.arms[1].value == pytest.approx(np.mean([float(str(row["loss"])) for row in TWO[6:8]]) / 2)
    at = Question(**ASKED, step="step", at=1.0)
    first = judge(gather(read_table("mlflow:mine", "loss", "step", uri), at), at)
    assert first.arms[1].value == pytest.approx(2 * last.arms[1].value)
    with pytest.raises(UserError, match="mlflow:mien: there is no experiment 'mien'; nearest: mine"):
        read_table("mlflow:mien", "loss", None, uri)


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "more", "line"),
    [
        (None, [], "no such file"),
        (b"", [], "the file is empty"),
        (b"\x7fELF\x00\xff", [], "it is no text in UTF-8"),
        (b"optimizer,seed,loss\n", [], "there is no row of a run"),
        (b"optimiser,seed,loss\na,0,1\n", [], "--arm optimizer: no such column (did you mean optimiser?)"),
        (b"optimizer,seed,loss\na,0,1\na,0,2\nb,0,1\n", [], "line 2 and line 3 are both of optimizer a, seed 0"),
        (b"optimizer,seed,loss\na,0,3.1 %\nb,0,1\n", [], "line 2 has '3.1 %', which is no number"),
        (b"optimizer,seed,loss\na,0,1\na,1,2\n", [], "there is only one arm, a; a comparison needs two"),
        (b"optimizer,seed,loss\na,0,1\nb,0,2\n", ["--baseline", "c"], "--baseline c: there is no such arm"),
        (b"optimizer,seed,loss\na,0,1\nb,0,2\n", ["--sigma", "-1"], "--sigma: -1.0 is not allowed"),
        (b"optimizer,seed,loss\na,0,1\nb,0,2\n", ["--at", "3"], "name their column of steps with --step"),
        (b"optimizer,seed,loss,t\na,0,1,5\nb,0,2,5\n", ["--step", "t", "--at", "3"], "no run has this step"),
        (b"optimizer,seed,loss\na,0,1,7\nb,0,2\n", [], "line 2 has 4 cells under 3 columns"),
        (b"optimizer,seed,loss\na,0,\nb,0,\n", [], "no row has a run that counts: 2 rows without loss left out"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    content: bytes | None, more: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "runs.csv", tmp_path / "out"
    if content is not None:
        path.write_bytes(content)
    arguments = [
        "judge",
        str(path),
        "--arm",
        "optimizer",
        "--seed",
        "seed",
        "--metric",
        "loss",
        "--out",
        str(out),
        *more,
    ]
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_data_frame_is_given_as_records() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TWO)
    assert judged(frame.to_dict("records")).methods == (Procedure.PAIRED,)
    with pytest.raises(UserError, match="to_dict"):
        judged(frame)


def test_an_arm_per_row_is_no_arm() -> None:
    with pytest.raises(UserError, match="more than 200 arms"):
        judged([{"optimizer": str(i), "seed": 0, "loss": i} for i in range(201)])


# -- the report ----------------------------------------------------------------------------------------------------


def test_page_and_results_say_what_the_terminal_says(tmp_path: Path) -> None:
    out = tmp_path / "out"
    held = [{**row, "optimizer": f"<b>{row['optimizer']}"} for row in CURVES]
    report = api.judge(held, out=out, **ASKED, step="step", against_previous=True)
    page = report.index.read_text(encoding="utf-8")
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert content["headline"] in report.verdict
    for text in content["conditions"]:
        assert text in report.verdict
        assert text.replace("'", "&#39;").replace("<", "&lt;").replace(">", "&gt;") in page
    assert "<b>a" not in page
    assert {figure["name"] for figure in content["figures"]} == {"difference", "runs", "curves"}
    assert [found["sentence"] for found in content["comparisons"]] == list(report.sentences)
    api.judge(held, out=out, **ASKED, step="step")  # its own may be written over
    (out / "results.json").write_text(json.dumps({"sweeps": []}))
    with pytest.raises(UserError, match="holds another report"):
        api.judge(held, out=out, **ASKED, step="step")


# -- the examples of docs/judge.md ---------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_says_what_its_example_gives(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"arm": "optimizer", "seed": "run", "metric": "val_loss", "step": "step", "at": 1000.0}
    report = api.judge(
        DOCS / "examples" / "runs.csv", out=tmp_path / "out", **asked, unpaired=True, against_previous=True
    )
    page = (DOCS / "judge.md").read_text(encoding="utf-8")
    for text in (sayings.headline(report.judgement), *report.sentences):
        assert f"> {text}\n" in page


@pytest.mark.parametrize(
    ("arms", "p"),
    [
        (("skylight001", "contra_muon"), 0.69),
        (("contra_muon", "muloco_normuonh"), 0.099),
        (("normuonh", "muloco_normuonh"), 0.029),
        (("contra_muon_mlp_soapish", "trustlight"), 0.34),
    ],
)
def test_the_published_means_give_the_stated_p_values(arms: tuple[str, str], p: float) -> None:
    told: dict[str, Any] = {"arm": "record", "seed": None, "metric": "val_loss", "step": "step", "at": "last"}
    told |= {"mean_of": "n", "per_step": 4.5e-5, "sigma": 0.0013, "one_sided": True}
    (found,) = judged(DOCS / "examples" / "published.csv", **told, arms=arms).comparisons
    assert found.test is not None
    assert found.test.p == pytest.approx(p, rel=0.02)
