"""Reading a study's trials again and again while it runs, for the price of those that have changed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, Engine, and_, or_, select

from optsweep.search.history import Account
from optsweep.search.tables import MOST_NAMED, RUNGS, TRIALS, USER_ATTRIBUTES, VALUES


@dataclass
class _Study:
    """What was read of a study."""

    account: Account = field(default_factory=Account)
    open: dict[int, TrialState] = field(default_factory=dict)  # from the first trial on that hasn't ended, in order
    first: int = 0  # all trials before it have ended, and don't change any more
    last: int = -1


class TrialReader:
    """Trials as they were when their state last changed: what one in training has reported since may be missing.

    Optuna reads all that have not ended anew every time, a millisecond each, and a search has hundreds that wait.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._studies: dict[int, _Study] = {}

    def account(self, study: int) -> Account:
        """A study as it is now. One that waits and was seen to isn't asked for: it is new, or somebody had it since."""
        known = self._studies.setdefault(study, _Study())
        news = or_(TRIALS.c.trial_id > known.last, TRIALS.c.state != TrialState.WAITING)
        query = select(TRIALS.c.trial_id, TRIALS.c.state).where(
            TRIALS.c.study_id == study, TRIALS.c.trial_id >= known.first, news
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(TRIALS.c.trial_id))
            states: dict[int, TrialState] = {row.trial_id: row.state for row in rows}
            changed = {number: state for number, state in states.items() if known.open.get(number) is not state}
            read = _read(connection, study, changed) if changed else {}
        for number in changed:
            known.account.take(read[number])
        known.open.update(changed)
        known.last = max(known.last, *changed, -1)
        ended = list(takewhile(lambda number: known.open[number].is_finished(), known.open))
        for number in ended:
            del known.open[number]
        known.first = next(iter(known.open), known.last + 1)
        return known.account


def _read(connection: Connection, study: int, states: Mapping[int, TrialState]) -> dict[int, FrozenTrial]:
    """These trials of a study, in those states; a state that has changed by now is seen the next time."""
    # where more have changed all of the study from the first of them on are read
    named = TRIALS.c.trial_id.in_(states) if len(states) <= MOST_NAMED else TRIALS.c.trial_id >= min(states)
    which = and_(TRIALS.c.study_id == study, named)
    said = read_attributes(connection, which)
    rungs: defaultdict[int, dict[int, float]] = defaultdict(dict)
    columns = (RUNGS.c.step, RUNGS.c.intermediate_value, RUNGS.c.intermediate_value_type)
    for trial, step, *stored in _rows(connection, which, RUNGS, *columns):
        rungs[trial][step] = TrialIntermediateValueModel.stored_repr_to_intermediate_value(*stored)
    values = read_values(connection, which)
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


def read_attributes(connection: Connection, which: ColumnElement[bool]) -> defaultdict[int, dict[str, Any]]:
    """What planner and worker have said of those trials, by trial."""
    said: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    columns = (USER_ATTRIBUTES.c.key, USER_ATTRIBUTES.c.value_json)
    for trial, key, content in _rows(connection, which, USER_ATTRIBUTES, *columns):
        said[trial][key] = json.loads(content)
    return said


def read_values(connection: Connection, which: ColumnElement[bool]) -> Mapping[int, float]:
    """The values of those of the trials that have one, by trial."""
    rows = _rows(connection, which, VALUES, VALUES.c.value, VALUES.c.value_type)
    return {trial: TrialValueModel.stored_repr_to_value(*stored) for trial, *stored in rows}


def _rows(connection: Connection, which: ColumnElement[bool], table: Any, *columns: Any) -> Any:
    query = select(TRIALS.c.trial_id, *columns).join(table, table.c.trial_id == TRIALS.c.trial_id)
    return connection.execute(query.where(which))
