"""What befalls a command while it runs, and its folder between two calls."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import psutil

from chaos.calls import Call
from chaos.scene import AfterStart, AllTold, Moment, Scene, StoreAppears, TrialHeld, TrialsTold, WorkerBorn, pause
from chaos.stores import MLFLOW, OPTUNA, holds
from chaos.sweeps import NEIGHBOUR

SAFE_DEATHS = 2
"""A trial that three workers in a row die of is given up, which is promised: so no third one is killed."""

STARTING = (AfterStart(6.0), StoreAppears(), WorkerBorn())
WORKING = (TrialHeld(), TrialHeld(), TrialsTold(2), TrialsTold(5))
ANY = (*STARTING, *WORKING, AllTold())


class Disturbance(Protocol):
    """Something that goes wrong."""

    @property
    def name(self) -> str:
        """What it is called in the table."""
        ...

    @property
    def moments(self) -> Sequence[Moment]:
        """When it may fall; none: between two calls."""
        ...

    @property
    def counts(self) -> str:
        """`kill` or `outage`, where it is counted as one."""
        ...

    def do(self, scene: Scene, rng: Random) -> str | None:
        """Do it; returns what it fell on, or None where there was nothing to disturb."""
        ...


@dataclass(frozen=True)
class KillWorker:
    """SIGKILL to a worker, in training or before."""

    name: str = "SIGKILL, a worker"
    moments: Sequence[Moment] = (*WORKING, *WORKING, WorkerBorn())
    counts: str = "kill"

    def do(self, scene: Scene, rng: Random) -> str | None:
        call = scene.call
        workers = call.workers() if call is not None else []
        held = holds(scene.folder)
        workers = [worker for worker in workers if held.get(worker.pid, 0) < SAFE_DEATHS]
        if not workers:
            return None
        worker = rng.choice(workers)
        with suppress(psutil.Error):
            worker.kill()
            return "training" if worker.pid in held else "starting or idle"
        return None


@dataclass(frozen=True)
class Signal:
    """A signal to the command, or to its whole group."""

    name: str
    number: int
    group: bool
    stops: bool = False  # politely
    moments: Sequence[Moment] = ANY
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        call, stage = scene.call, scene.stage()
        if call is None:
            return None
        send(call, self.number, self.group, stops=self.stops)
        return stage


def send(call: Call, number: int, group: bool, *, stops: bool = False) -> None:
    """Send a signal to a command or its whole group."""
    call.told_to_stop |= stops
    (call.signal_group if group else call.signal)(number)
    if number == signal.SIGKILL:
        call.process.wait()


@dataclass(frozen=True)
class InterruptTwice:
    """Ctrl-C, and again when it isn't obeyed at once."""

    name: str = "Ctrl-C twice"
    moments: Sequence[Moment] = ANY
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        call, stage = scene.call, scene.stage()
        if call is None:
            return None
        send(call, signal.SIGINT, group=True, stops=True)
        pause(scene, rng.uniform(0.1, 2.0))
        send(call, signal.SIGINT, group=True, stops=True)
        return stage


@dataclass(frozen=True)
class Freeze:
    """SIGSTOP, and SIGCONT seconds later."""

    name: str
    group: bool = False
    worker: bool = False
    moments: Sequence[Moment] = ANY
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        call, stage = scene.call, scene.stage()
        if call is None:
            return None
        workers = call.workers()
        if self.worker and not workers:
            return None
        frozen = [rng.choice(workers)] if self.worker else [psutil.Process(call.process.pid)]
        frozen += workers if self.group else []
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in frozen:
                with suppress(psutil.Error):
                    process.send_signal(number)
            if number == signal.SIGSTOP:
                time.sleep(rng.uniform(1.0, 4.0))
        return stage


@dataclass(frozen=True)
class Twin:
    """The same command once more, at the same time."""

    name: str = "the command a second time"
    moments: Sequence[Moment] = ANY
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        stage = scene.stage()
        scene.type()
        return stage


