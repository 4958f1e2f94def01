"""A node of a SLURM cluster is lost in the midst of a sweep: its jobs go on on the other, to the numbers of files.

Its power fails: SIGKILL to slurmd and all that runs there. SLURM finds that out by itself; what a minute of silence
does to its rows in the database is done to them at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from optsweep.launch.slurm import cluster as commands
from optsweep.launch.slurm.record import SlurmJob, outcome_of
from servers.conftest import Servers
from servers.slurm_parts import SUBMITTED, Slurm, jobs_of, may_be_named, missing_slurm, said_by, slurm
from servers.watched import LONG, OFTEN, Kept, kept, num_done, saved, wait_for, went_on

LAUNCHER = ["hydra/launcher=slurm", "hydra.launcher.partition=spread", "hydra.launcher.workers=1"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    if lacking := missing_slurm():
        pytest.skip(f"not installed: {', '.join(lacking)}")
    if not may_be_named():
        pytest.skip("a process may not have a host name of its own here (unshare --uts)")
    with slurm(apart=True) as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(started.conf))
        yield started


def _node_of(job: SlurmJob) -> str:
    """Where it runs; empty while it waits."""
    held = commands.states().get(job.id)
    return held.node if held is not None else ""


def _lose(cluster: Slurm, node: str, servers: Servers, storage: str, checkpoints: Path, lost: set[str]) -> bool:
    """Let a node be gone if it has a trial that is kept; notes that trial's id."""
    if not servers.held(storage, node) & saved(checkpoints):
        return False
    cluster.signal(node, signal.SIGSTOP)
    lost |= servers.held(storage, node) & saved(checkpoints)
    if not lost:
        cluster.signal(node, signal.SIGCONT)
        return False
    cluster.lose(node)
    return True


@pytest.mark.parametrize("role", ["plans", "works"])
def test_a_lost_node_s_job_goes_on_elsewhere(
    role: str,
    cluster: Slurm,
    servers: Servers,
    storage: str,
    long_reference: Kept,
    tmp_path: Path,
) -> None:
    """The job that plans is requeued by SLURM; a worker that isn't to be is submitted again by the sweep's command."""
    requeue = f"hydra.launcher.requeue={str(role == 'plans').lower()}"
    command = ["-m", *LONG, OFTEN, f"sweep.name={role}", *servers.keys(storage), *LAUNCHER, requeue]
    said_by(tmp_path, SUBMITTED, *command)
    before = jobs_of(tmp_path, role)
    job = before.planner if role == "plans" else before.workers[0]
    wait_for(lambda: num_done(storage, role) >= 1 and _node_of(job))
    node, lost = _node_of(job), set[str]()
    wait_for(lambda: _lose(cluster, node, servers, storage, tmp_path, lost))
    wait_for(lambda: all(held.node != node for held in commands.states().values()))
    assert commands.silent_nodes() == {node}
    servers.silence(storage, node)
    while_down = said_by(tmp_path, SUBMITTED, *command)
    after = jobs_of(tmp_path, role)
    assert f"planner: job {before.planner.id}, " in while_down
    assert ("1 worker submitted to SLURM" in while_down) == (role == "works") == (after.workers != before.workers)
    end = tmp_path / "mlruns" / "slurm" / role
    wait_for(lambda: outcome_of(end, after.planner) is not None)
    assert "0 trials ended" in said_by(tmp_path, 0, *command)
    assert after.planner == before.planner
    (step,) = went_on(storage, role, lost.pop())
    assert step > 0
    assert kept(storage, servers.mlflow.address, role) == long_reference
    assert not saved(tmp_path)
    cluster.start_node(node)
    cluster.wait_for_nodes()


def test_while_no_node_is_up_jobs_wait(cluster: Slurm, tmp_path: Path) -> None:
    command = ["-m", *LONG, "hydra/launcher=slurm", "hydra.launcher.partition=one"]
    said_by(tmp_path, SUBMITTED, *command, "sweep.name=waits")
    planner = jobs_of(tmp_path, "waits").planner
    wait_for(lambda: commands.states()[planner.id].state == "RUNNING")
    cluster.said("scontrol", "update", "NodeName=optsweep1", "State=DRAIN", "Reason=test")  # it isn't down for long
    cluster.said("scontrol", "requeue", planner.id)
    wait_for(lambda: commands.states()[planner.id].state == "PENDING")
    assert f"planner: job {planner.id}, pending" in said_by(tmp_path, SUBMITTED, *command, "sweep.name=waits")
    assert "all its nodes are down or drained" in said_by(tmp_path, 2, *command, "sweep.name=another")
    cluster.said("scancel", planner.id)
    cluster.said("scontrol", "update", "NodeName=optsweep1", "State=RESUME")
    cluster.wait_for_nodes()
