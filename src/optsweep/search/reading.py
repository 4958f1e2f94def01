"""Reading a study's trials again and again while it runs, for the price of those that have changed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, select

from optsweep.search.history import Beginning, slot_of
from optsweep.search.ownership import RUNGS, TRIALS, USER_ATTRIBUTES, VALUES
from optsweep.search.slots import Slot

MOST_NAMED = 500
"""Trials that a statement names; where more have changed all of the study are read."""


class TrialReader:
    """Trials as they were when their state last changed: what one in training has reported since may be missing.

    Optuna reads all that have not ended anew every time, a millisecond each, and a search has hundreds that wait.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[int, dict[int, FrozenTrial]] = {}  # by study and trial
        self._open: dict[int, int] = {}  # by study: all trials before this one have ended, and don't change any more
        self._settled: dict[int, Beginning] = {}  # by study
        self._slots: dict[int, tuple[FrozenTrial, Slot]] = {}  # by trial, as it was read

    def trials(self, study: int) -> list[FrozenTrial]:
        """All of a study, in order of creation."""
        first, held = self._open.get(study, 0), self._held.setdefault(study, {})
        mine = (TRIALS.c.study_id == study, TRIALS.c.trial_id >= first)
        query = select(TRIALS.c.trial_id, TRIALS.c.state).where(*mine).order_by(TRIALS.c.trial_id)
        with self._engine.connect() as connection:
            states: dict[int, TrialState] = {row.trial_id: row.state for row in connection.execute(query)}
            changed = {n: state for n, state in states.items() if n not in held or held[n].state != state}
            if changed:
                held.update(_read(connection, study, changed))
        unfinished = (number for number, state in states.items() if not state.is_finished())
        self._open[study] = next(unfinished, max(states, default=first - 1) + 1)
        for gone in [number for number in held if number >= first and number not in states]:
            del held[gone]
        found = [held[number] for number in sorted(held)]
        self._settled.setdefault(study, Beginning()).advance(found, self.slot)
        return found

    def settled(self, study: int) -> Beginning:
        """The beginning of a study that was read here."""
        return self._settled[study]

    def slot(self, trial: FrozenTrial) -> Slot:
        """The slot of a trial that was read here."""
        known = self._slots.get(trial._trial_id)
        if known is None or known[0] is not trial:
            known = self._slots[trial._trial_id] = trial, slot_of(trial)
        return known[1]


def _read(connection: Connection, study: int, states: Mapping[int, TrialState]) -> dict[int, FrozenTrial]:
    """These trials of a study, in those states; a state that has changed by now is seen the next time."""

    def rows(table: Any, *columns: Any) -> Any:
        query = select(TRIALS.c.trial_id, *columns).join(table, table.c.trial_id == TRIALS.c.trial_id)
        query = query.where(TRIALS.c.study_id == study)
        return connection.execute(query.where(TRIALS.c.trial_id.in_(states)) if len(states) <= MOST_NAMED else query)

    said: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for trial, key, content in rows(USER_ATTRIBUTES, USER_ATTRIBUTES.c.key, USER_ATTRIBUTES.c.value_json):
        said[trial][key] = json.loads(content)
    rungs: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for trial, step, *stored in rows(RUNGS, RUNGS.c.step, RUNGS.c.intermediate_value, RUNGS.c.intermediate_value_type):
        rungs[trial][step] = TrialIntermediateValueModel.stored_repr_to_intermediate_value(*stored)
    values = {
        trial: TrialValueModel.stored_repr_to_value(*stored)
        for trial, *stored in rows(VALUES, VALUES.c.value, VALUES.c.value_type)
    }
    return {
        trial: FrozenTrial(
            number=-1,  # in its study, which nobody asks for
            trial_id=trial,
            state=state,
            value=values.get(trial),
            datetime_start=None,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs=said[trial],
            system_attrs={},
            intermediate_values=rungs[trial],
        )
        for trial, state in states.items()
    }
