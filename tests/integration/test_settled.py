"""A finished sweep is answered from what its last call left, and from nothing that has changed since in any way."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from arms import arm_with
from optsweep import api
from optsweep.build.assemble import build_arm
from optsweep.config.arm import Arm
from optsweep.launch import settled as module
from optsweep.launch import sweep
from optsweep.launch.last_page import is_whole
from optsweep.launch.live.reading import Watching
from optsweep.launch.live.server import Feed, ShownPage
from optsweep.launch.live.terminal import watch
from optsweep.launch.outcome import SweepResult
from optsweep.launch.prepare.description import described
from optsweep.launch.settled import keep, may_be_finished, settled
from optsweep.tasks.tabular import Table
from optsweep.tracking.spool import Spool

COMMAND = "optsweep -m …"
REPORT = Path("reports/s")


def arm() -> Arm:
    found = arm_with({}, trainer__steps=20, trainer__rungs=2, confirm__seeds=2, task__width=8)
    return replace(found, sweep="s", tracking_uri="sqlite:///mlruns/mlflow.db", storage="sqlite:///mlruns/optuna.db")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepResult]:
    """What the call that finished the sweep came to; the working folder is that of the sweep."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("finished"))
    yield api.run([arm()], workers=0, command=COMMAND).result
    os.chdir(before)


def answer() -> SweepResult | None:
    return settled([arm()], COMMAND, REPORT)


def test_who_watches_it_gets_its_report(result: SweepResult) -> None:
    out = io.StringIO()
    watching = Watching(arm().storage, arm().tracking_uri, "s")
    watch(watching, out)
    lines = out.getvalue().splitlines()
    assert re.match(
        r"sweep s: \d+ of \d+ trials done, its report is complete: reports/s/index\.html; best on validation so far",
        lines[-2],
    )
    assert lines[-1].startswith("  verdict: On ")
    assert Feed(watching).shown == ShownPage((REPORT / "index.html").read_text(encoding="utf-8"), "", "", ended=True)


def test_the_next_call_says_the_same_without_opening_anything(
    result: SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "run_sweep", lambda *arguments, **options: pytest.fail("the sweep was opened"))
    again = api.run([arm()], workers=0, command=COMMAND)
    assert again.summary == "nothing was left to do; the report is reports/s/index.html"
    assert again.result == replace(result, trials=0, seconds=0.0, reported=True)
    assert may_be_finished(arm())
    assert not may_be_finished(replace(arm(), sweep="t"))


@contextmanager
def in_store(file: str, change: str, back: str) -> Iterator[None]:
    """Something is done to a store, and undone."""
    with closing(sqlite3.connect(f"mlruns/{file}.db")) as connection:
        with connection:
            assert connection.execute(change).rowcount > 0
        yield
        with connection:
            connection.execute(back)


TRIAL = "(SELECT min(run_uuid) FROM tags WHERE key = 'optsweep.kind' AND value = 'trial')"
PARENT = "(SELECT min(run_uuid) FROM tags WHERE key = 'optsweep.kind' AND value = 'arm')"
STORES = {
    "a trial's run is deleted": (
        "mlflow",
        f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = {TRIAL}",
        "UPDATE runs SET lifecycle_stage = 'active'",
    ),
    "an arm's run is deleted": (
        "mlflow",
        f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = {PARENT}",
        "UPDATE runs SET lifecycle_stage = 'active'",
    ),
    "a trial's run is open": (
        "mlflow",
        f"UPDATE runs SET status = 'RUNNING' WHERE run_uuid = {TRIAL}",
        "UPDATE runs SET status = 'FINISHED'",
    ),
    "a trial's run says another end": (
        "mlflow",
        f"UPDATE tags SET value = 'crashed' WHERE key = 'optsweep.status' AND run_uuid = {TRIAL}",
        "UPDATE tags SET value = 'finished' WHERE key = 'optsweep.status'",
    ),
    "the sweep's run is of another version": (
        "mlflow",
        "UPDATE tags SET value = '99' || value WHERE key = 'mlflow.optsweep.schema'",
        "UPDATE tags SET value = substr(value, 3) WHERE key = 'mlflow.optsweep.schema'",
    ),
    "the experiment is deleted": (
        "mlflow",
        "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 's'",
        "UPDATE experiments SET lifecycle_stage = 'active'",
    ),
    "a result is taken back": (
        "optuna",
        "UPDATE trials SET state = 'FAIL' WHERE number = 0",
        "UPDATE trials SET state = 'COMPLETE'",
    ),
    "a trial is of another loss": (
        "optuna",
        "UPDATE trial_values SET value = value * 2",
        "UPDATE trial_values SET value = value / 2",
    ),
    "somebody adds a trial": (
        "optuna",
        "INSERT INTO trials (trial_id, number, study_id, state) SELECT 99, 9, max(study_id), 'WAITING' FROM trials",
        "DELETE FROM trials WHERE trial_id = 99",
    ),
    "failures don't count any more": (
        "optuna",
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT max(trial_id), 'x', '1' FROM trials",
        "DELETE FROM trial_user_attributes WHERE key = 'x'",
    ),
    "an arm's content is another": (
        "optuna",
        "UPDATE study_user_attributes SET value_json = value_json || ' ' WHERE key = 'content'",
        "UPDATE study_user_attributes SET value_json = trim(value_json) WHERE key = 'content'",
    ),
    "another process plans it": (
        "optuna",
        "UPDATE optsweep_seats SET holder = 'somebody' WHERE sweep = 's'",
        "UPDATE optsweep_seats SET holder = NULL",
    ),
    "another process trains for it": (
        "optuna",
        "UPDATE optsweep_leases SET worker = 'somebody'",
        "UPDATE optsweep_leases SET worker = NULL",
    ),
}