@dataclass(frozen=True)
class Neighbour:
    """Another sweep in the same folder, at the same time."""

    name: str = "another sweep in the folder"
    moments: Sequence[Moment] = (AfterStart(0.5), AfterStart(6.0))
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        stage = scene.stage()
        scene.type(NEIGHBOUR)
        return stage


@dataclass(frozen=True)
class Outage:
    """The tracking server killed or frozen, and back after seconds."""

    name: str
    frozen: bool = False
    moments: Sequence[Moment] = ANY
    counts: str = "outage"

    def do(self, scene: Scene, rng: Random) -> str | None:
        server, stage = scene.server, scene.stage()
        if server is None:
            return None
        if self.frozen:
            server.signal(signal.SIGSTOP)
        else:
            server.kill()
        time.sleep(rng.uniform(0.2, 8.0))
        if self.frozen:
            server.signal(signal.SIGCONT)
        else:
            server.start()
        return stage


@dataclass(frozen=True)
class Lock:
    """A store's database locked for seconds by somebody else."""

    name: str
    file: Path
    moments: Sequence[Moment] = ANY
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        stage, file = scene.stage(), scene.folder / self.file
        if not file.exists():
            return None
        with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=10.0, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(rng.uniform(1.0, 6.0))
            other.execute("ROLLBACK")
            return stage
        return None


@dataclass(frozen=True)
class FullDisk:
    """No room for seconds, but for some kilobytes."""

    name: str = "the disk is full"
    moments: Sequence[Moment] = ANY
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        stage = scene.stage()
        if not scene.disk.small:
            return None
        filler = scene.disk.fill(rng.choice((0, 4096, 65536)))
        time.sleep(rng.uniform(1.0, 6.0))
        filler.unlink()
        return stage


# -- between two calls ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remove:
    """Files of the store, or of the report, are gone."""

    name: str
    patterns: tuple[str, ...]
    moments: Sequence[Moment] = ()
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        if scene.server is not None and MLFLOW.as_posix() in self.patterns:
            return None
        files = [file for pattern in self.patterns for file in scene.folder.glob(pattern) if file.is_file()]
        for file in files:
            file.unlink()
        return "between calls" if files else None


@dataclass(frozen=True)
class Damage:
    """A file is cut short, or bits of it are flipped."""

    name: str
    pattern: str
    flip: bool
    moments: Sequence[Moment] = ()
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        files = sorted(file for file in scene.folder.glob(self.pattern) if file.is_file() and file.stat().st_size)
        if not files:
            return None
        file = rng.choice(files)
        content = bytearray(file.read_bytes())
        if self.flip:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        file.write_bytes(bytes(content))
        return "between calls"


@dataclass(frozen=True)
class DeleteRun:
    """A trial's run is deleted, as somebody does in MLflow's UI."""

    name: str = "a run deleted in MLflow"
    moments: Sequence[Moment] = ()
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        trials = (
            "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE lifecycle_stage = 'active' "
            "AND status = 'FINISHED' AND key = 'optsweep.kind' AND value = 'trial' ORDER BY start_time"
        )
        gone = "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = ? WHERE run_uuid = ?"
        file = scene.folder / MLFLOW
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True)) as store, store:
            runs = [run for (run,) in store.execute(trials)]
            if runs:
                store.execute(gone, (int(time.time() * 1000), rng.choice(runs)))
                return "between calls"
        return None


@dataclass(frozen=True)
class Move:
    """The folder is moved to another place."""

    name: str = "the folder moved"
    moments: Sequence[Moment] = ()
    counts: str = ""

    def do(self, scene: Scene, rng: Random) -> str | None:
        if scene.server is not None:  # whose addresses are its own
            return None
        to = scene.folder.with_name(f"{scene.folder.name.partition('-')[0]}-{scene.typed}")
        scene.folder.rename(to)
        scene.folder = to
        return "between calls"


STUDIES = (OPTUNA.as_posix(), f"{OPTUNA}-wal", f"{OPTUNA}-shm")
RUNS = (MLFLOW.as_posix(), f"{MLFLOW}-wal", f"{MLFLOW}-shm")
