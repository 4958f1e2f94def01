"""What a sweep stands on: a disk that can be full, and a tracking server that can be gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

PATIENCE = 120.0
"""Seconds for a server to answer, on a machine that is busy."""


class Disk:
    """A small file system in memory; a plain folder, which is never full, where none may be mounted."""

    def __init__(self, at: Path, megabytes: int = 160) -> None:
        at.mkdir(parents=True)
        self.at = at
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(at)]
        self.small = sys.platform == "linux" and os.geteuid() == 0 and _succeeds(mount)

    def fill(self, left: int) -> Path:
        """Leave so many bytes; returns the file to remove."""
        filler, state = self.at / "filler", os.statvfs(self.at)
        with filler.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_frsize - left))
        return filler

    def close(self) -> None:
        """Unmount."""
        if self.small:
            _succeeds(["umount", "-l", str(self.at)])


def _succeeds(command: list[str]) -> bool:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


class Server:
    """An MLflow server over a folder's own store, on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """As tracking.uri has it."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        store = self._folder / "mlruns"
        store.mkdir(exist_ok=True)
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"),
                *("--artifacts-destination", str(store / "artifacts")),
            ],
            cwd=self._folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=2.0):
                return
            time.sleep(0.1)
        raise TimeoutError(f"no MLflow server answers at {self.address}")

    def signal(self, number: int) -> None:
        """Send a signal to the server and its workers."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
