"""Trials in Optuna's storage, which is all that planner and workers share.

Every repeat of an arm has two studies, one per phase. The planner, who holds the arm's seat, alone creates trials
(enqueued, with everything that decides them as attributes); workers pop them, hold a lease while they train, and tell
the result. A trial's state says what happened: COMPLETE with its value, PRUNED with attribute `end` (pruned or
diverged), FAIL for a crash. What changes a trial's state or owner is in ownership.py; Optuna reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from optsweep.search.earlier import EarlierTrials, earlier_trials
from optsweep.search.history import NO_HISTORY, History
from optsweep.search.overview import in_sweep
from optsweep.search.ownership import Claim, LeaseLostError, Ownership
from optsweep.search.reading import TrialReader
from optsweep.search.seats import WHOLE_SWEEP, Seat, take_seat
from optsweep.search.signs import Sign, signs_of_life
from optsweep.search.slots import Slot
from optsweep.search.storage import storage_at
from optsweep.search.study_names import StudyName
from optsweep.search.tables import STUDIES, TRIALS, USER_ATTRIBUTES, VALUES
from optsweep.search.waiting import candidates, make_waiting
from optsweep.train.trial import End, Phase

AFTER_FAILURE = 2
"""From this attempt on an error or a worker's death ended one before; the first is 0, and 1 follows a stopped sweep."""

WENT_ON = "went_on"
RESULT = ("end", "train_seconds", "test_loss", "test_blocks", WENT_ON)
"""The attributes that a trial gets with its result."""

States = frozenset[tuple[Phase, TrialState, int]]
"""How many trials of an arm's repeat are in which state, by phase; states without a trial are left out."""


@dataclass(frozen=True)
class Work:
    """A trial that a worker popped."""

    arm: str
    phase: Phase
    claim: Claim
    slot: Slot
    attempt: int
    repeat: int = 0
    id: str = ""  # the trial's own in all stores, unlike its number, which SQLite gives out again
    earlier: tuple[str, ...] = ()  # attempts that it can go on from, by their ids


@dataclass(frozen=True)
class Known:
    """A trial of an arm as the storage has it: what it is, and how it ended."""

    number: int  # in the storage, which may give it out again
    id: str
    arm: str
    phase: Phase
    repeat: int
    slot: int
    state: TrialState
    end: End | None  # of one that came to a result

    @property
    def told(self) -> bool:
        """Whether it came to a result."""
        return self.end is not None


