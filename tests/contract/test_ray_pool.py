"""A pool on Ray without Ray: its options, its refusals, and what becomes of actors that come, go, and find no room."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from omegaconf import OmegaConf

from errands import Echo
from hydra_plugins.optsweep.ray_launcher import RayLauncher
from optsweep.cli import doorman
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch.pools import ray_cluster
from optsweep.launch.pools.actor import Heard, NodeWorker
from optsweep.launch.pools.member import Answered
from optsweep.launch.pools.ray import HEAD_START_SECONDS, RESIZE_SECONDS, RayPool
from optsweep.launch.pools.ray_cluster import Cluster, LostError, Needs, RayPlace
from optsweep.launch.worker.inquiries import DiedError
from optsweep.launch.worker.job import Job
from optsweep.tracking.spool import Spool, make_folder

Capture = pytest.CaptureFixture[str]
NODE = {"CPU": 4.0, "node:10.0.0.1": 1.0, "memory": 1e9}
ONE_CPU = Needs(1.0)
GPU_NODE = {"CPU": 8.0, "GPU": 2.0}


class Seeming:
    """A cluster of nodes that can be added, whose actors answer what they are told to."""

    def __init__(self, *nodes: dict[str, float]) -> None:
        self.held = list(nodes)
        self.started: list[MagicMock] = []
        self.killed: list[MagicMock] = []
        self.calls: list[tuple[MagicMock, str]] = []
        self.answers: dict[int, Any] = {}
        self.closed = False
        self.now = 0.0

    def nodes(self) -> list[dict[str, float]]:
        return self.held

    def start(self, cls: type, needs: Needs, *arguments: Any) -> MagicMock:
        actor = MagicMock()
        for name in ("begin", "ask", "assign", "watch", "kill", "rest", "leave", "end"):
            getattr(actor, name).of = (actor, name)
        self.started.append(actor)
        return actor

    def call(self, method: Any, *arguments: Any) -> int:
        self.calls.append(method.of)
        return len(self.calls) - 1

    def wait(self, references: list[int], seconds: float, *, for_all: bool = False) -> list[int]:
        return [reference for reference in references if reference in self.answers]

    def result(self, reference: int) -> Any:
        found = self.answers[reference]
        if isinstance(found, Exception):
            raise found
        return found

    def kill(self, actor: MagicMock) -> None:
        self.killed.append(actor)

    def close(self) -> None:
        self.closed = True

    def says(self, number: int, what: Any) -> None:
        """What the actor of that number was asked last, comes to this."""
        last = max(n for n, (actor, _) in enumerate(self.calls) if actor is self.started[number])
        self.answers[last] = what

    def doing(self, number: int) -> str:
        return [name for actor, name in self.calls if actor is self.started[number]][-1]


def _pool(cluster: Seeming, workers: int | None, needs: Needs = ONE_CPU) -> RayPool:
    connect = cast(Any, lambda *_: cluster)
    return RayPool(1, RayPlace(), needs, workers, clock=lambda: cluster.now, connect=connect)


def _jobs() -> list[Job]:
    return [cast(Job, MagicMock())]


@pytest.fixture(autouse=True)
def same_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optsweep.launch.pools.ray.replace", lambda job, **_: job)
    monkeypatch.setattr("optsweep.launch.pools.ray._from_anywhere", lambda arm: arm)


def test_a_lost_actor_s_worker_is_named_and_another_actor_started() -> None:
    cluster = Seeming(NODE)
    with _pool(cluster, 2) as pool:
        pool.start()
        pool.deal(["cpu", "cpu"])
        cluster.says(0, Heard())
        assert pool.wait(0.0) == []
        pool.assign(_jobs())
        cluster.says(0, Heard())
        pool.wait(0.0)
        assert len(cluster.started) == 1
        cluster.says(0, Heard("first"))
        pool.wait(0.0)
        assert len(cluster.started) == 2, "the others follow once the first one works"
        cluster.says(0, LostError("its node was lost"))
        assert pool.wait(0.0) == [("first", "its worker died (its node was lost)")]
        assert cluster.killed == [cluster.started[0]]
        assert len(cluster.started) == 2, "not at once"
        cluster.now += 1.0
        pool.wait(0.0)
        cluster.now += HEAD_START_SECONDS + 1.0
        pool.wait(0.0)
        assert len(cluster.started) == 3
        cluster.says(1, Heard())
        pool.wait(0.0)
        assert (cluster.doing(1), cluster.doing(2)) == ("assign", "begin")
    assert cluster.closed


def test_as_many_workers_as_there_is_room_for_while_that_changes() -> None:
    cluster = Seeming({"CPU": 1.0})
    with _pool(cluster, None) as pool:
        assert pool.size == 1
        pool.start_one()
        pool.assign(_jobs())
        cluster.says(0, Heard("first"))
        pool.wait(0.0)
        cluster.held.append({"CPU": 2.0})
        cluster.now += RESIZE_SECONDS
        pool.wait(0.0)
        assert len(cluster.started) == 3
        del cluster.held[1]
        cluster.now += RESIZE_SECONDS
        pool.wait(0.0)
        assert cluster.killed == cluster.started[1:], "those that nobody has placed"


def test_what_ends_the_sweep_is_said_in_a_line_and_what_workers_say_is_passed_on(capsys: Capture) -> None:
    cluster = Seeming(NODE)
    with _pool(cluster, 1) as pool:
        pool.start()
        pool.assign(_jobs())
        cluster.says(0, Heard(said=["optsweep: a line"], trouble="tracking.storage: x"))
        with pytest.raises(UserError, match=r"^tracking.storage: x$"):
            pool.wait(0.0)
    assert capsys.readouterr().err == "optsweep: a line\n"
    assert (cluster.closed, cluster.killed) == (True, cluster.started)


def test_an_actor_answers_and_one_that_is_lost_over_it_counts_as_killed() -> None:
    cluster = Seeming(NODE)
    with _pool(cluster, 1) as pool:
        pool.start_one()
        cluster.answers = {0: Heard(), 1: (Answered("an answer"), [])}
        assert pool.ask(Echo(1)) == "an answer"
        cluster.answers |= {3: LostError("gone")}  # 2: the call that ends a watch
        with pytest.raises(DiedError) as died:
            pool.ask(Echo(1))
        assert died.value.killed


WHAT_NO_NODE_HAS = [
    (Needs(1.0, 3.0), "num_gpus: no node has 3 for a worker, 2 at most; the cluster has 2 nodes: 12 CPU, 2 GPU"),
    (Needs(0.0, 0.0), "num_cpus: workers that ask for nothing have no bound; give more than 0"),
    (Needs(9.0), "num_cpus: no node has 9 for a worker, 8 at most"),
    (Needs(1.0, 0.0, {"tpu": 1.0}), "resources.tpu: no node has 1 for a worker, 0 at most"),
]


@pytest.mark.parametrize(("needs", "line"), WHAT_NO_NODE_HAS)
def test_what_no_node_has_is_refused(needs: Needs, line: str) -> None:
    cluster = Seeming(NODE, GPU_NODE)
    with pytest.raises(UserError) as error, _pool(cluster, 1, needs):
        pass
    assert str(error.value).startswith(f"hydra.launcher.{line}")
    assert cluster.closed


def test_room_is_counted_by_node_and_gpus_are_asked_for_where_there_are_any() -> None:
    nodes = [NODE, GPU_NODE]
    assert Needs(3.0).room(nodes) == 3
    assert Needs(1.0, 0.25).room(nodes) == 8
    assert Needs(1.0, 0.1).room([{"CPU": 64.0, "GPU": 1.0}]) == 10
    assert [Needs(1.0, ranks=ranks).settled(nodes).num_gpus for ranks in (1, 2)] == [1.0, 2.0]
    assert Needs(1.0).settled([NODE]).num_gpus == 0.0
    assert Needs(1.0, 0.0).settled(nodes).num_gpus == 0.0


BASE = ["-m", "task=digits_mlp", "sweep.name=bad", "hydra/launcher=ray"]
MISTAKES = [
    ("workers=0", "hydra.launcher.workers: 0 is not allowed; give a whole number ≥ 1"),
    ("num_gpus=1.5", "hydra.launcher.num_gpus: 1.5 is not allowed; give a whole number, or a part of one"),
    ("num_cpus=many", "hydra.launcher.num_cpus: 'many' is not allowed; give a number"),
    ("address=head:99999", "hydra.launcher.address: 'head:99999' is not allowed; give auto, HOST:PORT"),
    ("runtime_env={excludes: data}", "hydra.launcher.runtime_env.excludes: 'data' is not allowed; give a list"),
    ("address=here", "hydra.launcher.address: 'here' is not allowed; give auto, HOST:PORT, ray://HOST:PORT, or null"),
    ("resources={tpu: -1}", "hydra.launcher.resources.tpu: -1 is not allowed"),
    ("runtime_env=5", "hydra.launcher.runtime_env: 5 is not allowed; give values by name"),
]


@pytest.mark.parametrize(("key", "line"), MISTAKES)
def test_a_wrong_key_is_one_line(
    key: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doorman.run([*BASE, f"hydra.launcher.{key}"]) == 2
    assert capsys.readouterr().err.startswith(f"optsweep: {line}")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError("No module named 'ray'")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"^hydra/launcher=ray needs the extra: pip install 'optsweep\[ray\]'"):
        Cluster.connected(RayPlace(), Needs(1.0), None)


def test_a_cluster_of_another_version_is_one_line() -> None:
    told = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.12.1\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    line = str(ray_cluster._refused("head:6379", RuntimeError(told)))
    assert line.startswith("hydra.launcher.address: the cluster at head:6379 runs Ray 2.50.0 and Python 3.12.1, this")


def test_a_host_that_can_t_be_one_is_a_line() -> None:
    with pytest.raises(UserError, match=r"^hydra.launcher.address: there is no Ray cluster at a\.\.b:1 \(no host has"):
        ray_cluster._check_reachable("a..b:1")


def test_lists_and_groups_of_a_config_are_plain_ones_for_ray() -> None:
    given = {"pip": ["timm"], "env_vars": {"HOME": "/data"}}
    launcher = RayLauncher(runtime_env=OmegaConf.create(given), resources=OmegaConf.create({"tpu": 1}))
    found = launcher.options.runtime_env
    assert [type(held) for held in found.values()] == [list, dict]
    assert found == given


def test_nobody_on_the_cluster_reads_a_password_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["python", "optsweep", "-cn", "mine", "tracking.storage='postgresql://ann:s3cret@db/s'"]
    monkeypatch.setattr("psutil.Process.cmdline", lambda process: told)
    said = ray_cluster._entrypoint()
    assert said.startswith("python optsweep -cn mine")
    assert "s3cret" not in said


def _cluster_of(error: str) -> Cluster:
    """One where what was called comes to an error of Ray's of that name."""
    ray = MagicMock()
    for name in ("RuntimeEnvSetupError", "ActorUnavailableError", "RayActorError", "OutOfMemoryError", "RayTaskError"):
        setattr(ray.exceptions, name, type(name, (Exception,), {}))
    ray.get.side_effect = vars(ray.exceptions)[error]("said by Ray\nand why")
    return Cluster(ray, ours=True)


