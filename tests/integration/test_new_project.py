"""`optsweep new`: what it writes runs as it is, by the commands of its README and by its own test."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from optsweep.cli.doorman import run
from optsweep.cli.new import KINDS, NAME, write_project
from patience import PATIENCE_SECONDS

FEW = ["trainer.steps=4", "trainer.rungs=1", "trainer.device=cpu", "search.trials=1", "confirm.seeds=1"]


def ran(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands(folder: Path) -> list[list[str]]:
    """Of its README, without comments."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (folder / "README.md").read_text(), re.M | re.S)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind whose packages are there."""
    if request.param == "huggingface":
        pytest.importorskip("transformers")
        pytest.importorskip("accelerate")
    return str(request.param)


def test_its_own_test_passes(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    written = write_project(folder, kind)
    assert written == ["README.md", "conf/task/mine.yaml", "mine.py", "test_mine.py"]
    assert not any(NAME in (folder / name).read_text() for name in written)
    assert len((folder / "README.md").read_text().splitlines()) <= 10
    assert "1 passed" in ran(folder, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


def test_the_commands_of_its_readme_run(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    write_project(folder, kind)
    check, sweep, test = commands(folder)
    assert (check[:2], sweep[:2], test) == (["optsweep", "check"], ["optsweep", "-m"], ["python", "-m", "pytest"])
    assert ran(folder, *check, "--seconds", "0").endswith("Nothing was found that would fail.\n")
    assert not (folder / "mlruns").exists()
    ran(folder, *sweep, *FEW, "hydra.launcher.workers=0")
    assert (folder / "reports" / "first" / "index.html").is_file()


def test_a_refusal_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for wrong in (["full"], ["file"], ["a b"], [".."], ["new", "--kind", "nothing"], []):
        assert run(["new", *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert run(["new", "empty"]) == 0
    assert "cd empty" in capsys.readouterr().out
    assert (tmp_path / "empty" / "mine.py").is_file()
