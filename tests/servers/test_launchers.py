"""Sweeps under launchers of Hydra's own plugins: the numbers and arms of ours, after kills too, no password kept."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from optsweep.cli import doorman
from servers.conftest import Servers
from servers.watched import num_done, wait_for
from sweeping import Numbers, numbers, run, start

SWEEP = [
    *("task=digits_mlp", "optimizer=momentum", "weight_decay=none,decoupled", "schedule=cosine", "task.width=8"),
    *("search.trials=3", "search.over=[lr]", "confirm.seeds=2", "trainer.rungs=2", "sweep.name=small"),
]
SHORT = [*SWEEP, "trainer.steps=20"]
LAUNCHERS = {"joblib": "hydra_joblib_launcher", "submitit_local": "hydra_submitit_launcher"}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(params=sorted(LAUNCHERS))
def launcher(request: pytest.FixtureRequest) -> str:
    if find_spec(f"hydra_plugins.{LAUNCHERS[request.param]}") is None:
        pytest.skip(f"not installed: {LAUNCHERS[request.param]} (pip install 'optsweep[launchers]')")
    return f"hydra/launcher={request.param}"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    run(folder, "-m", *SHORT, "hydra.launcher.workers=1")
    return folder


def _plan(folder: Path) -> Any:
    """What the report says of its arms: names, labels, order, baseline."""
    (sweep,) = json.loads((folder / "reports" / "small" / "results.json").read_text())["sweeps"]
    return {key: sweep["plan"][key] for key in ("arms", "baseline")}


def _killed(folder: Path, *arguments: str) -> None:
    """A sweep whose processes are all killed once it has begun."""
    process = start(folder, *arguments)
    wait_for(lambda: num_done(f"sqlite:///{folder}/mlruns/optuna.db", "small") >= 1, process)
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in every:
        with suppress(psutil.NoSuchProcess):  # a job of its own that has just ended
            one.kill()
    process.communicate()


def test_the_numbers_and_arms_of_ours(launcher: str, ours: Path, tmp_path: Path) -> None:
    run(tmp_path, "-m", *SHORT, launcher)
    expected: Numbers = numbers(ours)
    assert numbers(tmp_path) == expected
    assert _plan(tmp_path) == _plan(ours)


def test_the_same_command_goes_on_after_a_kill(launcher: str, tmp_path: Path) -> None:
    long = [*SWEEP, "trainer.steps=3000", launcher]
    _killed(tmp_path, "-m", *long)
    said = run(tmp_path, "-m", *long)
    assert said.splitlines()[-1].startswith("report: ")
    found = numbers(tmp_path)
    assert len(found) == 2 * 5
    assert None not in [value for _, _, value in found.values()]


def test_a_password_of_a_config_file_stays_there(servers: Servers, storage: str, launcher: str, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "tracking"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"storage: {storage}\nuri: {servers.mlflow.address}\n")
    run(tmp_path, "-m", *SHORT, launcher, "tracking=mine")
    made = [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]
    assert [path for path in made if b"s3cret" in path.read_bytes()] == []
    assert tmp_path / "mlruns" / "hydra" / "small" / "multirun.yaml" in made


def test_a_scheduler_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'optsweep[launchers]'")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: no controller' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert doorman.run(["-m", *SHORT, "hydra/launcher=submitit_slurm"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("optsweep: hydra/launcher: sbatch: error: no controller")
