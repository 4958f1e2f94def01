"""A machine is gone in the midst of a trial: others go on from its checkpoint, with the trials and numbers of files.

Each machine is a group of processes with a folder and a host name of its own, so that no other can see how they are. It
is gone with SIGKILL to all of them; what a minute of silence does to its rows in the database is done to them at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from servers.conftest import Servers
from servers.slurm_parts import NAMED, may_be_named
from servers.watched import (
    LONG,
    NUM_LONG_TRIALS,
    OFTEN,
    Kept,
    ended,
    kept,
    num_done,
    saved,
    wait_for,
    went_on,
)

WITH_ONE = [*LONG, "hydra.launcher.workers=1"]


class Machine:
    """Where one command of optsweep runs."""

    def __init__(self, name: str, home: Path, *arguments: str) -> None:
        self.name, self.folder = name, home / name
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [*NAMED, name, sys.executable, "-m", "optsweep", *arguments],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        os.killpg(self.process.pid, number)

    def lose(self, servers: Servers, storage: str, checkpoints: Path) -> str:
        """Let it be gone when it has a trial that is kept; returns the trial's id."""
        lost: set[str] = set()

        def caught() -> bool:
            nonlocal lost
            if not servers.held(storage, self.name) & saved(checkpoints):
                return False
            self.signal(signal.SIGSTOP)
            lost = servers.held(storage, self.name) & saved(checkpoints)
            self.signal(signal.SIGKILL if lost else signal.SIGCONT)
            return bool(lost)

        wait_for(caught, self.process)
        self.process.communicate()
        servers.silence(storage, self.name)
        (trial,) = lost
        return trial


@pytest.fixture(autouse=True)
def host_names() -> None:
    if not may_be_named():
        pytest.skip("a process may not have a host name of its own here (unshare --uts)")


def test_a_lost_helper_s_trial_goes_on_elsewhere(
    servers: Servers, storage: str, long_reference: Kept, tmp_path: Path
) -> None:
    shared, other = tmp_path / "shared", tmp_path / "mounted elsewhere"
    keys = [*servers.keys(storage), f"tracking.checkpoints={shared}"]
    planner = Machine("plans", tmp_path, "-m", *WITH_ONE, OFTEN, "sweep.name=lost", *keys)
    wait_for(lambda: num_done(storage, "lost") >= 1, planner.process)
    stores = ["--storage", storage, "--tracking-uri", servers.mlflow.address, "--workers", "1"]
    other.symlink_to(shared)
    with servers.held_back(storage):
        gone = Machine("gone", tmp_path, "work", "lost", *stores)
        trial = gone.lose(servers, storage, shared)
    stays = Machine("stays", tmp_path, "work", "lost", *stores, "--checkpoints", str(other))
    planner_said, said = ended(planner.process), ended(stays.process)
    assert said.splitlines()[-1] == "sweep lost is done"
    assert f"{NUM_LONG_TRIALS} trials ended" in planner_said
    (step,) = went_on(storage, "lost", trial)
    assert step > 0
    assert kept(storage, servers.mlflow.address, "lost") == long_reference
    assert not list(shared.rglob("*.pt"))


def test_a_lost_planner_s_command_goes_on_on_another_machine(
    servers: Servers, storage: str, long_reference: Kept, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    keys = [*servers.keys(storage), f"tracking.checkpoints={shared}"]
    command = ["-m", *WITH_ONE, OFTEN, "sweep.name=taken", *keys]
    gone = Machine("gone", tmp_path, *command)
    wait_for(lambda: num_done(storage, "taken") >= 1, gone.process)
    servers.mlflow.stop()
    done = num_done(storage, "taken")
    wait_for(lambda: num_done(storage, "taken") > done, gone.process)
    trial = gone.lose(servers, storage, shared)  # with results that no server has
    servers.mlflow.start()
    again = Machine("again", tmp_path, *command)
    said = ended(again.process)
    assert "no curves in MLflow any more" in said, "of results that nobody but the lost machine had, one or more"
    assert "in the hands of process" in said
    (step,) = went_on(storage, "taken", trial)
    assert step > 0
    assert kept(storage, servers.mlflow.address, "taken") == long_reference
