"""All sweeps of a storage at a glance: a few queries, whatever their number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import ColumnElement, Engine, func, select

from optsweep.search.study_names import StudyName
from optsweep.search.tables import NOTES, STUDIES, TRIALS

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class StoredSweep:
    """A sweep as the storage has it."""

    name: str
    arms: tuple[str, ...]
    done: int  # trials with a result
    last: datetime | None  # when a trial ended
    notes: Mapping[str, Mapping[str, Any]]  # by arm

    def noted(self, key: str) -> list[Any]:
        """A note of every arm; None where there is none."""
        return [self.notes.get(arm, {}).get(key) for arm in self.arms]


def in_sweep(sweep: str) -> ColumnElement[bool]:
    """Whether a study is of this sweep. Not by LIKE, for which SQLite takes small and large letters as the same."""
    prefix = f"{sweep} | "
    return func.substr(STUDIES.c.study_name, 1, len(prefix)) == prefix


def stored_sweeps(engine: Engine, *notes: str) -> Iterator[StoredSweep]:
    """All, the latest first, with these notes of their arms."""
    counted = (
        select(STUDIES.c.study_name, func.count(TRIALS.c.trial_id), func.max(TRIALS.c.datetime_complete))
        .outerjoin(TRIALS, (TRIALS.c.study_id == STUDIES.c.study_id) & TRIALS.c.state.in_(ENDED))
        .group_by(STUDIES.c.study_id, STUDIES.c.study_name)
        .order_by(STUDIES.c.study_id)
    )
    noted = (
        select(STUDIES.c.study_name, NOTES.c.key, NOTES.c.value_json)
        .join(NOTES, NOTES.c.study_id == STUDIES.c.study_id)
        .where(NOTES.c.key.in_(notes))
    )
    arms: dict[str, dict[str, dict[str, Any]]] = {}
    done: dict[str, int] = {}
    last: dict[str, datetime | None] = {}
    with engine.connect() as connection:
        for name, count, when in connection.execute(counted):
            if (study := StudyName.read(name)) is not None:
                sweep = study.sweep
                arms.setdefault(sweep, {}).setdefault(study.arm, {})
                done[sweep] = done.get(sweep, 0) + count
                before = last.get(sweep)
                last[sweep] = max(before, when) if before and when else before or when
        for name, key, value in connection.execute(noted):
            if (study := StudyName.read(name)) is not None and not study.repeat:
                arms[study.sweep][study.arm][key] = json.loads(value)
    for sweep in sorted(arms, key=lambda name: (last[name] is None, last[name] or datetime.min), reverse=True):
        when = last[sweep]
        utc = None if when is None else when.replace(tzinfo=UTC)
        yield StoredSweep(sweep, tuple(arms[sweep]), done[sweep], utc, arms[sweep])
