"""Real servers for tests and benchmarks: PostgreSQL in a private cluster, and MLflow's server on it.

Both listen on free ports of 127.0.0.1 and keep all they have in a folder of their own; whoever starts them ends them.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from patience import PATIENCE_SECONDS

USER, PASSWORD = "optsweep", "s3cret/4"
"""A password that an address can't hold as it is."""

_QUOTED = "s3cret%2F4"
_DEBIAN = Path("/usr/lib/postgresql")

FOR_A_WHILE = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # fifteen processes and 3 GB otherwise
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs; None where it isn't installed."""
    versions = [folder for folder in _DEBIAN.glob("*") if folder.name.isdigit()]
    found = [folder / "bin" for folder in sorted(versions, key=lambda folder: int(folder.name))]
    if (on_path := shutil.which("pg_ctl")) is not None:
        found.append(Path(on_path).resolve().parent)
    return next((folder for folder in reversed(found) if (folder / "initdb").is_file()), None)


_PORTS = range(20_000, 32_000)
_GIVEN_BY_THE_SYSTEM = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody has, given once; none that the system gives to others, for a server may go and come back."""
    ports = _PORTS
    with suppress(OSError):
        begin = int(_GIVEN_BY_THE_SYSTEM.read_text().split()[0])
        ports = range(ports.start, min(ports.stop, begin)) or ports
    for port in random.sample(ports, len(ports)):
        with suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError("no port is free")


def _unprivileged() -> str | None:
    """Who runs PostgreSQL, which root may not; None: whoever runs this."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)  # none: initdb says what it wants


@dataclass
class Postgres:
    """A private cluster, whose superuser is `USER`."""

    folder: Path
    port: int = field(default_factory=free_port)

    def make(self) -> None:
        """Make the cluster's files."""
        if (user := _unprivileged()) is not None:
            shutil.chown(self.folder, user)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        how = ["-A", "scram-sha-256", "-U", USER, "--pwfile", str(secret), "-E", "UTF8", "--no-sync"]
        self._run("initdb", "-D", str(self._data), "--locale=C", *how)

    def start(self, *settings: str) -> None:
        """Start it, and wait until it answers."""
        options = [f"-p {self.port}", "-c listen_addresses=127.0.0.1", f"-k {self.folder}", *settings]
        log = str(self.folder / "log")
        patience = ["-w", "-t", f"{PATIENCE_SECONDS:.0f}"]
        self._run("pg_ctl", "-D", str(self._data), *patience, "-l", log, "-o", " ".join(options), "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it; `immediate` is as if the machine had lost its power."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", f"{PATIENCE_SECONDS:.0f}", "-m", how, "stop")

    def make_database(self, name: str) -> str:
        """A new database; returns its address."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.address(name)

    def address(self, name: str, password: str = _QUOTED) -> str:
        """Where a database is, as SQLAlchemy has it."""
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as its superuser; its rows, if it has any."""
        from sqlalchemy import NullPool, create_engine, text

        engine = create_engine(self.address(database), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            found = connection.execute(text(statement))
            return [tuple(row) for row in found] if found.returns_rows else []

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        folder = binaries()
        assert folder is not None
        command = [str(folder / program), *arguments]
        # to a file: the server keeps what it was given open, and a pipe would never end
        with (self.folder / "said").open("w") as said:
            user = _unprivileged()
            done = subprocess.run(command, stdout=said, stderr=said, cwd="/", user=user, check=False)  # type: ignore[call-overload, unused-ignore]
        if done.returncode:
            raise RuntimeError(f"{program}: {(self.folder / 'said').read_text()}")


@contextmanager
def postgres(*settings: str) -> Iterator[Postgres]:
    """A cluster that runs for as long as this lasts. Not synced: nothing of it outlives the machine."""
    folder = Path(tempfile.mkdtemp(prefix="optsweep-pg-", dir="/tmp"))  # its socket's path must be short
    folder.chmod(0o755)
    server = Postgres(folder)
    try:
        server.make()
        server.start("-c fsync=off", *settings)
        yield server
    finally:
        with suppress(RuntimeError):
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class MlflowServer:
    """MLflow's own server over a database, which takes artifacts and gives them out."""

    database: str
    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Of its clients."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ["--backend-store-uri", self.database, "--artifacts-destination", str(self.folder / "artifacts")]
        served = ["--serve-artifacts", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        log = (self.folder / "mlflow.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where, *served],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            env={**os.environ, **FOR_A_WHILE},
            start_new_session=True,
        )
        log.close()
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"mlflow server: {(self.folder / 'mlflow.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it at once, with the processes that it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5):
            return True
        return False


@contextmanager
def mlflow_server(database: str, folder: Path) -> Iterator[MlflowServer]:
    """A server that runs for as long as this lasts."""
    server = MlflowServer(database, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def missing() -> Sequence[str]:
    """What of it isn't installed, in words."""
    from importlib.util import find_spec

    lacking = [] if binaries() is not None else ["PostgreSQL (apt-get install postgresql)"]
    return lacking if find_spec("psycopg") is not None else [*lacking, "psycopg (pip install 'optsweep[postgres]')"]
