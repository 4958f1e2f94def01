"""Whole sweeps on a Ray cluster of two nodes: the trials and the numbers of files, whatever nodes come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from optsweep.search.studies import Studies
from patience import PATIENCE_SECONDS
from servers.parts import free_port
from servers.ray_parts import actors, add_node, ray_cluster
from servers.watched import LONG, NUM_LONG_TRIALS, SWEEP, Kept, ended, kept, num_done, wait_for
from sweeping import run, start

pytest.importorskip("ray", reason="pip install 'optsweep[ray]'")
CPUS = 2


@pytest.fixture(scope="module")
def client_port() -> int | None:
    """Of Ray Client's server; None where that can't be had."""
    return free_port() if find_spec("grpc") else None


@pytest.fixture(scope="module")
def cluster(client_port: int | None) -> Iterator[Any]:
    with ray_cluster(CPUS, CPUS, client_port=client_port) as started:
        yield started


def _on(cluster: Any, *keys: str, sweep: Sequence[str] = SWEEP) -> list[str]:
    named = [f"hydra.launcher.{key}" for key in (f"address={cluster.address}", *keys)]
    return ["-m", *sweep, "hydra/launcher=ray", *named]


def _stores(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/mlruns/optuna.db", f"sqlite:///{folder}/mlruns/mlflow.db"


def _at_work(storage: str, sweep: str) -> int:
    """Workers with a trial; none before there is a sweep."""
    if not Path(storage.removeprefix("sqlite:///")).exists():
        return 0
    signs = Studies.open(storage, sweep).signs_of_life(60.0)
    return sum(sign.trials is not None and bool(sign.alive) for sign in signs)


def test_nothing_is_lost_or_doubled_when_a_node_is_killed(cluster: Any, long_reference: Kept, tmp_path: Path) -> None:
    storage, tracking_uri = _stores(tmp_path)
    process = start(tmp_path, *_on(cluster, f"num_cpus={CPUS}", sweep=LONG), "sweep.name=lost")
    wait_for(lambda: num_done(storage, "lost") >= 1 and _at_work(storage, "lost") == 2, process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    said = ended(process)
    assert f"{NUM_LONG_TRIALS} trials, 0 done, 2 workers" in said
    assert "raylet" not in said, "what Ray has to say is kept off the terminal"
    assert kept(storage, tracking_uri, "lost") == long_reference
    wait_for(lambda: not actors())


def test_by_ray_client_it_is_the_same(cluster: Any, client_port: int | None, reference: Kept, tmp_path: Path) -> None:
    if client_port is None:
        pytest.skip("not installed: grpcio (pip install 'ray[client]')")
    keys = ["hydra/launcher=ray", f"hydra.launcher.address=ray://127.0.0.1:{client_port}", "hydra.launcher.workers=2"]
    assert "32 trials, 0 done, 2 workers" in run(tmp_path, "-m", *SWEEP, *keys, "sweep.name=client")
    assert kept(*_stores(tmp_path), "client") == reference
    wait_for(lambda: not actors())


def test_a_worker_joins_with_a_node_and_ctrl_c_ends_all_and_frees_their_trials(cluster: Any, tmp_path: Path) -> None:
    storage, _ = _stores(tmp_path)
    process = start(tmp_path, *_on(cluster, f"num_cpus={CPUS}"), "sweep.name=joined", "trainer.steps=20000")
    wait_for(lambda: _at_work(storage, "joined") == 1, process)
    add_node(cluster, CPUS)
    wait_for(lambda: _at_work(storage, "joined") == 2, process)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, said.splitlines()[-1].partition(";")[0]) == (130, "stopped")
    wait_for(lambda: not actors())
    assert _at_work(storage, "joined") == 0


OWN = """
import optsweep
from sklearn.datasets import load_digits
from torch import nn

def task():
    x, y = load_digits(return_X_y=True)
    model = lambda: nn.Linear(64, 10)
    return optsweep.Task(model, ((x / 16).astype("float32"), y), loss=nn.functional.cross_entropy)
"""


def test_the_user_s_own_module_is_shipped_and_workers_share_a_cpu(cluster: Any, tmp_path: Path) -> None:
    """Nodes run in another folder than the command."""
    (tmp_path / "shipped_mine.py").write_text(OWN)
    (tmp_path / "mlruns").mkdir()
    small = ["task=own", "task._target_=shipped_mine.task", "search.trials=2", "confirm.seeds=1", "trainer.steps=20"]
    keys = [key for key in _on(cluster, "workers=3", "num_cpus=0.5") if not key.startswith(OF_SWEEP)]
    assert "3 workers" in run(tmp_path, *keys, *small, "search.over=[lr]", "sweep.name=own")


OF_SWEEP = ("task", "search", "confirm", "trainer.steps", "optimizer", "weight_decay", "schedule")


def test_a_command_that_is_killed_leaves_no_worker(cluster: Any, tmp_path: Path) -> None:
    storage, _ = _stores(tmp_path)
    process = start(tmp_path, *_on(cluster, "workers=1"), "sweep.name=killed", "trainer.steps=20000")
    wait_for(lambda: _at_work(storage, "killed") == 1, process)
    assert actors()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not actors())


WRONG = [
    (
        ["num_gpus=2"],
        "hydra.launcher.num_gpus: no node has 2 for a worker, 0 at most; the cluster has 2 nodes: 4 CPU, 0 GPU",
    ),
    (["num_cpus=64"], "hydra.launcher.num_cpus: no node has 64 for a worker, 2 at most"),
    (["address=127.0.0.1:9"], "hydra.launcher.address: there is no Ray cluster at 127.0.0.1:9 (Connection refused)"),
]


@pytest.mark.parametrize(("keys", "line"), WRONG)
def test_what_a_cluster_can_t_give_is_one_line_and_nothing_is_written(
    keys: list[str], line: str, cluster: Any, tmp_path: Path
) -> None:
    process = start(tmp_path, *_on(cluster, *keys), "sweep.name=wrong")
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert said.startswith(f"optsweep: {line}")
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())
