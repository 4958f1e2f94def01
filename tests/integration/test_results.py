"""Results found again: in a report, in the store, behind it, or nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import optsweep
from optsweep.cli.doorman import run
from optsweep.errors import UserError
from optsweep.report import write_report
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.names import Status
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase
from synthetic_store import DEFAULT, fill


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    uri = "sqlite:///mlruns/mlflow.db"
    fill(uri, "demo", trials=4, seeds=2, rungs=3)
    return uri


def test_a_verdict_is_shown_again(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    absent = optsweep.load("demo")
    assert absent.note.startswith("no report has been written; this is what the store has: optsweep report demo")
    assert absent.page is None
    assert not Path("reports").exists()

    written = write_report(store, ["demo"], Path("reports/demo"), attach=False)
    found = optsweep.load("demo")
    assert (found.note, found.page) == ("", Path("reports/demo/index.html"))
    assert found.verdict == absent.verdict == "\n\n".join(written.verdicts)
    assert found.table == absent.table == (written.columns, written.rows)
    assert run(["show", "demo"]) == 0
    assert capsys.readouterr().out.strip() == written.summary.strip()
    assert run(["show", "demo", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == list(written.verdicts)
    assert [best["label"] for best in printed["best"]] == ["adamw + cosine", "soap + schedule_free"]

    _one_more(store)
    behind = (
        "the report is behind the store: 13 trials have a result there, 12 here; optsweep report demo writes it again"
    )
    assert optsweep.load("demo").note == behind
    assert optsweep.load("reports/demo").note == "", "a file is what it is"

    for name, line in (("dmeo", "there is no sweep 'dmeo'; nearest: demo"), ("reports/x", "reports/x: no such file")):
        assert run(["show", name]) == 2
        assert line in capsys.readouterr().err


def test_without_a_store_the_nearest_report_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no sweep 'mine'; there is no store at"):
        optsweep.load("mine")
    (tmp_path / "reports" / "mine2").mkdir(parents=True)
    (tmp_path / "reports" / "mine2" / "results.json").write_text("{}")
    with pytest.raises(UserError, match="there is no sweep 'mine'; nearest: mine2"):
        optsweep.load("mine")
    assert not (tmp_path / "mlruns").exists()


def _one_more(uri: str) -> None:
    """A further confirm trial of the first arm."""
    tracker, arm = Tracker(uri, "demo"), DEFAULT[0]
    head = TrialHead(arm.name, Phase.CONFIRM, 2, 2, "chosen", {"lr": 1e-3})
    log = TrialLog(AtOnce(tracker), tracker.arm_run(arm.name, arm.label), "more", head, "accuracy")
    log.end(Outcome(End(Status.FINISHED.value), 400, 2.0, 0.5, 2.0, 0.5, 1.0, 1, ""))
