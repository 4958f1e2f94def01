"""Trials in Optuna's storage, which is all that planner and workers share.

An arm has two studies, one per phase. The planner alone creates trials (enqueued, with everything that decides them as
attributes); workers pop them atomically, hold a lease while they train, and tell the result. A trial's state says what
happened: COMPLETE with its value, PRUNED with attribute `end` (pruned or diverged), FAIL for a crash.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select, update
from sqlalchemy.engine import make_url

from optsweep.errors import UserError, without_secrets
from optsweep.search.slots import Slot
from optsweep.train.trial import End, Phase

SQLITE_TIMEOUT = 60.0
"""Seconds to wait for another process's write."""

FIRST_LEASE = 30.0
"""Seconds that a popped trial has until its first lease is written."""

States = frozenset[tuple[Phase, TrialState, int]]
"""How many trials of an arm are in which state, by phase; states without a trial are left out."""


@dataclass(frozen=True)
class Work:
    """A trial that a worker popped, or that runs."""

    arm: str
    phase: Phase
    trial_id: int
    slot: Slot
    attempt: int


@dataclass(frozen=True)
class Running:
    """A trial in training, as its worker last described it."""

    trial_id: int
    slot: int
    worker: str
    expires: float  # unix seconds
    step: int


class Studies:
    """All studies of one sweep."""

    def __init__(self, storage: RDBStorage, sweep: str) -> None:
        self.storage: BaseStorage = optuna.storages.get_storage(storage)
        self._engine = storage.engine
        self.sweep = sweep
        self._ids: dict[tuple[str, Phase], int] = {}

    @staticmethod
    def open(url: str, sweep: str) -> Studies:
        """Open, and create where it is missing. Raises UserError if that can't be done."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            if url.startswith("sqlite:///"):
                path = Path(make_url(url).database or "")
                path.parent.mkdir(parents=True, exist_ok=True)
                with sqlite3.connect(path, timeout=SQLITE_TIMEOUT) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT}})
            else:
                storage = RDBStorage(url)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"tracking.storage: {without_secrets(url)} can't be opened: {without_secrets(reason)}"
            ) from None
        return Studies(storage, sweep)

    # -- the planner's side ----------------------------------------------------------------------------------------

    def ensure(self, arm: str, phase: Phase) -> int:
        """The study of an arm's phase, created if it is missing."""
        key = (arm, phase)
        if key not in self._ids:
            name = f"{self.sweep} | {arm} | {phase}"
            study = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)
            self._ids[key] = study._study_id
        return self._ids[key]

    def note(self, arm: str, key: str) -> Any:
        """What was noted of an arm, or None."""
        return self.storage.get_study_user_attrs(self.ensure(arm, Phase.SEARCH)).get(key)

    def set_note(self, arm: str, key: str, value: Any) -> None:
        """Note something of an arm (JSON-serialisable)."""
        self.storage.set_study_user_attr(self.ensure(arm, Phase.SEARCH), key, value)

    def has_trials(self, arm: str) -> bool:
        """Whether any trial of an arm was ever made."""
        return any(self.trials(arm, phase) for phase in Phase)

    def enqueue(self, arm: str, phase: Phase, slot: Slot, attempt: int = 0) -> None:
        """Make a trial that waits for a worker."""
        attributes = {
            "slot": slot.number,
            "params": dict(slot.params),
            "seed": slot.seed,
            "origin": slot.origin,
            "attempt": attempt,
            "prune_above": {str(step): value for step, value in slot.prune_above.items()},
        }
        template = optuna.trial.create_trial(
            state=TrialState.WAITING,
            user_attrs=attributes,
            system_attrs={"fixed_params": dict(slot.params)},
        )
        self.storage.create_new_trial(self.ensure(arm, phase), template_trial=template)

    def trials(self, arm: str, phase: Phase) -> list[FrozenTrial]:
        """All trials of a phase, in order of creation."""
        return self.storage.get_all_trials(self.ensure(arm, phase), deepcopy=False)

    def states(self, arms: Sequence[str]) -> Mapping[str, States]:
        """How many trials each arm has in each state: cheap, and different once a trial was made, begun or ended."""
        studies = {self.ensure(arm, phase): (arm, phase) for arm in arms for phase in Phase}
        count = (
            select(TrialModel.study_id, TrialModel.state, func.count())
            .where(TrialModel.study_id.in_(studies))
            .group_by(TrialModel.study_id, TrialModel.state)
        )
        found: dict[str, set[tuple[Phase, TrialState, int]]] = {arm: set() for arm in arms}
        with self._engine.connect() as connection:
            for study, state, number in connection.execute(count):
                arm, phase = studies[study]
                found[arm].add((phase, state, number))
        return {arm: frozenset(states) for arm, states in found.items()}

    def fail(self, trial_id: int, reason: str, *, excused: bool = False) -> bool:
        """Give a trial up: its slot is free again. False if another process told a result first.

        An excused failure (the user interrupted) doesn't count towards the retries.
        """
        try:
            self.storage.set_trial_user_attr(trial_id, "error", reason)
            self.storage.set_trial_user_attr(trial_id, "excused", excused)
            return self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    # -- the workers' side -----------------------------------------------------------------------------------------

    def pop(self, arm: str, phase: Phase, worker: str, lease: float, count: int) -> list[Work]:
        """Take up to `count` waiting trials of one arm; each is taken by one worker only."""
        taken: list[Work] = []
        waiting = self.storage.get_all_trials(self.ensure(arm, phase), deepcopy=False, states=(TrialState.WAITING,))
        for trial in waiting:
            if len(taken) == count:
                break
            if self._claim(trial._trial_id):
                self.renew(trial._trial_id, worker, lease, 0)
                taken.append(Work(arm, phase, trial._trial_id, _slot(trial), int(trial.user_attrs["attempt"])))
        return taken

    def _claim(self, trial_id: int) -> bool:
        """WAITING → RUNNING in one conditional UPDATE, which one process wins.

        Optuna's own transition selects and then updates; SQLite has no row locks, and several processes won: measured,
        55 pops of 40 trials by three.
        """
        claim = (
            update(TrialModel)
            .where(TrialModel.trial_id == trial_id, TrialModel.state == TrialState.WAITING)
            .values(state=TrialState.RUNNING, datetime_start=datetime.now())
        )
        with self._engine.begin() as connection:
            return connection.execute(claim).rowcount == 1

    def renew(self, trial_id: int, worker: str, lease: float, step: int) -> None:
        """Say that a trial is alive, and how far it is. Raises LeaseLostError if somebody gave it up."""
        lease_value = {"worker": worker, "expires": time.time() + lease, "step": step}
        try:
            self.storage.set_trial_user_attr(trial_id, "lease", lease_value)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise LeaseLostError from None

    def report(self, trial_id: int, step: int, value: float) -> None:
        """Report a rung."""
        try:
            self.storage.set_trial_intermediate_value(trial_id, step, value)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise LeaseLostError from None

    def tell(self, trial_id: int, end: End, value: float, seconds: float, test_loss: float | None = None) -> None:
        """Tell how a trial ended. Raises LeaseLostError if somebody gave it up before."""
        try:
            if test_loss is not None:
                self.storage.set_trial_user_attr(trial_id, "test_loss", test_loss)
            self.storage.set_trial_user_attr(trial_id, "end", end.value)
            self.storage.set_trial_user_attr(trial_id, "train_seconds", seconds)
            if end is End.FINISHED:
                self.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
            else:
                self.storage.set_trial_state_values(trial_id, TrialState.PRUNED)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise LeaseLostError from None


