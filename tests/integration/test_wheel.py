"""The wheel by itself, in an empty folder: there Hydra scans the plugins, which it doesn't where they are editable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("src", "conf", "sweeps", "docs", "pyproject.toml", "setup.py", "README.md")
WITHOUT = shutil.ignore_patterns("gallery", "images", "__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built here."""
    source, wheels = (tmp_path_factory.mktemp(name) for name in ("source", "wheels"))
    for name in NEEDED:
        path = ROOT / name
        shutil.copytree(path, source / name, ignore=WITHOUT) if path.is_dir() else shutil.copy(path, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(wheels), str(source)], check=True)
    (found,) = wheels.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel has."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as held:
        held.extractall(target)
    return target


@pytest.fixture(scope="module")
def optsweep(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a new environment into which pip put the wheel, beside the packages that are installed here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "here.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True)
    return folder / "bin" / "optsweep"


def run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    ended = subprocess.run(
        [sys.executable, "-m", "optsweep", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_first_five_minutes(optsweep: Path, tmp_path: Path) -> None:
    """pip install, list, suggest, one sweep, ui, report, docs: what a stranger does, in an empty folder."""

    def say(*arguments: str) -> str:
        ended = subprocess.run([optsweep, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "schedule_free" in say("list", "schedules")
    assert "weight_decay" in say("suggest", "task=iris_mlp", "optimizer=soap")
    assert not list(tmp_path.iterdir())
    small = ["search.trials=2", "confirm.seeds=2", "trainer.steps=20", "hydra.launcher.workers=1"]
    said = say("-m", "task=iris_mlp", "optimizer=adamw,sgd", "sweep.name=a", *small)
    assert said.startswith("held against adamw + cosine; 8 trials of 20 steps are left")
    assert "report: reports/a/index.html" in said
    page = tmp_path / "reports" / "a" / "index.html"
    assert page.stat().st_size > 10_000
    assert "a: finished, 2 arms, 8 of 8 trials" in say("list", "sweeps")
    page.unlink()
    assert "report: reports/a/index.html" in say("report", "a")
    assert page.is_file()
    stores = ["--storage", "sqlite:///mlruns/optuna.db", "--tracking-uri", "sqlite:///mlruns/mlflow.db"]
    assert say("work", "a", *stores) == "sweep a is done\n"
    assert "# Runs that you have already" in say("docs", "judge")
    with subprocess.Popen(
        [optsweep, "ui", "a", "--no-browser"], cwd=tmp_path, text=True, stdout=subprocess.PIPE
    ) as served:
        assert served.stdout is not None
        address = next(line for line in served.stdout if line.startswith("http://127.0.0.1:"))  # when it answers
        with urllib.request.urlopen(address.partition("#")[0], timeout=PATIENCE_SECONDS) as answer:
            assert b"<html" in answer.read()
        served.send_signal(signal.SIGINT)
        assert served.wait(timeout=PATIENCE_SECONDS) == 0


def test_the_wheel_has_the_pages_of_the_guide_and_not_the_scripts(installed: Path) -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert {path.name for path in (installed / "optsweep" / "docs").iterdir()} == pages | {"deploy"}
    assert (installed / "optsweep" / "docs" / "deploy" / "README.md").is_file()
    found = subprocess.run(
        [sys.executable, "-c", "import optsweep, optsweep.conf; print(optsweep.__file__, optsweep.conf.__path__)"],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found.count(str(installed)) == 2


def test_named_sweeps_come_along(installed: Path, tmp_path: Path) -> None:
    assert "name: fixed_lr" in run(installed, tmp_path, "-cn", "fixed_lr", "--cfg", "job")
    assert not list(tmp_path.iterdir())


def test_a_new_project_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    run(installed, tmp_path, "new", "first", "--kind", "loop")
    assert "def train(trial" in (tmp_path / "first" / "mine.py").read_text()
    assert (tmp_path / "first" / "conf" / "task" / "mine.yaml").is_file()
