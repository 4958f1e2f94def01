"""A sweep without a report: who looks on is told that none was asked for, and where it lies once somebody writes it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from arms import arm_with
from optsweep import api
from optsweep.launch import sweep
from optsweep.launch.live.reading import Watching
from optsweep.launch.live.terminal import watch

ARM = arm_with({}, trainer__steps=10, trainer__rungs=2, confirm__seeds=2, task__width=8)
UNASKED = "no report was asked for: `optsweep report s` writes it"


def test_who_looks_on_is_told_what_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arm = replace(ARM, sweep="s", tracking_uri="sqlite:///mlflow.db", storage="sqlite:///optuna.db")

    def watched() -> str:
        out = io.StringIO()
        watch(Watching(arm.storage, arm.tracking_uri, "s"), out)
        return out.getvalue()

    def status() -> list[str]:
        return list(api.status(arm.storage, "s").lines())

    api.run([arm], workers=0, report=False)
    assert UNASKED in status()
    assert f"trials done, {UNASKED}" in watched()
    api.report(arm.tracking_uri, ["s"], tmp_path / "elsewhere", storage=arm.storage)
    assert UNASKED in status(), "the sweep's own command doesn't look there"
    api.report(arm.tracking_uri, ["s"], storage=arm.storage)
    assert "report: reports/s/index.html" in status()
    assert "its report is complete: reports/s/index.html" in watched()
    assert api.run([arm], workers=0).report is None, "it isn't written again"
    (grown,) = [replace(arm, confirm_seeds=3)]
    api.run([grown], workers=0, report=False)
    assert UNASKED in status(), "the one that is there is of fewer trials"


def test_one_that_was_written_before_the_steps_were_timed_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arm = replace(ARM, sweep="s", tracking_uri="sqlite:///mlflow.db", storage="sqlite:///optuna.db")
    with monkeypatch.context() as killed:
        killed.setattr(sweep, "_time_steps", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.run([arm], workers=0)
    early = api.report(arm.tracking_uri, ["s"], storage=arm.storage)
    assert not early.partial
    again = api.run([arm], workers=0).report
    assert again is not None
    assert early.rows != again.rows, "it has their times"
    assert api.run([arm], workers=0).report is None


def _interrupted(*arguments: object) -> bool:
    raise KeyboardInterrupt