def test_a_worker_that_ray_ends_for_want_of_memory_is_lost_and_an_actor_s_fault_is_said_whole() -> None:
    with pytest.raises(LostError, match="out of memory"):
        _cluster_of("OutOfMemoryError").result(None)
    with pytest.raises(RuntimeError, match="and why"):
        _cluster_of("RayTaskError").result(None)


@pytest.mark.parametrize(
    "error", [ConnectionError("Client is shutting down."), Exception("Ray Client is not connected.")]
)
def test_a_connection_that_is_lost_is_a_line(error: Exception) -> None:
    ray = MagicMock()
    ray.nodes.side_effect = ray.wait.side_effect = error
    cluster = Cluster(ray, ours=False)
    for ask in (cluster.nodes, lambda: cluster.wait([1], 0.0)):
        with pytest.raises(UserError, match=r"address: the connection to the cluster is lost \((Client|Ray Client) is"):
            ask()


def test_what_went_wrong_first_is_said_though_a_cluster_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Seeming(NODE)
    pool = _pool(cluster, 1).__enter__()
    pool.start()
    cluster.says(0, Heard())
    pool.wait(0.0)
    ends = MagicMock(side_effect=UserError("gone"))
    monkeypatch.setattr(cluster, "call", ends)
    pool.__exit__(ValueError)  # raises nothing of its own
    assert ends.called
    assert cluster.closed