class Studies:
    """All studies of one sweep. `repeat` counts the searches of an arm; its notes lie with the first unless said."""

    def __init__(self, storage: RDBStorage, sweep: str) -> None:
        self._database = storage
        self.storage: BaseStorage = optuna.storages.get_storage(storage)
        self.sweep = sweep
        self.engine = self._engine = storage.engine
        self._ownership = Ownership(storage.engine)
        self._ids: dict[tuple[str, Phase, int], int] = {}
        self._reader = TrialReader(self._engine)
        self._oldest: dict[int, int] = {}  # by study: no trial before this one waits, nor will ever

    @staticmethod
    def open(url: str, sweep: str, *, make: bool = True) -> Studies:
        """Open, and create where it is missing, unless that isn't wanted. Raises UserError if that can't be done."""
        return Studies(storage_at(url, make=make), sweep)

    # -- the planner's side ----------------------------------------------------------------------------------------

    def take_seat(self, arms: Sequence[str], *, whole: bool) -> Seat:
        """The right to plan these arms, `whole` if they are all that the sweep has.

        Raises UserError if another process plans one of them, or the whole sweep as this one would.
        """
        return take_seat(self._engine, self.sweep, [*arms, WHOLE_SWEEP] if whole else arms)

    def ensure(self, arm: str, phase: Phase, repeat: int = 0) -> int:
        """The study of an arm's phase, created if it is missing."""
        found = self._existing(arm, phase, repeat)
        if found is None:
            name = self._name(arm, phase, repeat)
            found = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)._study_id
            self._ids[arm, phase, repeat] = found
        return found

    def _existing(self, arm: str, phase: Phase, repeat: int) -> int | None:
        """The study of an arm's phase; None where nobody has made it: looking leaves no trace."""
        key = (arm, phase, repeat)
        if key not in self._ids:
            with suppress(KeyError):
                self._ids[key] = self.storage.get_study_id_from_name(self._name(*key))
        return self._ids.get(key)

    def _name(self, arm: str, phase: Phase, repeat: int) -> str:
        return str(StudyName(self.sweep, arm, phase, repeat))

    def note(self, arm: str, key: str, repeat: int = 0) -> Any:
        """What was noted of an arm, or None."""
        study = self._existing(arm, Phase.SEARCH, repeat)
        return None if study is None else self.storage.get_study_user_attrs(study).get(key)

    def set_note(self, arm: str, key: str, value: Any, repeat: int = 0) -> None:
        """Note something of an arm (JSON-serialisable)."""
        self.storage.set_study_user_attr(self.ensure(arm, Phase.SEARCH, repeat), key, value)

    def has_trials(self, arm: str) -> bool:
        """Whether any trial of an arm was ever made."""
        studies = [study for phase in Phase if (study := self._existing(arm, phase, 0)) is not None]
        with self._engine.connect() as connection:
            found = connection.execute(select(TRIALS.c.trial_id).where(TRIALS.c.study_id.in_(studies)).limit(1))
            return found.first() is not None

    def has_results(self, arm: str, repeats: int = 1) -> bool:
        """Whether any trial of an arm came to a result, divergence and pruning included."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = (trial for n in range(repeats) for phase in Phase for trial in self.trials(arm, phase, n))
        return any(trial.state in ended for trial in trials)

    def forgive(self, seat: Seat, arm: str, repeat: int = 0) -> int:
        """Count no failure of an arm's trials any more, so that what was given up is run again; how many it had."""
        of = [self.ensure(arm, phase, repeat) for phase in Phase]
        failed = select(TRIALS.c.trial_id).where(TRIALS.c.study_id.in_(of), TRIALS.c.state == TrialState.FAIL)
        counted = (USER_ATTRIBUTES.c.key == "excused", USER_ATTRIBUTES.c.value_json == "false")
        with seat.writing(arm) as connection:
            change = update(USER_ATTRIBUTES).where(USER_ATTRIBUTES.c.trial_id.in_(failed), *counted)
            forgiven = connection.execute(change.values(value_json="true")).rowcount
        self.read_anew()
        return forgiven

    def enqueue(
        self,
        seat: Seat,
        arm: str,
        phase: Phase,
        slot: Slot,
        attempt: int = 0,
        repeat: int = 0,
        earlier: Sequence[str] = (),
    ) -> None:
        """Make a trial that waits for a worker. Raises SeatLostError if another process plans this arm by now."""
        self.enqueue_all(seat, arm, phase, [slot], attempt, repeat, earlier)

    def enqueue_all(
        self,
        seat: Seat,
        arm: str,
        phase: Phase,
        slots: Sequence[Slot],
        attempt: int = 0,
        repeat: int = 0,
        earlier: Sequence[str] = (),
    ) -> None:
        """The same of several, by one transaction."""
        study = self.ensure(arm, phase, repeat)
        with seat.writing(arm) as connection:
            for trial_id in make_waiting(connection, study, slots, attempt, earlier):
                self._ownership.offer(connection, trial_id)

    def trials(self, arm: str, phase: Phase, repeat: int = 0) -> list[FrozenTrial]:
        """All trials of a phase, in order of creation."""
        study = self._existing(arm, phase, repeat)
        return [] if study is None else self.storage.get_all_trials(study, deepcopy=False)

    def known(self, arms: Collection[str]) -> list[Known]:
        """All trials of arms, of all their repeats, in order of creation, by one query."""
        said = {key: USER_ATTRIBUTES.alias() for key in ("id", "slot", "end")}
        found = select(
            STUDIES.c.study_name, TRIALS.c.trial_id, TRIALS.c.state, *(a.c.value_json for a in said.values())
        )
        joined = TRIALS.join(STUDIES, STUDIES.c.study_id == TRIALS.c.study_id)
        for key, table in said.items():
            joined = joined.outerjoin(table, and_(table.c.trial_id == TRIALS.c.trial_id, table.c.key == key))
        mine = in_sweep(self.sweep)
        with self._engine.connect() as connection:
            rows = connection.execute(found.select_from(joined).where(mine).order_by(TRIALS.c.trial_id)).all()
        found_in = {name: StudyName.read(name) for name in {name for name, *_ in rows}}
        known = [(found_in[name], *values) for name, *values in rows]
        return [_known(study, *values) for study, *values in known if study is not None and study.arm in arms]

    def run_again(self, seat: Seat, arm: str, trials: Sequence[Known], reason: str) -> None:
        """Take back the results of an arm's trials, which are then as if they had been stopped: their slots are free.

        One transaction for all of them. Raises SeatLostError, and nothing is changed, if another process plans the arm.
        """
        attributes = {"error": reason, "excused": True, "died": False}
        with seat.writing(arm) as connection:
            for trial in trials:
                ended = (TRIALS.c.trial_id == trial.number, TRIALS.c.state == trial.state)
                if (
                    not trial.told
                    or connection.execute(update(TRIALS).where(*ended).values(state=TrialState.FAIL)).rowcount != 1
                ):
                    continue  # another process has changed it by now
                of = USER_ATTRIBUTES.c.trial_id == trial.number
                connection.execute(delete(USER_ATTRIBUTES).where(of, USER_ATTRIBUTES.c.key.in_(RESULT)))
                connection.execute(delete(VALUES).where(VALUES.c.trial_id == trial.number))
                rows = [
                    {"trial_id": trial.number, "key": k, "value_json": json.dumps(v)} for k, v in attributes.items()
                ]
                connection.execute(insert(USER_ATTRIBUTES), rows)
        self.read_anew()

    def read_anew(self) -> None:
        """Forget what was read: trials that have ended didn't change any more, or none was lost with its server."""
        self.storage = optuna.storages.get_storage(self._database)
        self._reader = TrialReader(self._engine)

    def history(self, arm: str, phase: Phase, retries: int, repeat: int = 0) -> History:
        """A phase as it stands; its account says which slots are given up."""
        study = self._existing(arm, phase, repeat)
        if study is None:
            return NO_HISTORY
        account = self._reader.account(study)
        return account.history(self._ownership.leases(list(account.running)), retries)

    def earlier(self, arms: Sequence[str], key: str) -> list[EarlierTrials]:
        """Trials that arms by these names had in any sweep, with a note of each."""
        return earlier_trials(self._engine, arms, key)

    def signs_of_life(self, lease_seconds: float) -> list[Sign]:
        """Who plans the sweep and who trains for it; a trial's lease is renewed for `lease_seconds`."""
        return signs_of_life(self._engine, self.sweep, lease_seconds)

    def states(self, arms: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], States]:
        """How many trials each (arm, repeat) has in each state: cheap, and another once a trial was made or changed."""
        studies = {self.ensure(arm, phase, repeat): ((arm, repeat), phase) for arm, repeat in arms for phase in Phase}
        count = (
            select(TRIALS.c.study_id, TRIALS.c.state, func.count())
            .where(TRIALS.c.study_id.in_(studies))
            .group_by(TRIALS.c.study_id, TRIALS.c.state)
        )
        found: dict[tuple[str, int], set[tuple[Phase, TrialState, int]]] = {arm: set() for arm in arms}
        with self._engine.connect() as connection:
            for study, state, number in connection.execute(count):
                arm, phase = studies[study]
                found[arm].add((phase, state, number))
        return {arm: frozenset(states) for arm, states in found.items()}

    # -- the workers' side -----------------------------------------------------------------------------------------

    def pop(
        self,
        arm: str,
        phase: Phase,
        worker: str,
        lease: float,
        count: int,
        alike: Callable[[Slot], object] = lambda slot: None,
        repeat: int = 0,
        beside: Slot | None = None,
    ) -> list[Work]:
        """Take up to `count` waiting trials of one search for `lease` seconds; each is taken by one worker only.

        All are `alike` the first, or the one that they are to train `beside`: those that are not wait for another pop.
        So does one that failed before: it is taken alone, where it can't take others with it again.
        """
        taken: list[Work] = []
        company = beside
        only_one = count == 1 and beside is None
        study = self.ensure(arm, phase, repeat)
        for trial_id, waiting in candidates(self._engine, study, self._oldest, only_one=only_one):
            if len(taken) == count:
                break
            failed_before = waiting.attempt >= AFTER_FAILURE
            if company is not None and (failed_before or alike(waiting.slot) != alike(company)):
                continue
            try:
                claim = self._ownership.claim(trial_id, worker, lease)
            except LeaseLostError:  # another worker was faster
                continue
            except (SQLAlchemyError, StorageInternalError):
                if not taken:
                    raise
                break  # what was taken is trained
            company = company or waiting.slot
            taken.append(Work(arm, phase, claim, waiting.slot, waiting.attempt, repeat, waiting.id, waiting.earlier))
            if failed_before:
                break
        return taken

    def num_waiting(self) -> int:
        """How many trials of the sweep wait for a worker."""
        mine = in_sweep(self.sweep)
        joined = TRIALS.join(STUDIES, STUDIES.c.study_id == TRIALS.c.study_id)
        count = select(func.count()).select_from(joined).where(mine, TRIALS.c.state == TrialState.WAITING)
        with self._engine.connect() as connection:
            return connection.scalar(count) or 0

    def renew(self, claim: Claim, lease: float) -> None:
        """Keep a trial for `lease` seconds from now. Raises LeaseLostError if somebody gave it up."""
        self._ownership.renew(claim, lease)

    def report(self, claim: Claim, step: int, value: float, lease: float) -> None:
        """Report a rung, and keep the trial. Raises LeaseLostError if somebody gave it up."""
        self._ownership.report(claim, step, value, lease)

    def tell(
        self,
        claim: Claim,
        end: End,
        value: float,
        seconds: float,
        test_loss: float | None = None,
        test_blocks: Sequence[float] = (),
        went_on: int | None = None,
    ) -> None:
        """Tell how a trial ended. Raises LeaseLostError if somebody gave it up before.

        `went_on` is the step that an earlier attempt had come to; None: it began anew.
        """
        attributes: dict[str, Any] = {"end": end.value, "train_seconds": seconds}
        if went_on is not None:
            attributes[WENT_ON] = went_on
        if test_loss is not None:
            attributes |= {"test_loss": test_loss, "test_blocks": list(test_blocks)}
        if end is End.FINISHED:
            self._ownership.end(claim, TrialState.COMPLETE, attributes, value)
        else:
            self._ownership.end(claim, TrialState.PRUNED, attributes)

    def was_told(self, claim: Claim) -> bool:
        """Whether the trial of a claim has a result: telling it may have got through although it seemed to fail."""
        with self._engine.connect() as connection:
            state = connection.scalar(select(TRIALS.c.state).where(TRIALS.c.trial_id == claim.trial_id))
        return state in (TrialState.COMPLETE, TrialState.PRUNED)

    def fail(
        self, claim: Claim, reason: str, *, excused: bool = False, died: bool = False, if_left: float | None = None
    ) -> bool:
        """Give a trial up: its slot is free again. False if it has changed hands, or a result was told first.

        An excused failure (the user interrupted) counts for nothing; one with which its worker `died` doesn't count
        towards the retries, but several in a row do. With `if_left` a trial whose lease was renewed in the meantime, so
        that it has as many seconds left, is left alone.
        """
        attributes = {"error": reason, "excused": excused, "died": died}
        try:
            self._ownership.end(claim, TrialState.FAIL, attributes, if_left=if_left)
        except LeaseLostError:
            return False
        return True


def _known(
    study: StudyName, number: int, state: TrialState, id_: str | None, slot: str | None, end: str | None
) -> Known:
    ended = state in (TrialState.COMPLETE, TrialState.PRUNED) and end is not None
    how = End(json.loads(end or "")) if ended else None
    return Known(number, json.loads(id_ or '""'), *study.key, int(slot or 0), state, how)
