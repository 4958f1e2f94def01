"""The wheel by itself, in an empty folder: there Hydra scans the plugins, which it doesn't where they are editable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("src", "conf", "sweeps", "pyproject.toml", "README.md")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel has."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "installed"))
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        held.extractall(target)
    return target


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


def test_a_sweep_and_its_report(installed: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import optsweep, optsweep.conf; print(optsweep.__file__, optsweep.conf.__path__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found.count(str(installed)) == 2
    small = ["search.trials=2", "confirm.seeds=2", "trainer.steps=20", "hydra.launcher.workers=1"]
    said = run(installed, tmp_path, "-m", "task=iris_mlp", "optimizer=adamw,sgd", "sweep.name=a", *small)
    assert "report: reports/a/index.html" in said
    assert (tmp_path / "reports" / "a" / "index.html").stat().st_size > 10_000
    (tmp_path / "elsewhere").mkdir()
    at = f"sqlite:///{tmp_path}/mlruns"
    stores = ["--storage", f"{at}/optuna.db", "--tracking-uri", f"{at}/mlflow.db"]
    assert run(installed, tmp_path / "elsewhere", "work", "a", *stores) == "sweep a is done\n"


def test_named_sweeps_come_along(installed: Path, tmp_path: Path) -> None:
    assert "name: fixed_lr" in run(installed, tmp_path, "-cn", "fixed_lr", "--cfg", "job")
    assert not list(tmp_path.iterdir())


def test_a_new_project_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    run(installed, tmp_path, "new", "first", "--kind", "loop")
    assert "def train(trial" in (tmp_path / "first" / "mine.py").read_text()
    assert (tmp_path / "first" / "conf" / "task" / "mine.yaml").is_file()
