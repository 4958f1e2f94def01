"""Reading a study's trials again and again while it runs, for the price of those that have changed."""

from __future__ import annotations

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy import Engine, select

from optsweep.search.ownership import TRIALS

MOST_ONE_BY_ONE = 20
"""Trials that are read one by one, a millisecond each, rather than with all that have not ended."""


class Reading:
    """Trials as they were when their state last changed: what one in training has reported since may be missing.

    Optuna reads all that have not ended anew every time, and a search has hundreds that wait.
    """

    def __init__(self, engine: Engine, storage: BaseStorage) -> None:
        self._engine, self._storage = engine, storage
        self._held: dict[int, dict[int, FrozenTrial]] = {}  # by study and trial

    def trials(self, study: int) -> list[FrozenTrial]:
        """All of a study, in order of creation."""
        query = select(TRIALS.c.trial_id, TRIALS.c.state).where(TRIALS.c.study_id == study).order_by(TRIALS.c.trial_id)
        with self._engine.connect() as connection:
            states = [(number, state) for number, state in connection.execute(query)]
        held = self._held.setdefault(study, {})
        changed = [number for number, state in states if number not in held or held[number].state != state]
        if len(changed) > MOST_ONE_BY_ONE:
            held.update((trial._trial_id, trial) for trial in self._storage.get_all_trials(study, deepcopy=False))
        else:
            held.update((number, self._storage.get_trial(number)) for number in changed)
        return [held[number] for number, _ in states]
