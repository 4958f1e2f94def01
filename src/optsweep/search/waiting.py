"""What waits in a study: its trials before anybody has them, as planners have described them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import ColumnElement, Engine, select

from optsweep.search.history import slot_from
from optsweep.search.ownership import TRIALS, USER_ATTRIBUTES
from optsweep.search.slots import Slot

MOST_CANDIDATES = 64
"""Trials among which a worker looks for one."""

_DICE = random.Random()  # not Python's own, which trials set


@dataclass(frozen=True)
class Waiting:
    """A trial that waits for a worker."""

    id: str
    slot: Slot
    attempt: int
    earlier: tuple[str, ...]  # attempts that it can go on from


def candidates(engine: Engine, study: int, *, only_one: bool) -> Iterator[tuple[int, Waiting]]:
    """Those of a study with their numbers, oldest first; others may claim them meanwhile.

    For who wants `only_one` of them they are read one by one: the oldest, and, if that is taken from him, others in any
    order, or all workers would ask for the same again and again.
    """
    if not only_one:
        yield from _read(engine, TRIALS.c.study_id == study).items()
        return
    waiting = select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study, TRIALS.c.state == TrialState.WAITING)
    with engine.connect() as connection:
        numbers = connection.scalars(waiting.order_by(TRIALS.c.trial_id).limit(MOST_CANDIDATES)).all()
    for number in (*numbers[:1], *_DICE.sample(numbers[1:], len(numbers[1:]))):
        yield from _read(engine, TRIALS.c.trial_id == number).items()


def _read(engine: Engine, which: ColumnElement[bool]) -> Mapping[int, Waiting]:
    """Waiting trials by their numbers, by one query."""
    attributes = (
        select(TRIALS.c.trial_id, USER_ATTRIBUTES.c.key, USER_ATTRIBUTES.c.value_json)
        .join(USER_ATTRIBUTES, USER_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id)
        .where(which, TRIALS.c.state == TrialState.WAITING)
        .order_by(TRIALS.c.trial_id)
    )
    found: dict[int, dict[str, Any]] = {}
    with engine.connect() as connection:
        for trial, key, value in connection.execute(attributes):
            found.setdefault(trial, {})[key] = json.loads(value)
    return {
        trial: Waiting(str(of["id"]), slot_from(of), int(of["attempt"]), tuple(of.get("earlier", ())))
        for trial, of in found.items()
    }
