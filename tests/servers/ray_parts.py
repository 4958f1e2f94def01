"""A Ray cluster of several nodes on this machine, with files and ports of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from patience import PATIENCE_SECONDS

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all sockets on 127.0.0.1
    "RAY_worker_niceness": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_initial_delay_ms": "500",
}


@contextmanager
def ray_cluster(*cpus: int, client_port: int | None = None) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with a node for each number of CPUs, the first of which is its head.

    `client_port`: where that has a server of Ray Client; None: it has none.
    """
    folder = tempfile.mkdtemp(prefix="osray-", dir="/tmp")  # its sockets' paths must be short
    before = {name: os.environ.get(name) for name in (*QUIET, "RAY_TMPDIR")}
    os.environ.update(QUIET, RAY_TMPDIR=folder)
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for count in cpus:
            add_node(cluster, count, **({} if cluster.head_node else {"ray_client_server_port": client_port}))
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def add_node(cluster: Any, cpus: int, **of_head: Any) -> None:
    """One more node, waited for."""
    cluster.add_node(wait=False, num_cpus=cpus, include_dashboard=False, **of_head)
    cluster.wait_for_nodes(PATIENCE_SECONDS)


def actors() -> list[psutil.Process]:
    """Workers' actors on all nodes of this process, and what they have started."""
    nodes = psutil.Process().children(recursive=True)
    found = [process for process in nodes if "NodeWorker" in _title(process)]
    return [*found, *(child for actor in found for child in _children(actor))]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:  # it has just ended
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