def test_a_runtime_environment_that_ray_refuses_is_one_line() -> None:
    ray = MagicMock()
    ray.runtime_env.RuntimeEnv.side_effect = TypeError("env_vars must be of type Dict[str, str]")
    with pytest.raises(UserError, match=r"^hydra.launcher.runtime_env: env_vars must be"):
        ray_cluster._shipped(ray, RayPlace(None, {"env_vars": {"A": 1}}))


def test_the_working_folder_is_shipped_without_what_is_made_in_it() -> None:
    shipped = RayPlace("auto", {"pip": ["timm"], "excludes": ["data"]}).shipped
    assert shipped["working_dir"] == str(Path.cwd())
    assert shipped["pip"] == ["timm"]
    assert {"mlruns", ".venv", ".git", "data"} <= set(shipped["excludes"])
    assert "working_dir" not in RayPlace("auto", {"working_dir": None}).shipped
    assert RayPlace().shipped == {}, "a local Ray's workers are in the folder itself"


def test_an_actor_that_lacks_the_stores_says_what_a_cluster_needs(tmp_path: Path) -> None:
    arm = MagicMock(spec=Arm, storage=f"sqlite:///{tmp_path}/optuna.db", tracking_uri="http://mlflow:5000")
    there = NodeWorker.__new__(NodeWorker)
    there._called = MagicMock()
    job = replace(Job(cast(Arm, None), "", "", ""), arm=cast(Arm, arm))
    heard = there.assign([job], None)
    assert heard.trouble.startswith(f"tracking.storage: {tmp_path}/optuna.db isn't there on ")
    assert "postgresql+psycopg://" in heard.trouble


def test_a_folder_that_was_shipped_gets_a_home_for_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arm = MagicMock(spec=Arm, storage="postgresql+psycopg://db/s", tracking_uri="http://mlflow:5000", sweep="s")
    there = NodeWorker.__new__(NodeWorker)
    there._called, there._pool = MagicMock(), MagicMock()
    job = replace(Job(cast(Arm, None), "", "", ""), arm=cast(Arm, arm))
    assert there.assign([job], None) == Heard()
    make_folder(Spool.of(arm.tracking_uri, arm.storage, arm.sweep).folder)


def test_an_own_key_of_a_launcher_is_declared_by_it() -> None:
    assert RayLauncher.read({"num_gpus": 0.5}).num_gpus == 0.5
    with pytest.raises(UserError, match=r"hydra.launcher.num_gpu: no such key \(did you mean num_gpus\?\)"):
        RayLauncher.read({"num_gpu": 1})