@pytest.mark.parametrize("what", STORES)
def test_what_has_changed_in_a_store_is_looked_at(result: SweepResult, what: str) -> None:
    assert answer() is not None
    with in_store(*STORES[what]):
        assert answer() is None
    assert answer() is not None


def report_is_gone() -> Callable[[], object]:
    (REPORT / "index.html").rename("aside")
    return lambda: Path("aside").rename(REPORT / "index.html")


def report_has_another_file() -> Callable[[], object]:
    (REPORT / "new").touch()
    return (REPORT / "new").unlink


def sheet_is_gone() -> Callable[[], object]:
    (sheet, *_) = Path("mlruns/artifacts").rglob("arm.json")
    sheet.rename("aside")
    return lambda: Path("aside").rename(sheet)


def trial_waits() -> Callable[[], object]:
    waiting = Spool.of(arm().tracking_uri, arm().storage, "s").folder / "someone.jsonl"
    waiting.parent.mkdir(parents=True)
    waiting.touch()
    return waiting.unlink


def what_was_kept_is_cut_off() -> Callable[[], object]:
    (kept,) = Path("mlruns/finished").iterdir()
    content = kept.read_text()
    kept.write_text(content[:-9])
    return lambda: kept.write_text(content)


@pytest.mark.parametrize(
    "change", [report_is_gone, report_has_another_file, sheet_is_gone, trial_waits, what_was_kept_is_cut_off]
)
def test_what_has_changed_in_a_file_is_looked_at(
    result: SweepResult, change: Callable[[], Callable[[], object]]
) -> None:
    undo = change()
    assert answer() is None
    undo()
    assert answer() is not None


def figure_is_gone(run: str) -> None:
    next((REPORT / "figures").glob("*.svg")).unlink()


def report_is_of_a_sweep_of_that_name_in_another_store(run: str) -> None:
    file = REPORT / "results.json"
    file.write_text(file.read_text().replace(run, "f" * 32))


@pytest.mark.parametrize("change", [figure_is_gone, report_is_of_a_sweep_of_that_name_in_another_store])
def test_a_report_that_isnt_all_there_or_another_sweeps_is_written_again(
    result: SweepResult, change: Callable[[str], None]
) -> None:
    assert is_whole(REPORT, result.run)
    change(result.run)
    assert not is_whole(REPORT, result.run)
    assert api.run([arm()], workers=0, command=COMMAND).report is not None
    assert is_whole(REPORT, result.run)


def test_another_call_is_another(result: SweepResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (replace(arm(), retries=2), replace(arm(), confirm_seeds=3), arm_with({}, sweep__name="t")):
        assert settled([other], COMMAND, REPORT) is None
    assert settled([arm(), replace(arm(), axes={"seed": "1"})], COMMAND, REPORT) is None
    assert settled([arm()], "another command", REPORT) is None
    (tmp_path / "torch-99.dist-info").mkdir()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert answer() is None  # another version is installed
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "settled.py").touch()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "launch" / "settled.py"))
    assert answer() is None  # the product is another


def test_files_that_the_data_come_from_are_looked_at(result: SweepResult, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("text")
    assert result.basis is not None
    keep([arm()], COMMAND, replace(result, basis=replace(result.basis, reads=(str(data),))), REPORT)
    assert answer() is not None
    data.write_text("another text")
    assert answer() is None
    data.unlink()
    assert answer() is None
    keep([arm()], COMMAND, result, REPORT)


def test_nothing_is_kept_of_what_isnt_settled_or_changed_while_the_report_was_written(result: SweepResult) -> None:
    assert result.basis is not None
    for other in (None, replace(result.basis, trials="changed")):
        keep([arm()], COMMAND, replace(result, basis=other), REPORT)
        assert answer() is None
        assert not list(Path("mlruns/finished").iterdir())
    keep([arm()], COMMAND, result, REPORT)
    assert answer() is not None


class Own(Table):
    """A task of the user's."""


def test_what_code_of_the_users_own_reads_isnt_known(tmp_path: Path) -> None:
    found = arm_with({})
    assert described(found, build_arm(found, Table())).reads == ()
    assert described(found, build_arm(found, Own())).reads is None
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 40)
    text = arm_with({"task": "text"}, task__path=str(tmp_path / "a.txt"), task__context=8, trainer__steps=5)
    assert described(text, build_arm(text)).reads == (str(tmp_path / "a.txt"),)


def test_an_answer_takes_nothing_that_trains() -> None:
    code = "import sys, optsweep.api, optsweep.launch.settled, optsweep.cli.doorman; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], check=True, text=True, capture_output=True).stdout.split()
    assert not {"torch", "mlflow", "optuna", "scipy", "sqlalchemy", "numpy"}.intersection(imported)
