"""A sweep's trials as somebody sees them who looks on again and again, for the price of those that have changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, select

from optsweep.errors import UserError
from optsweep.search.latest import Latest, read_latest
from optsweep.search.overview import in_sweep
from optsweep.search.reading import read_attributes, read_values
from optsweep.search.seats import planners
from optsweep.search.study_names import StudyName
from optsweep.search.tables import LEASES, MOST_NAMED, NOTES, STUDIES, TRIALS, clock
from optsweep.train.trial import End, Phase


@dataclass(frozen=True)
class Hold:
    """Who has a trial, or the right to plan."""

    process: str  # its name, as `search.process` reads it
    left: float  # seconds of its lease


@dataclass(frozen=True)
class SeenTrial:
    """A trial as the storage has it."""

    number: int
    arm: str
    phase: Phase
    repeat: int
    state: TrialState
    said: Mapping[str, Any] = field(default_factory=dict)  # by planner and worker
    value: float | None = None
    when: datetime | None = None  # it ended
    hold: Hold | None = None
    latest: Latest = field(default_factory=Latest)

    @property
    def slot(self) -> int:
        """Its place in its phase."""
        return int(self.said.get("slot", 0))

    @property
    def failed(self) -> bool:
        """Whether it failed, and that counts."""
        return self.state is TrialState.FAIL and not self.said.get("excused")

    @property
    def died(self) -> bool:
        """Whether its worker died of it, or with it."""
        return self.failed and bool(self.said.get("died"))

    @property
    def diverged(self) -> bool:
        """Whether its loss is not finite any more."""
        return self.state is TrialState.PRUNED and self.said.get("end") == End.DIVERGED

    @property
    def pruned(self) -> bool:
        """Whether it was given up for its losses."""
        return self.state is TrialState.PRUNED and not self.diverged

    @property
    def done(self) -> bool:
        """Whether it has a result."""
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Sight:
    """A sweep at one look."""

    trials: tuple[SeenTrial, ...]  # in order of creation
    notes: Mapping[str, Mapping[str, Any]]  # of each arm's first search, in order of the arms
    planner: Hold | None


class Onlooker:
    """Looks at a sweep in an open storage."""

    def __init__(self, engine: Engine, sweep: str) -> None:
        self._engine, self._sweep = engine, sweep
        self._clock = clock(engine)
        self._held: dict[int, SeenTrial] = {}

    def look(self) -> Sight:
        """As it is now. Raises UserError where there is no such sweep, and what the database raises."""
        studies = self._studies()
        latest = read_latest(self._engine, studies)
        with self._engine.connect() as connection:
            self._read_changed(connection, studies)
            holds = self._holds(connection, studies)
            notes = self._notes(connection, studies)
            planner = self._planner(connection)
        trials = (
            replace(trial, hold=holds.get(n), latest=latest.get(n, trial.latest))
            if trial.state is TrialState.RUNNING
            else trial
            for n, trial in sorted(self._held.items())
        )
        return Sight(tuple(trials), notes, planner)

    def _studies(self) -> dict[int, tuple[str, Phase, int]]:
        """What the sweep's studies are of, by number."""
        mine = in_sweep(self._sweep)
        query = select(STUDIES.c.study_id, STUDIES.c.study_name).where(mine).order_by(STUDIES.c.study_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            if not rows:
                raise UserError(f"no sweep is called {self._sweep} any more")
        return {number: found.key for number, name in rows if (found := StudyName.read(name)) is not None}

    def _read_changed(self, connection: Connection, studies: Mapping[int, tuple[str, Phase, int]]) -> None:
        columns = (TRIALS.c.trial_id, TRIALS.c.study_id, TRIALS.c.state, TRIALS.c.datetime_complete)
        rows = connection.execute(select(*columns).where(TRIALS.c.study_id.in_(studies))).all()
        there = {row.trial_id for row in rows}
        self._held = {n: trial for n, trial in self._held.items() if n in there}
        changed = [r for r in rows if r.trial_id not in self._held or self._held[r.trial_id].state is not r.state]
        if not changed:
            return
        few = len(changed) <= MOST_NAMED
        which = TRIALS.c.trial_id.in_([r.trial_id for r in changed]) if few else TRIALS.c.study_id.in_(studies)
        said, values = read_attributes(connection, which), read_values(connection, which)
        for n, study, state, when in changed:
            ended = when.replace(tzinfo=UTC) if when is not None else None
            self._held[n] = SeenTrial(n, *studies[study], state, said[n], values.get(n), ended)

    def _holds(self, connection: Connection, studies: Collection[int]) -> dict[int, Hold]:
        query = (
            select(LEASES.c.trial_id, LEASES.c.worker, LEASES.c.expires - self._clock)
            .join(TRIALS, TRIALS.c.trial_id == LEASES.c.trial_id)
            .where(TRIALS.c.study_id.in_(studies), LEASES.c.worker.is_not(None))
        )
        return {n: Hold(worker, float(left)) for n, worker, left in connection.execute(query)}

    def _notes(
        self, connection: Connection, studies: Mapping[int, tuple[str, Phase, int]]
    ) -> dict[str, dict[str, Any]]:
        notes: dict[str, dict[str, Any]] = {arm: {} for arm, _, _ in studies.values()}
        query = select(NOTES.c.study_id, NOTES.c.key, NOTES.c.value_json).where(NOTES.c.study_id.in_(studies))
        for study, key, content in connection.execute(query):
            arm, phase, repeat = studies[study]
            if phase is Phase.SEARCH and repeat == 0:
                notes[arm][key] = json.loads(content)
        return notes

    def _planner(self, connection: Connection) -> Hold | None:
        """Who plans the sweep, or part of it; whoever will do so longest."""
        held = [Hold(*of) for of in planners(connection, self._sweep)]
        return max(held, key=lambda hold: hold.left, default=None)
