"""What is kept of a sweep's jobs, in the folder of their logs: which there are, and how those that are over ended."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optsweep.address import near
from optsweep.errors import UserError

FOLDER = Path("mlruns") / "slurm"


def folder_of(sweep: str) -> Path:
    """Where a sweep's jobs have their scripts and logs. SLURM and submitit give a % in it a meaning of their own."""
    plain = re.sub(r"[^\w.\- ]", "_", sweep)
    beside = "" if plain == sweep else f"-{hashlib.sha256(sweep.encode()).hexdigest()[:8]}"
    return (FOLDER / f"{plain}{beside}").absolute()


@dataclass(frozen=True)
class JobEnd:
    """How a job ended for good: its program's exit code, and the line that it gave as its reason."""

    code: int
    said: str = ""


@dataclass(frozen=True)
class SlurmJob:
    """A job by its number, which the cluster may forget and give again, and by a name of ours, which is its only."""

    id: str
    name: str

    @property
    def array(self) -> str:
        """The number of the array that it is a task of, or its own."""
        return self.id.partition("_")[0]


@dataclass(frozen=True)
class Submitted:
    """A sweep's jobs."""

    command: str  # that they carry out, without passwords
    planner: SlurmJob
    workers: tuple[SlurmJob, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Submitted | None:
        """None where there is none, or none that can be read."""
        held = _read(folder / "jobs.json")
        try:
            workers = tuple(SlurmJob(**job) for job in held["workers"])
            return cls(held["command"], SlurmJob(**held["planner"]), workers)
        except (KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Keep it in place of what was kept."""
        _write(folder / "jobs.json", asdict(self))

    def with_workers(self, more: tuple[SlurmJob, ...]) -> Submitted:
        """With further ones."""
        return replace(self, workers=(*self.workers, *more))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within it no other command submits jobs of the sweep. Makes the folder. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # what jobs are to do is kept there, with the passwords of addresses
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"{near(folder)} can't be written ({error.strerror})") from None
    with lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def forget(folder: Path) -> None:
    """As if nothing had been submitted; logs stay."""
    (folder / "jobs.json").unlink(missing_ok=True)


def outcome_of(folder: Path, job: SlurmJob) -> JobEnd | None:
    """None where it isn't over, or was ended from outside."""
    held = _read(folder / f"{job.name}.json")
    try:
        return JobEnd(int(held["code"]), str(held["said"]))
    except (KeyError, TypeError, ValueError):
        return None


def note_outcome(folder: Path, name: str, outcome: JobEnd) -> None:
    """Keep how a job ended."""
    _write(folder / f"{name}.json", asdict(outcome))


def log_of(folder: Path, job: SlurmJob) -> Path:
    """What a job has said, as it is seen from the working folder."""
    return near(folder / f"{job.id}_0_log.out")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    beside = file.with_suffix(f".{os.getpid()}.part")
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(file)
