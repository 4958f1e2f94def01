"""A sweep whose tracking store goes away while it trains, and what delivers its trials when it is back."""

from __future__ import annotations

from pathlib import Path

import pytest

from arms import arm_with
from optsweep import api
from optsweep.cli.doorman import run
from optsweep.tracking import outage, postman
from optsweep.tracking.outage import StoreFailureError


def test_it_trains_to_its_end_says_what_waits_and_sync_delivers_and_reports(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    tracking, storage = (f"sqlite:///{folder}/mlruns/{name}.db" for name in ("mlflow", "optuna"))
    arm = arm_with(
        {}, trainer__steps=6, task__width=8, confirm__seeds=2, tracking__uri=tracking, tracking__storage=storage
    )

    def away(uri: str, sweep: str) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(postman, "Tracker", away)
        patch.setattr(outage, "PATIENCE_SECONDS", 0.0)
        with pytest.raises(StoreFailureError) as refused:
            api.run([arm], workers=0)
    assert "; 2 trials wait in mlruns/spool/" in str(refused.value)
    assert str(refused.value).endswith(f"and `optsweep sync {arm.sweep}` delivers")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "training goes on, curves wait in mlruns/spool/" in said[0]
    assert not Path("reports").exists()
    assert run(["sync", arm.sweep, "--tracking-uri", tracking, "--storage", storage]) == 0
    assert capsys.readouterr().out.startswith(f"sweep {arm.sweep}: 2 trials were delivered\n")
    assert Path("reports", arm.sweep, "index.html").is_file()
    assert not Path("mlruns/spool").exists()
    assert api.run([arm], workers=0).result.trials == 0
