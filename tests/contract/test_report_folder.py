"""Where its report couldn't be written a sweep is refused before anything is, whoever runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arms import arm_with
from optsweep import api
from optsweep.cli.doorman import run
from optsweep.errors import UserError
from optsweep.launch import sweep
from optsweep.launch.outcome import SweepResult
from optsweep.launch.settled import check_page
from optsweep.launch.status import FINISHED
from optsweep.search.studies import Studies
from optsweep.written import check_report_folder, why_unwritable

ARGUMENTS = ["-m", "optimizer=sgd,adamw", "task=iris_mlp", "search.trials=2", "confirm.seeds=2", "sweep.name=s"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("launcher", ["local", "ray", "slurm", "basic"])
def test_a_file_in_its_place_is_one_line_and_nothing_is_written(
    launcher: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "reports").write_text("")
    assert run([*ARGUMENTS, f"hydra/launcher={launcher}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "optsweep: reports/s can't be written (reports: it is no folder), and the sweep's report is to"
    )
    assert [path.name for path in folder.rglob("*")] == ["reports"]


def test_python_is_told_the_same_unless_no_report_is_wanted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "reports").write_text("")
    arm = replace(arm_with({}), sweep="s")
    with pytest.raises(UserError, match=r"^reports/s can't be written"):
        api.run([arm], workers=0)
    result = SweepResult("s", arm.tracking_uri, (arm.name,), 0, 0, 0.0, "run", "results", reported=True)
    monkeypatch.setattr(sweep, "run_sweep", lambda *arms, **how: result)
    assert api.run([arm], workers=0, report=False).index is None


def test_a_finished_sweep_whose_page_is_there_may_lie_where_nothing_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optsweep.written.why_unwritable", lambda folder: "Read-only file system")
    arm, reports = replace(arm_with({}), sweep="s", storage=f"sqlite:///{folder}/optuna.db"), folder / "reports"
    studies = Studies.open(arm.storage, "s")
    studies.set_note(arm.name, FINISHED, None)
    reports.mkdir()
    (reports / "index.html").write_text("")
    with pytest.raises(UserError, match="Read-only file system"):
        check_page(arm, reports)
    studies.set_note(arm.name, FINISHED, [3, 2, 1])
    check_page(arm, reports)
    (reports / "index.html").unlink()
    with pytest.raises(UserError, match="Read-only file system"):
        check_page(arm, reports)


def test_a_folder_is_really_tried(folder: Path) -> None:
    (folder / "dangling").symlink_to("nowhere")
    (folder / "there").mkdir()
    assert why_unwritable(Path("there")) is None
    assert why_unwritable(Path("there/to/be/made")) is None
    assert why_unwritable(Path("dangling/s")) == "dangling: it is no folder"
    assert why_unwritable(Path("x" * 300)) == "File name too long"
    with pytest.raises(UserError, match=r"^/proc/reports can't be written"):  # though its permissions allow it to root
        check_report_folder(Path("/proc/reports"))
    assert sorted(path.name for path in folder.rglob("*")) == ["dangling", "there"], "looking leaves nothing"
