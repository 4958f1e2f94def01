"""The servers of all tests here, and the sweep on files that others are held to. `make test-integration` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from optsweep.launch.worker.leases import MACHINE_SECONDS
from servers.parts import MlflowServer, Postgres, missing, mlflow_server, postgres
from servers.ray_parts import ray_cluster
from servers.slurm_parts import Slurm, missing_slurm, slurm
from servers.watched import LONG, SWEEP, Kept, kept, wait_for
from sweeping import run

_NUMBERS = count()
_AT_WORK = "SELECT DISTINCT worker FROM optsweep_leases WHERE worker IS NOT NULL"
_BUSY = "SELECT pid FROM pg_stat_activity WHERE state <> 'idle' AND datname = '{}'"


@dataclass(frozen=True)
class Servers:
    """Both, as they run."""

    postgres: Postgres
    mlflow: MlflowServer

    def keys(self, storage: str) -> list[str]:
        """What a sweep's command says of them."""
        return [f"tracking.storage='{storage}'", f"tracking.uri={self.mlflow.address}"]

    def at_work(self, storage: str) -> set[str]:
        """The names of workers that have a trial."""
        try:
            return {str(name) for (name,) in self.postgres.execute(_AT_WORK, storage.rpartition("/")[2])}
        except Exception:  # before there is such a table
            return set()

    @contextmanager
    def held_back(self, storage: str) -> Iterator[set[str]]:
        """Within it the workers that have a trial stand still: who comes finds something left, however late that is.

        Not in a transaction, for whose locks others would wait. Yields their names.
        """
        held: list[psutil.Process] = []
        names: set[str] = set()

        def go_on() -> None:
            while held:
                with suppress(psutil.NoSuchProcess):
                    held.pop().resume()

        def stand() -> bool:
            names.clear()
            names.update(self.at_work(storage))
            with suppress(psutil.NoSuchProcess):  # it has just ended
                for name in names:
                    held.append(psutil.Process(int(name.rsplit("/", 2)[1])))
                    held[-1].suspend()
            busy = self.postgres.execute(_BUSY.format(storage.rpartition("/")[2]))
            if names and not busy and names == self.at_work(storage):
                return True
            go_on()
            return False

        try:
            wait_for(stand)
            yield names
        finally:
            go_on()

    def held(self, storage: str, host: str) -> set[str]:
        """The ids of trials that workers of a host train."""
        rows = self.postgres.execute(f"{_HELD} '{host}/%'", storage.rpartition("/")[2])
        return {str(row[0]).strip('"') for row in rows}

    def silence(self, storage: str, host: str) -> None:
        """Do to a host's rows what a minute does in which nothing is heard of it."""
        for statement in _SILENT:
            self.postgres.execute(f"{statement} '{host}/%'", storage.rpartition("/")[2])


_IDS = "trial_user_attributes JOIN optsweep_leases USING (trial_id)"
_HELD = f"SELECT value_json FROM {_IDS} WHERE key = 'id' AND worker LIKE"
_SILENT = [
    f"UPDATE {table} SET expires = expires - {MACHINE_SECONDS} WHERE {who} LIKE"
    for table, who in (("optsweep_leases", "worker"), ("optsweep_helpers", "process"), ("optsweep_seats", "holder"))
]


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


@pytest.fixture(scope="session")
def long_reference(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """What the sweep of long trials comes to on files, undisturbed."""
    folder = tmp_path_factory.mktemp("long")
    run(folder, "-m", *LONG, "sweep.name=files", "hydra.launcher.workers=1")
    return kept(f"sqlite:///{folder}/mlruns/optuna.db", f"sqlite:///{folder}/mlruns/mlflow.db", "files")


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
