"""What waits in a study: its trials before anybody has them, all by one query, as planners have described them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Engine, select

from optsweep.search.history import slot_from
from optsweep.search.ownership import TRIALS, USER_ATTRIBUTES
from optsweep.search.slots import Slot


@dataclass(frozen=True)
class Waiting:
    """A trial that waits for a worker."""

    id: str
    slot: Slot
    attempt: int
    earlier: tuple[str, ...]  # attempts that it can go on from


def waiting_trials(engine: Engine, study: int) -> Mapping[int, Waiting]:
    """Those of a study by their numbers, oldest first; others may claim them meanwhile."""
    attributes = (
        select(TRIALS.c.trial_id, USER_ATTRIBUTES.c.key, USER_ATTRIBUTES.c.value_json)
        .join(USER_ATTRIBUTES, USER_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study, TRIALS.c.state == TrialState.WAITING)
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
