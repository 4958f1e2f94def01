"""Whole sweeps on PostgreSQL and an MLflow server: the trials and the numbers of files, whatever is restarted."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from optsweep.cli import doorman
from optsweep.search.studies import Studies
from patience import PATIENCE_SECONDS
from servers.conftest import Servers
from servers.watched import NUM_TRIALS, SWEEP, Kept, ended, kept, num_done, wait_for
from sweeping import run, start


def test_the_same_trials_and_numbers_as_on_files(
    servers: Servers, storage: str, reference: Kept, tmp_path: Path
) -> None:
    run(tmp_path, "-m", *SWEEP, "sweep.name=same", "hydra.launcher.workers=2", *servers.keys(storage))
    assert kept(storage, servers.mlflow.address, "same") == reference
    assert sorted(path.name for path in (tmp_path / "mlruns").iterdir() if path.is_file()) == []


def test_nothing_is_lost_or_doubled_by_restarts(
    servers: Servers, storage: str, reference: Kept, tmp_path: Path
) -> None:
    begun = ["-m", *SWEEP, "sweep.name=restarts", "hydra.launcher.workers=2", *servers.keys(storage)]
    process = start(tmp_path, *begun)
    wait_for(lambda: num_done(storage, "restarts") >= 5, process)
    servers.postgres.stop("immediate")  # in the midst of transactions
    servers.postgres.start("-c fsync=off")
    wait_for(lambda: num_done(storage, "restarts") >= 12, process)
    servers.mlflow.stop()
    wait_for(lambda: num_done(storage, "restarts") >= 16, process)  # training doesn't wait for it
    servers.mlflow.start()
    ended(process)
    assert kept(storage, servers.mlflow.address, "restarts") == reference


def _helper(folder: Path, servers: Servers, storage: str, sweep: str) -> subprocess.Popen[str]:
    folder.mkdir()
    stores = ["--storage", storage, "--tracking-uri", servers.mlflow.address]
    return start(folder, "work", sweep, *stores, "--workers", "1")


def test_workers_come_and_go_from_elsewhere(servers: Servers, storage: str, reference: Kept, tmp_path: Path) -> None:
    (tmp_path / "planner").mkdir()
    begun = ["-m", *SWEEP, "sweep.name=helped", "hydra.launcher.workers=1", *servers.keys(storage)]
    planner = start(tmp_path / "planner", *begun)
    wait_for(lambda: num_done(storage, "helped") >= 1, planner)
    with servers.held_back(storage):
        first = _helper(tmp_path / "first", servers, storage, "helped")
        second = _helper(tmp_path / "second", servers, storage, "helped")
        assert first.stdout is not None
        assert "1 worker from here" in first.stdout.readline()
        os.killpg(first.pid, signal.SIGKILL)  # as when its node is gone
        first.wait()
    planner_said, said = ended(planner), ended(second)
    assert said.splitlines()[-1] == "sweep helped is done"
    assert f"{NUM_TRIALS} trials ended" in planner_said
    assert kept(storage, servers.mlflow.address, "helped") == reference


def test_an_interrupted_helper_gives_its_trials_back(servers: Servers, storage: str, tmp_path: Path) -> None:
    (tmp_path / "planner").mkdir()
    long = ["trainer.steps=20000", "search.trials=1", "confirm.seeds=1"]
    begun = ["-m", *SWEEP, *long, "sweep.name=long", "hydra.launcher.workers=1", *servers.keys(storage)]
    planner = start(tmp_path / "planner", *begun)

    wait_for(lambda: servers.at_work(storage), planner)
    with servers.held_back(storage) as own:
        helper = _helper(tmp_path / "helper", servers, storage, "long")
        wait_for(lambda: servers.at_work(storage) > own, helper)
        os.kill(helper.pid, signal.SIGINT)
        said, _ = helper.communicate(timeout=PATIENCE_SECONDS)
        assert helper.returncode == 130, said
        assert servers.at_work(storage) == own
    os.killpg(planner.pid, signal.SIGKILL)
    planner.wait()


Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("postgresql+psycopg://optsweep:hunter2@127.0.0.1:{port}/studies", "password authentication failed"),
        ("postgresql://optsweep:s3cret%2F4@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
        ("postgresql+psycopg://optsweep:s3cret%2F4@127.0.0.1:9/studies", "Connection refused"),
        ("postgresql+psycopg2://optsweep:s3cret%2F4@127.0.0.1:9/studies", "optsweep[postgres]"),
    ],
)
def test_a_wrong_address_is_one_line_without_a_secret(
    wrong: str, said: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    address = wrong.format(port=servers.postgres.port)
    assert doorman.run(["work", "any", "--storage", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("optsweep: tracking.storage: postgresql")
    assert said in line
    assert "s3cret" not in line
    assert "hunter2" not in line


def test_a_storage_of_another_version_is_one_line(servers: Servers, storage: str, capsys: Capture) -> None:
    name = storage.rpartition("/")[2]
    Studies.open(storage, "old")
    servers.postgres.execute("UPDATE version_info SET schema_version = 99", name)
    servers.postgres.execute("UPDATE alembic_version SET version_num = 'v99.0.0'", name)
    assert doorman.run(["status", "old", "--storage", storage]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "version" in line
    assert "s3cret" not in line
