"""Where a disturbance falls: a sweep's folder, its calls, what it stands on; and the moments that can be waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from chaos.calls import Call
from chaos.stores import MLFLOW, OPTUNA, counts, holds
from chaos.surroundings import Disk, Server
from chaos.sweeps import Sweep

LOOK_SECONDS = 0.05
LONGEST_WAIT = 60.0
"""For a moment to come; then the disturbance falls where it falls."""


@dataclass
class Scene:
    """A sweep that is being disturbed."""

    folder: Path
    logs: Path
    mark: str
    sweep: Sweep
    planned: int  # trials that end
    disk: Disk
    server: Server | None
    calls: list[Call] = field(default_factory=list)  # that run
    typed: int = 0

    def type(self, sweep: Sweep | None = None) -> Call:
        """Type the command, or that of another sweep."""
        self.typed += 1
        of = sweep or self.sweep
        command = of.command(self.server.address if self.server else None)
        call = Call(self.folder, of.name, command, self.mark, self.logs / f"call-{self.typed:02d}")
        self.calls.append(call)
        return call

    @property
    def call(self) -> Call | None:
        """The command that runs, the first typed of several."""
        return next((call for call in self.calls if call.alive), None)

    def stage(self) -> str:
        """What the command is at."""
        call = self.call
        if call is None:
            return "ended"
        if any(call.owns(pid) for pid in holds(self.folder)):
            return "training"
        return "reporting" if counts(self.folder).ended >= self.planned else "starting"


class Moment(Protocol):
    """Something to wait for."""

    def wait(self, scene: Scene, rng: Random) -> bool:
        """Wait for it; false if the command ended before."""
        ...


def until(scene: Scene, condition: Callable[[], bool], seconds: float = LONGEST_WAIT) -> bool:
    """Wait for a condition, but not for ever; false if the command ended before."""
    deadline = time.monotonic() + seconds
    while scene.call is not None:
        if time.monotonic() > deadline or condition():
            return True
        time.sleep(LOOK_SECONDS)
    return False


def pause(scene: Scene, seconds: float) -> bool:
    """Let time pass; false if the command ended."""
    return until(scene, lambda: False, seconds)


@dataclass(frozen=True)
class AfterStart:
    """Within so many seconds of the command's start; at once if they are over."""

    seconds: float

    def wait(self, scene: Scene, rng: Random) -> bool:
        when = rng.uniform(0.0, self.seconds)
        return until(scene, lambda: (call := scene.call) is not None and call.age >= when)


@dataclass(frozen=True)
class StoreAppears:
    """A moment after one of the stores is there: while its tables are made, in a fresh folder."""

    def wait(self, scene: Scene, rng: Random) -> bool:
        file, after = scene.folder / rng.choice((OPTUNA, MLFLOW)), rng.uniform(0.0, 2.0)
        return until(scene, file.exists, 15.0) and pause(scene, after)


@dataclass(frozen=True)
class WorkerBorn:
    """Within seconds of a worker's birth, which takes seconds to import what it needs."""

    def wait(self, scene: Scene, rng: Random) -> bool:
        age, call = rng.uniform(0.0, 6.0), scene.call
        known = {worker.pid for worker in call.workers()} if call is not None and call.age > 10.0 else set()

        def born() -> bool:
            now = scene.call
            return now is not None and any(worker.pid not in known for worker in now.workers())

        return until(scene, born, 20.0) and pause(scene, age)


@dataclass(frozen=True)
class TrialHeld:
    """A worker of this command holds a trial: in the midst of it."""

    def wait(self, scene: Scene, rng: Random) -> bool:
        after = rng.uniform(0.0, 0.6)
        return until(scene, lambda: scene.stage() == "training") and pause(scene, after)


@dataclass(frozen=True)
class TrialsTold:
    """So many further trials at most have been told, within a moment."""

    most: int

    def wait(self, scene: Scene, rng: Random) -> bool:
        more, after, before = rng.randint(1, self.most), rng.uniform(0.0, 0.3), counts(scene.folder).ended
        wanted = min(before + more, scene.planned)
        return until(scene, lambda: counts(scene.folder).ended >= wanted) and pause(scene, after)


@dataclass(frozen=True)
class AllTold:
    """After the last trial: the timing pass, the summaries, the report."""

    def wait(self, scene: Scene, rng: Random) -> bool:
        after = rng.uniform(0.0, 6.0)
        return until(scene, lambda: counts(scene.folder).ended >= scene.planned) and pause(scene, after)
