"""Sweeps under launchers of Hydra's own plugins: the numbers and arms of ours, after kills too, no password kept."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from optsweep.cli import doorman
from optsweep.search.studies import Studies
from patience import PATIENCE_SECONDS
from servers.conftest import Servers
from servers.slurm_parts import Slurm
from servers.watched import num_done, wait_for
from sweeping import Numbers, numbers, run, start

SWEEP = [
    *("task=digits_mlp", "optimizer=momentum", "weight_decay=none,decoupled", "schedule=cosine", "task.width=8"),
    *("search.trials=3", "search.over=[lr]", "confirm.seeds=2", "trainer.rungs=2", "sweep.name=small"),
]
SHORT = [*SWEEP, "trainer.steps=20"]
LAUNCHERS = {
    "joblib": "hydra_joblib_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "submitit_slurm": "hydra_submitit_launcher",
}
ON_SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=one"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def accounts(slurm_nodes: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """A SLURM whose `sacct` answers; its jobs end with the test."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'optsweep[launchers]'")
    monkeypatch.setenv("PATH", f"{slurm_nodes.accounts()}{os.pathsep}{os.environ['PATH']}")
    return slurm_nodes


@pytest.fixture(params=sorted(LAUNCHERS))
def launcher(request: pytest.FixtureRequest) -> list[str]:
    if find_spec(f"hydra_plugins.{LAUNCHERS[request.param]}") is None:
        pytest.skip(f"not installed: {LAUNCHERS[request.param]} (pip install 'optsweep[launchers]')")
    if request.param != "submitit_slurm":
        return [f"hydra/launcher={request.param}"]
    request.getfixturevalue("accounts")
    return ON_SLURM


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
    if ON_SLURM[0] in arguments:
        _cancel_all()


def _cancel_all() -> None:
    """No job is left; none has told anybody that it ends."""
    subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], check=False)
    wait_for(_none_is_left)


def _none_is_left() -> bool:
    found = subprocess.run(["squeue", "-h"], capture_output=True, check=False)
    return found.returncode == 0 and not found.stdout


def _planners(folder: Path) -> int:
    """Of arms, each its own."""
    if not (folder / "mlruns" / "optuna.db").exists():
        return 0
    signs = Studies.open(f"sqlite:///{folder}/mlruns/optuna.db", "small").signs_of_life(60.0)
    return sum(sign.trials is None and bool(sign.alive) for sign in signs)


def test_the_numbers_and_arms_of_ours(launcher: list[str], ours: Path, tmp_path: Path) -> None:
    run(tmp_path, "-m", *SHORT, *launcher)
    expected: Numbers = numbers(ours)
    assert numbers(tmp_path) == expected
    assert _plan(tmp_path) == _plan(ours)


def test_the_same_command_goes_on_after_a_kill(launcher: list[str], tmp_path: Path) -> None:
    long = [*SWEEP, "trainer.steps=3000", *launcher]
    _killed(tmp_path, "-m", *long)
    said = run(tmp_path, "-m", *long)
    assert said.splitlines()[-1].startswith("report: ")
    found = numbers(tmp_path)
    assert len(found) == 2 * 5
    assert None not in [value for _, _, value in found.values()]


def test_a_password_of_a_config_file_stays_there(
    servers: Servers, storage: str, launcher: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "conf" / "tracking"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"storage: {storage}\nuri: {servers.mlflow.address}\n")
    run(tmp_path, "-m", *SHORT, *launcher, "tracking=mine")
    made = [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]
    assert [path for path in made if b"s3cret" in path.read_bytes()] == []
    assert tmp_path / "mlruns" / "hydra" / "small" / "multirun.yaml" in made


def test_a_slurm_job_that_is_cancelled_is_said_and_one_that_goes_on_too(accounts: Slurm, tmp_path: Path) -> None:
    def running() -> list[str]:
        return sorted(accounts.said("squeue", "-h", "-r", "-t", "R", "-o", "%i").split())

    command = ["-m", *SWEEP, "trainer.steps=1000000", *ON_SLURM]
    process = start(tmp_path, *command)
    try:
        wait_for(lambda: len(running()) == 2, process)
        first, second = running()
        accounts.said("scancel", first)
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        line = f"hydra/launcher: Job {first} (task: 0) has not produced any output (state: CANCELLED); what is finished"
        assert (process.returncode, said.splitlines()[-1]) == (
            2,
            f"optsweep: {line} is kept, and the same command goes on",
        )
        wait_for(lambda: _planners(tmp_path) == 1)
        again = start(tmp_path, *command)
        said, _ = again.communicate(timeout=PATIENCE_SECONDS)
        assert (again.returncode, len(said.splitlines())) == (2, 1)
        assert "has been running this sweep since" in said
        assert running() == [second]
    finally:
        process.kill()
        _cancel_all()


WITHOUT_ACCOUNTS = (
    "only sacct could tell it that a job was cancelled or lost, for which it would wait for ever (Slurm acc"
)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ([], f"hydra/launcher=submitit_slurm: {WITHOUT_ACCOUNTS}"),
        (["hydra.launcher.tasks_per_node=2"], "hydra.launcher.tasks_per_node: 2 isn't allowed"),
        (["hydra.launcher.nodes=2"], "hydra.launcher.nodes: 2 isn't allowed"),
    ],
)
def test_jobs_that_would_end_badly_are_a_line_and_nothing_is_written(
    keys: list[str], line: str, slurm_nodes: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'optsweep[launchers]'")
    monkeypatch.chdir(tmp_path)
    assert doorman.run(["-m", *SHORT, *ON_SLURM, *keys]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"optsweep: {line}")
    assert not list(tmp_path.iterdir())


def test_files_on_several_nodes_are_a_line(
    accounts: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doorman.run(["-m", *SHORT, ON_SLURM[0]]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(
        "optsweep: tracking.storage: sqlite:///mlruns/optuna.db is a file, which processes on several"
    )
    assert said.endswith("or one job at a time: hydra.launcher.array_parallelism=1")
    assert not list(tmp_path.iterdir())


def test_a_scheduler_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'optsweep[launchers]'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert doorman.run(["-m", *SHORT, ON_SLURM[0]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("optsweep: hydra/launcher=submitit_slurm: there is no sbatch on PATH")
    assert not list(tmp_path.iterdir())
