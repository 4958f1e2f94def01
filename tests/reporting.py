"""A worker's reporter over real studies, with logs that only note what they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from arms import arm_with
from optsweep.launch.worker.checkpoints import Checkpoints, TrialCheckpoints
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.latest import Teller
from optsweep.launch.worker.leases import LeaseKeeper
from optsweep.launch.worker.reporter import Reporter
from optsweep.launch.worker.worker import Worker
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies, Work
from optsweep.tracking.trial_log import TrialLog
from optsweep.train.trial import End, Outcome, Phase, Rung

T = TypeVar("T")


@dataclass
class Log:
    """A trial's run, as far as is asked."""

    steps: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def rung(self, rung: Rung) -> None:
        self.steps.append(rung.step)

    def end(self, outcome: Outcome) -> None:
        self.ends.append(outcome.end.value)

    def crash(self, reason: str) -> None:
        self.ends.append(reason)

    def close(self) -> None:
        pass


@dataclass
class OneWorker:
    """What the reporter needs of a worker."""

    studies: Studies
    name: str = "a"

    @property
    def latest(self) -> Teller:
        return Teller(self.studies.engine, seconds=3600.0)

    def stopping(self) -> bool:
        return False

    def waiting(self, call: Callable[[], T]) -> T:
        return call()

    def told(self) -> None:
        pass


RUNG: Mapping[str, Any] = {
    "val_score": 0.0,
    "points": (),
    "ms_per_step": 1.0,
    "peak_bytes": 0,
    "train_seconds": 0.0,
}
OUTCOME = Outcome(End.FINISHED, 20, 1.0, 0.0, 2.0, 0.0, 0.1, 0)
GIVEN_UP = "given up by the planner; it was run again"


def reporter(folder: Path, count: int, pruner: str) -> tuple[Reporter, Studies, Sequence[Work], Sequence[Log]]:
    studies = Studies.open(f"sqlite:///{folder}/optuna.db", "s")
    arm = arm_with({}, search__pruner=pruner)
    seat = studies.take_seat([arm.name], whole=True)
    for number in range(count):
        studies.enqueue(seat, arm.name, Phase.SEARCH, Slot(number, {}, 0, "fixed"))
    works = studies.pop(arm.name, Phase.SEARCH, "a", 60.0, count)
    kept = TrialCheckpoints(Checkpoints(folder / "checkpoints"), "", 0.0)
    made = Reporter(cast(Worker, OneWorker(studies)), Job(arm, "", "", ""), LeaseKeeper(studies), kept)
    logs = [Log() for _ in works]
    for work, log in zip(works, logs, strict=True):
        key = made.hold(work)
        kept.add(key, work, torch.device("cpu"), lambda: ())
        made.logs[key] = cast(TrialLog, log)
    return made, studies, works, logs
