"""Episodes, one after the other, and what they share: undisturbed sweeps and an empty store."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from chaos.episode import Episode, Plans, undisturbed
from chaos.stores import Found
from chaos.surroundings import Disk
from chaos.sweeps import Sweep
from chaos.tally import Tally


class Run:
    """A place for episodes; use as a context manager, so that what is mounted is unmounted."""

    def __init__(self, place: Path, spent: Callable[[Tally], bool] = lambda tally: False) -> None:
        self.tally, self.begin = Tally(), time.monotonic()
        self.disk = Disk(place / "disk")
        self._place, self._spent = place, spent
        self._references: dict[str, Found] = {}
        self._template: Path | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.disk.close()

    @property
    def spent(self) -> bool:
        """Whether nothing is to be disturbed any more."""
        return self._spent(self.tally)

    def say(self, line: str) -> None:
        """Print a line of the log."""
        print(f"{time.monotonic() - self.begin:6.0f} s {line}", flush=True)

    def episode(self, name: str, sweep: Sweep, plan: Plans) -> None:
        """Run one; what came of it is in the tally."""
        reference = self._reference(sweep)
        tracked = "a server" if plan.with_server else "a file"
        self.say(f"{name}: {sweep.kind}, tracked by {tracked}{', fresh' if plan.fresh else ''}")
        Episode(name, sweep, plan, reference, self, None if plan.fresh else self._empty_store()).run()

    def logs(self, name: str) -> Path:
        """Where the output of an episode's calls is kept."""
        return self._place / name.replace("/", "_")

    def _reference(self, sweep: Sweep) -> Found:
        if sweep.kind not in self._references:
            self.say(f"undisturbed: {sweep.kind}")
            folder = self._place / f"undisturbed-{len(self._references)}"
            self._references[sweep.kind] = undisturbed(sweep, folder)
        return self._references[sweep.kind]

    def _empty_store(self) -> Path:
        """MLflow's tables, which take seconds to make."""
        if self._template is None:
            self._template = self._place / "empty"
            self._template.mkdir()
            address = f"sqlite:///{self._template}/mlflow.db"
            command = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
            subprocess.run(command, check=True, capture_output=True)
        return self._template
