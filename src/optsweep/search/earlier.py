"""How long trials of an arm took before, in any sweep of a storage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Engine, Float, cast, func, or_, select

from optsweep.search.study_names import StudyName
from optsweep.search.tables import NOTES, STUDIES, TRIALS, USER_ATTRIBUTES


@dataclass(frozen=True)
class EarlierTrials:
    """The trials of a search that ran to their end."""

    note: Any  # what was noted of their arm
    count: int
    seconds: float  # of training, by the mean trial


def earlier_trials(engine: Engine, arms: Sequence[str], key: str) -> list[EarlierTrials]:
    """Those of arms by these names, with a note of each, by one query."""
    took = cast(USER_ATTRIBUTES.c.value_json, Float)
    query = (
        select(STUDIES.c.study_name, NOTES.c.value_json, func.count(), func.avg(took))
        .select_from(STUDIES)
        .join(NOTES, (NOTES.c.study_id == STUDIES.c.study_id) & (NOTES.c.key == key))
        .join(TRIALS, (TRIALS.c.study_id == STUDIES.c.study_id) & (TRIALS.c.state == TrialState.COMPLETE))
        .join(USER_ATTRIBUTES, USER_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id)
        .where(USER_ATTRIBUTES.c.key == "train_seconds")
        .where(or_(*(STUDIES.c.study_name.endswith(f" | {arm} | search", autoescape=True) for arm in arms)))
        .group_by(STUDIES.c.study_id, STUDIES.c.study_name, NOTES.c.value_json)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [  # another arm's name may end like one of these, behind a bar
        EarlierTrials(json.loads(note), count, seconds)
        for name, note, count, seconds in rows
        if (study := StudyName.read(name)) is not None and study.arm in arms
    ]
