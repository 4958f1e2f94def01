"""How far a sweep is, read from the studies that planner and workers share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna

from optsweep.errors import UserError, nearest
from optsweep.search.studies import Studies
from optsweep.tracking.store import database
from optsweep.train.trial import Phase


@dataclass(frozen=True)
class PhaseStatus:
    """How far a phase of an arm is, in trials."""

    arm: str
    phase: Phase
    done: int
    running: int
    waiting: int
    diverged: int
    pruned: int
    crashed: int
    best: float | None  # validation loss; None: no trial has one yet


def status_of(storage: str, sweep: str) -> Iterator[PhaseStatus]:
    """Every arm's phases, in order. Raises UserError for a sweep that isn't there, naming the nearest."""
    if storage.startswith("sqlite:") and not Path(database(storage)).is_file():
        raise UserError(f"--storage: there is no store at {database(storage)}; run a sweep first, or name another one")
    studies = Studies.open(storage, sweep)
    known = [name.split(" | ") for name in optuna.get_all_study_names(studies.storage)]
    arms = list(dict.fromkeys(parts[1] for parts in known if len(parts) == 3 and parts[0] == sweep))
    if not arms:
        sweeps = sorted({parts[0] for parts in known if len(parts) == 3})
        raise UserError(f"no sweep is called {sweep}{nearest(sweep, sweeps)}; there are {', '.join(sweeps) or 'none'}")
    for arm in arms:
        for phase in Phase:
            found = studies.history(arm, phase, retries=0)
            slots = list(found.slots.values())
            yield PhaseStatus(
                arm,
                phase,
                done=found.num_done,
                running=sum(not running.lease.expired for running in found.running),
                waiting=found.waiting,
                diverged=sum(slot.value == math.inf for slot in slots),
                pruned=sum(slot.pruned for slot in slots),
                crashed=sum(found.attempts.values()),
                best=min((s.value for s in slots if s.value is not None and math.isfinite(s.value)), default=None),
            )
