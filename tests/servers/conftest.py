"""The servers of all tests here, and the sweep on files that others are held to. `make test-integration` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from servers.parts import MlflowServer, Postgres, missing, mlflow_server, postgres
from servers.ray_parts import ray_cluster
from servers.slurm_parts import Slurm, missing_slurm, slurm
from servers.watched import SWEEP, Kept, kept
from sweeping import run

_NUMBERS = count()


@dataclass(frozen=True)
class Servers:
    """Both, as they run."""

    postgres: Postgres
    mlflow: MlflowServer

    def keys(self, storage: str) -> list[str]:
        """What a sweep's command says of them."""
        return [f"tracking.storage='{storage}'", f"tracking.uri={self.mlflow.address}"]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    if lacking := missing():
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with postgres() as database:
        runs = database.make_database("runs")
        with mlflow_server(runs, tmp_path_factory.mktemp("mlflow")) as server:
            yield Servers(database, server)


@pytest.fixture
def storage(servers: Servers) -> str:
    """The address of an empty database for studies."""
    return servers.postgres.make_database(f"studies{next(_NUMBERS)}")


@pytest.fixture(scope="session")
def on_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep on files, undisturbed, with one worker and its report."""
    folder = tmp_path_factory.mktemp("files")
    run(folder, "-m", *SWEEP, "sweep.name=files", "hydra.launcher.workers=1")
    return folder


@pytest.fixture(scope="session")
def reference(on_files: Path) -> Kept:
    return kept(f"sqlite:///{on_files}/mlruns/optuna.db", f"sqlite:///{on_files}/mlruns/mlflow.db", "files")


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes."""
    pytest.importorskip("ray", reason="pip install 'optsweep[ray]'")
    with ray_cluster(1, 1) as started:
        yield started


@pytest.fixture(scope="module")
def slurm_nodes() -> Iterator[Slurm]:
    """A SLURM cluster of two nodes, which its commands find by the environment."""
    if lacking := missing_slurm():
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with ExitStack() as until_the_end:
        try:
            started = until_the_end.enter_context(slurm())
        except RuntimeError as error:  # of daemons that can't run in a container, say
            pytest.skip(str(error))
        until_the_end.enter_context(pytest.MonkeyPatch.context()).setenv("SLURM_CONF", str(started.conf))
        yield started