class LeaseLostError(Exception):
    """The trial was given up by the planner: its worker must drop it."""


@dataclass(frozen=True)
class History:
    """One phase of an arm as the storage has it."""

    slots: Mapping[int, Slot]  # the latest state of every slot that was ever created and not lost
    attempts: Mapping[int, int]  # crashes per slot
    running: Sequence[Running]
    waiting: int
    train_seconds: float
    errors: Mapping[int, str]  # last error per crashed slot
    lost: Mapping[int, Slot]  # slots to be enqueued again

    def prefix(self) -> list[Slot]:
        """Slots 0, 1, … up to the first that is missing."""
        slots: list[Slot] = []
        while len(slots) in self.slots:
            slots.append(self.slots[len(slots)])
        return slots

    @property
    def num_done(self) -> int:
        """Slots with a result."""
        return sum(slot.done for slot in self.slots.values())


NO_HISTORY = History({}, {}, (), 0, 0.0, {}, {})


def history(trials: Sequence[FrozenTrial], retries: int) -> History:
    """Read a phase; a slot that crashed more than `retries` times is done, as crashed."""
    slots: dict[int, Slot] = {}
    attempts: dict[int, int] = {}
    errors: dict[int, str] = {}
    running: list[Running] = []
    lost: dict[int, Slot] = {}
    waiting, seconds = 0, 0.0
    for trial in trials:
        if "slot" not in trial.user_attrs:
            continue
        slot = _slot(trial)
        seconds += float(trial.user_attrs.get("train_seconds", 0.0))
        if trial.state is TrialState.FAIL:
            if not trial.user_attrs.get("excused"):
                attempts[slot.number] = attempts.get(slot.number, 0) + 1
                errors[slot.number] = str(trial.user_attrs.get("error", ""))
            lost[slot.number] = slot
            continue
        slots[slot.number] = slot
        lost.pop(slot.number, None)
        if trial.state is TrialState.WAITING:
            waiting += 1
        elif trial.state is TrialState.RUNNING:
            started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            lease = trial.user_attrs.get("lease") or {"worker": "", "expires": started + FIRST_LEASE, "step": 0}
            running.append(
                Running(trial._trial_id, slot.number, lease["worker"], float(lease["expires"]), int(lease["step"]))
            )
    for number in [n for n in lost if attempts.get(n, 0) > retries]:
        slots[number] = _crashed(lost.pop(number))
    return History(slots, attempts, running, waiting, seconds, errors, lost)


def _crashed(slot: Slot) -> Slot:
    return Slot(slot.number, slot.params, slot.seed, slot.origin, crashed=True)


def _slot(trial: FrozenTrial) -> Slot:
    attributes = trial.user_attrs
    end = attributes.get("end")
    value = test_loss = None
    if trial.state is TrialState.COMPLETE:
        value, test_loss = trial.value, attributes.get("test_loss")
    elif trial.state is TrialState.PRUNED and end == End.DIVERGED:
        value = math.inf
    return Slot(
        number=int(attributes["slot"]),
        params=dict(attributes["params"]),
        seed=int(attributes["seed"]),
        origin=str(attributes["origin"]),
        value=value,
        test_loss=test_loss,
        pruned=trial.state is TrialState.PRUNED and end == End.PRUNED,
        rungs=dict(trial.intermediate_values),
        prune_above={int(step): float(v) for step, v in attributes.get("prune_above", {}).items()},
    )
