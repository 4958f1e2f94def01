"""A sweep in the middle, made by hand: its studies, as planner and workers write them, and its runs' store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hand_sweeps import NOISE, sweep
from hand_sweeps import arm as made_by_hand
from optsweep.launch.status import PLANNED
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.search.latest import Latest, write_latest
from optsweep.search.process import process_name
from optsweep.search.seats import Seat
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies, Work
from optsweep.tracking import names, store
from optsweep.tracking.reader import Curve, SweepRecord
from optsweep.tracking.schema import SCHEMA_VERSION
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Phase

SGD, ADAMW = "task=iris optimizer=sgd schedule=cosine", "task=iris optimizer=adamw schedule=cosine"
HERE = process_name()
DEAD = HERE.rpartition("/")[0].rpartition("/")[0] + "/4194303/0"
WELL = ((0, 2.0), (10, 1.0), (20, 0.5))
JUMPS = (*WELL, (30, 40.0))


class Living:
    """The sweep `s` of two arms, of four search trials and two seeds each; a test makes it go on."""

    def __init__(self, folder: Path) -> None:
        self.storage = f"sqlite:///{folder}/optuna.db"
        self.studies = Studies.open(self.storage, "s")
        self.seat: Seat = self.studies.take_seat([SGD, ADAMW], whole=True).__enter__()
        for arm in (SGD, ADAMW):
            self.studies.set_note(arm, PLANNED, [4, 2, 1])
            for number in range(4):
                self.enqueue(arm, number)

    def enqueue(self, arm: str, number: int, attempt: int = 0) -> None:
        self.studies.enqueue(self.seat, arm, Phase.SEARCH, Slot(number, {"lr": 0.1}, 0, "model"), attempt)

    def pop(self, arm: str, worker: str = HERE) -> Work:
        (work,) = self.studies.pop(arm, Phase.SEARCH, worker, LEASE_SECONDS, 1)
        return work

    def tell(self, work: Work, end: End = End.FINISHED, value: float = 0.5) -> None:
        self.studies.tell(work.claim, end, value, 10.0)

    def show(self, work: Work, val: tuple[tuple[int, float], ...]) -> None:
        write_latest(self.studies.engine, {work.claim: Latest(val)})

    def finish(self) -> None:
        """As the planner does when all trials have a result."""
        for arm in (SGD, ADAMW):
            self.studies.set_note(arm, "finished", [4, 2, 1])
        self.seat.release()


def tracking(folder: Path) -> str:
    """The store of its runs, in which it has begun."""
    uri = f"sqlite:///{folder}/mlflow.db"
    store.check(uri)
    tracker = Tracker(uri, "s")
    tracker.client.set_tag(tracker.sweep_run(), names.SCHEMA, str(SCHEMA_VERSION))
    return uri


def record_of(*seeds: int) -> SweepRecord:
    """What its runs say: so many confirm seeds of each arm, with their curves."""
    steps, arms = np.arange(10, 401, 10), []
    for name, optimizer, final, count in zip((SGD, ADAMW), ("sgd", "adamw"), (2.2, 2.0), seeds, strict=True):
        made = made_by_hand(optimizer, [final + noise for noise in NOISE], schedule="cosine")
        values = final + 2 * (1 - steps / 400) ** 2
        trials = [
            replace(trial, curves={names.VAL_LOSS: Curve(steps, values + noise)})
            for trial, noise in zip(made.trials, NOISE, strict=True)
        ]
        arms.append(replace(made, name=name, label=f"{optimizer} + cosine", trials=tuple(trials[:count])))
    return sweep(*arms)
