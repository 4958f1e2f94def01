"""What waits in a study: its trials before anybody has them, as planners describe them; many at once, made or read."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, func, insert, select

from optsweep.search.history import slot_from
from optsweep.search.slots import Slot
from optsweep.search.tables import SYSTEM_ATTRIBUTES, TRIALS, USER_ATTRIBUTES

MOST_CANDIDATES = 64
"""Trials that a worker reads at once, and among which it looks for one."""

_DICE = random.Random()  # not Python's own, which trials set


@dataclass(frozen=True)
class Waiting:
    """A trial that waits for a worker."""

    id: str
    slot: Slot
    attempt: int
    earlier: tuple[str, ...]  # attempts that it can go on from


def candidates(engine: Engine, study: int, oldest: dict[int, int], *, only_one: bool) -> Iterator[tuple[int, Waiting]]:
    """Those of a study with their numbers, oldest first; others may claim them meanwhile.

    For who wants `only_one` of them they are read one by one: the oldest, and, if that is taken from him, others in any
    order, or all workers would ask for the same again and again. `oldest` keeps, by study, where the next look begins:
    a trial waits from the moment it is made, and never again.
    """
    numbers = _waiting(engine, study, oldest.get(study, 0))
    if numbers:
        oldest[study] = numbers[0]
    if only_one:
        for number in (*numbers[:1], *_DICE.sample(numbers[1:], len(numbers[1:]))):
            yield from _read(engine, [number]).items()
        return
    while numbers:
        yield from _read(engine, numbers).items()
        numbers = _waiting(engine, study, numbers[-1] + 1)


def _waiting(engine: Engine, study: int, first: int) -> Sequence[int]:
    """The first of them from a trial on."""
    mine = (TRIALS.c.study_id == study, TRIALS.c.trial_id >= first, TRIALS.c.state == TrialState.WAITING)
    waiting = select(TRIALS.c.trial_id).where(*mine).order_by(TRIALS.c.trial_id).limit(MOST_CANDIDATES)
    with engine.connect() as connection:
        return connection.scalars(waiting).all()


def _read(engine: Engine, numbers: Sequence[int]) -> Mapping[int, Waiting]:
    """Those of these trials that wait, by their numbers, by one query."""
    attributes = (
        select(TRIALS.c.trial_id, USER_ATTRIBUTES.c.key, USER_ATTRIBUTES.c.value_json)
        .join(USER_ATTRIBUTES, USER_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id)
        .where(TRIALS.c.trial_id.in_(numbers), TRIALS.c.state == TrialState.WAITING)
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


def make_waiting(
    connection: Connection, study: int, slots: Sequence[Slot], attempt: int, earlier: Sequence[str]
) -> list[int]:
    """Make a trial of each slot within a transaction; returns their numbers."""
    count = select(func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study)
    first = connection.execute(count).scalar_one()
    made: list[int] = []
    said: list[dict[str, Any]] = []
    fixed: list[dict[str, Any]] = []
    for number, slot in enumerate(slots, first):
        row = insert(TRIALS).values(study_id=study, state=TrialState.WAITING, number=number)
        trial = connection.execute(row.returning(TRIALS.c.trial_id)).scalar_one()
        attributes = _attributes(slot, attempt, earlier)
        said += [{"trial_id": trial, "key": key, "value_json": json.dumps(of)} for key, of in attributes.items()]
        fixed.append({"trial_id": trial, "key": "fixed_params", "value_json": json.dumps(dict(slot.params))})
        made.append(trial)
    connection.execute(insert(USER_ATTRIBUTES), said)
    connection.execute(insert(SYSTEM_ATTRIBUTES), fixed)  # where Optuna's own tools look
    return made


def _attributes(slot: Slot, attempt: int, earlier: Sequence[str]) -> dict[str, Any]:
    """All that decides a trial."""
    attributes = {
        "id": uuid.uuid4().hex[:16],
        "slot": slot.number,
        "params": dict(slot.params),
        "seed": slot.seed,
        "origin": slot.origin,
        "attempt": attempt,
        "prune_above": {str(step): value for step, value in slot.prune_above.items()},
    }
    return {**attributes, "earlier": list(earlier)} if earlier else attributes
