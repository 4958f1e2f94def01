"""The folder of checkpoints that many machines reach: known by its mark, whatever it is called on each."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arms import arm_with
from optsweep.errors import UserError
from optsweep.launch.elsewhere.posted import check_shared, post
from optsweep.launch.live.state import Looker
from optsweep.launch.status import plain, status_of
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.shared_folder import CHECKPOINTS, MARK, check_folder, make_mark, read_mark, where_kept
from optsweep.search.helping import notes
from optsweep.search.observing import Onlooker
from optsweep.search.process import process_name
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.train.trial import End, Phase

ARM = arm_with({})


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")


def _post(studies: Studies, folder: Path | None) -> list[str]:
    return post(studies, [Job(replace(ARM, checkpoints=folder), "a", "print", "run")])


def test_a_folder_has_one_mark_which_is_its_owner_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "a" / "b"
    mark = make_mark(shared)
    assert make_mark(shared) == read_mark(shared) == mark
    assert [path.name for path in shared.iterdir()] == [MARK]
    assert (shared / MARK).stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(38, "Function not implemented")))
    assert make_mark(tmp_path / "c") == read_mark(tmp_path / "c") != mark, "without hard links"


def test_a_folder_that_can_t_be_had_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, said in {
        "file": "it is no folder",
        "file/x": "it is no folder",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(UserError, match=said):
            check_folder("key", tmp_path / folder)
    with pytest.raises(UserError, match="there is no folder"):
        check_folder("key", tmp_path / "new", is_there=True)
    with pytest.raises(UserError, match=r"^key: /proc/x/y can't be written"):  # though its permissions allow it to root
        check_folder("key", Path("/proc/x/y"))
    check_folder("key", tmp_path / "new" / "er")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "looking makes nothing"


def test_another_folder_than_before_is_said(studies: Studies, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert _post(studies, None) == []
    (said,) = _post(studies, one)
    assert said == f"tracking.checkpoints: {one} instead of null: what was cut off in training starts anew"
    assert _post(studies, one) == []
    one.rename(other)
    assert _post(studies, other) == [], "the same folder at another place"
    (said,) = _post(studies, one)
    assert said.startswith(f"tracking.checkpoints: {one} instead of {other}: ")


def test_a_worker_elsewhere_has_the_folder_or_is_told(studies: Studies, tmp_path: Path) -> None:
    there, here, another = (tmp_path / name for name in ("there", "here", "another"))
    _post(studies, there)
    noted: Any = notes(studies.engine, "s", (CHECKPOINTS,))
    assert check_shared(noted, None) == ""
    there.rename(here)
    with pytest.raises(
        UserError, match=f"tracking.checkpoints: {there}, where the sweep is planned, isn't that folder"
    ):
        check_shared(noted, None)
    with pytest.raises(UserError, match=f"--checkpoints: there is no folder {another}"):
        check_shared(noted, another)
    assert check_shared(noted, here) == ""
    another.mkdir()
    assert check_shared(noted, another).endswith("a trial that changes over starts anew")
    _post(studies, None)
    assert check_shared(notes(studies.engine, "s", (CHECKPOINTS,)), another) == "", "the planner has none"


def test_a_relative_folder_is_from_where_it_is_said() -> None:
    arm = arm_with({}, tracking__checkpoints="shared/checkpoints")
    assert arm.checkpoints == Path("shared/checkpoints").absolute()
    assert replace(arm, checkpoints=None).checkpoints is None


@pytest.mark.parametrize(
    ("folder", "went_on", "on_server", "said"),
    [
        ("/shared", 0, True, "checkpoints: in /shared, for all machines that have this folder"),
        (None, 1, False, "checkpoints: beside the storage; 1 trial went on from one"),
        (
            None,
            2,
            True,
            "checkpoints: in ./mlruns of each machine; a trial that changes over starts anew "
            "(tracking.checkpoints=FOLDER); 2 trials went on from one",
        ),
        (None, 0, False, ""),
    ],
)
def test_where_they_lie_and_whether_trials_went_on_is_said(
    folder: str | None, went_on: int, on_server: bool, said: str
) -> None:
    assert where_kept(folder and [folder, "mark"], went_on, on_server=on_server) == said


def test_status_and_watch_say_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    studies = Studies.open(url, "s")
    _post(studies, tmp_path / "shared")
    with studies.take_seat([ARM.name], whole=True) as seat:
        studies.enqueue(seat, ARM.name, Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"))
        (work,) = studies.pop(ARM.name, Phase.SEARCH, process_name(), 60.0, 1)
        studies.tell(work.claim, End.FINISHED, 1.0, 1.0, went_on=30)
    line = f"checkpoints: in {tmp_path}/shared, for all machines that have this folder; 1 trial went on from one"
    found = status_of(url, "s")
    assert list(found.lines())[-1] == line
    assert plain("s", found)["checkpoints"] == line
    snapshot = Looker("s").snapshot(Onlooker(studies.engine, "s").look())
    assert snapshot.checkpoints == line
