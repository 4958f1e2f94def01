"""What befalls an episode, drawn from its seed: the n-th disturbance is the same whatever came of those before."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from chaos.disturbances import (
    RUNS,
    STARTING,
    STUDIES,
    Damage,
    DeleteRun,
    Disturbance,
    Freeze,
    FullDisk,
    InterruptTwice,
    KillWorker,
    Lock,
    Move,
    Neighbour,
    Outage,
    Remove,
    Signal,
    Twin,
)
from chaos.scene import AfterStart, Moment
from chaos.stores import MLFLOW, OPTUNA
from chaos.sweeps import SWEEPS, Sweep

Weighed = Sequence[tuple[Disturbance, float]]

KILLS: Weighed = (
    (KillWorker(), 20.0),
    (Signal("SIGKILL, the planner", signal.SIGKILL, group=False, counts="kill"), 2.0),
    (Signal("SIGKILL, the group", signal.SIGKILL, group=True, counts="kill"), 2.0),
)

IN_A_CALL: Weighed = (
    *KILLS,
    (Signal("SIGTERM, the planner", signal.SIGTERM, group=False, stops=True), 0.6),
    (Signal("SIGTERM, the group", signal.SIGTERM, group=True, stops=True), 0.4),
    (Signal("Ctrl-C", signal.SIGINT, group=True, stops=True), 0.6),
    (InterruptTwice(), 0.6),
    (Freeze("a worker frozen", worker=True), 0.7),
    (Freeze("the planner frozen"), 0.6),
    (Freeze("the group frozen", group=True), 0.4),
    (Twin(), 0.6),
    (Lock("mlflow.db locked", MLFLOW), 0.7),
    (Lock("optuna.db locked", OPTUNA), 0.7),
    (FullDisk(), 1.0),
)

OUTAGES: Weighed = (
    (Outage("the server killed"), 7.0),
    (Outage("the server frozen", frozen=True), 2.0),
)

AT_THE_START: Weighed = (
    (Signal("SIGKILL at start, the planner", signal.SIGKILL, group=False, moments=STARTING, counts="kill"), 2.0),
    (Signal("SIGKILL at start, the group", signal.SIGKILL, group=True, moments=STARTING, counts="kill"), 2.0),
    (Signal("Ctrl-C at start", signal.SIGINT, group=True, stops=True, moments=STARTING), 1.0),
    (Twin(moments=(AfterStart(0.5), AfterStart(6.0))), 1.0),
    (Neighbour(), 1.0),
)
"""Of a call."""

BETWEEN_CALLS: Weighed = (
    (Damage("a checkpoint cut short", "mlruns/checkpoint*/**/*", flip=False), 1.0),
    (Damage("a checkpoint's bits flipped", "mlruns/checkpoint*/**/*", flip=True), 1.0),
    (Damage("a spool file torn", "mlruns/spool/**/*.jsonl", flip=False), 1.0),
    (DeleteRun(), 1.0),
    (Remove("optuna.db removed", STUDIES), 0.7),
    (Remove("mlflow.db removed", RUNS), 0.7),
    (Move(), 1.0),
)

AFTER_THE_END: Weighed = (
    (DeleteRun(), 1.0),
    (Remove("optuna.db removed", STUDIES), 1.0),
    (Remove("mlflow.db removed", RUNS), 1.0),
    (Remove("the report removed", ("reports/*/*",)), 1.0),
    (Move(), 1.0),
)

SHARE_AT_START, SHARE_BETWEEN, SHARE_AFTER, SHARE_WITH_SERVER, SHARE_FRESH = 0.35, 0.4, 0.5, 0.4, 0.5


@dataclass(frozen=True)
class Step:
    """A disturbance of a command that runs, and when; `rng` decides the rest."""

    disturbance: Disturbance
    moment: Moment
    rng: Random


class Plan:
    """Everything that chance decides in an episode."""

    def __init__(self, seed: int, episode: int, outages: bool = True) -> None:
        self._of = f"{seed}/{episode}"
        rng = self._rng("plan")
        self.sweep: Sweep = SWEEPS[(seed + episode) % len(SWEEPS)]
        self.with_server = rng.random() < SHARE_WITH_SERVER and outages
        self.fresh = rng.random() < SHARE_FRESH  # no store's tables are there yet
        self.most = rng.randint(12, 30)  # disturbances while commands run
        self.in_a_call: Weighed = (*IN_A_CALL, *OUTAGES) if self.with_server else IN_A_CALL

    def _rng(self, *of: object) -> Random:
        return Random("/".join(map(str, (self._of, *of))))

    def opening(self, call: int) -> Step | None:
        """What befalls the n-th call at its start."""
        rng = self._rng("start", call)
        return self._step(AT_THE_START, rng) if rng.random() < SHARE_AT_START else None

    def step(self, number: int) -> Step:
        """The n-th disturbance of commands."""
        return self._step(self.in_a_call, self._rng("call", number))

    def _step(self, kinds: Weighed, rng: Random) -> Step:
        disturbance = _drawn(kinds, rng)
        return Step(disturbance, rng.choice(disturbance.moments), rng)

    def between(self, call: int) -> tuple[Disturbance, Random] | None:
        """What befalls the folder after the n-th call, which did not end well."""
        return self._damage("between", BETWEEN_CALLS, SHARE_BETWEEN, call)

    def after(self, call: int) -> tuple[Disturbance, Random] | None:
        """What befalls the folder after the n-th call, which ended the sweep."""
        return self._damage("after", AFTER_THE_END, SHARE_AFTER, call)

    def _damage(self, when: str, kinds: Weighed, share: float, call: int) -> tuple[Disturbance, Random] | None:
        rng = self._rng(when, call)
        return (_drawn(kinds, rng), rng) if rng.random() < share else None


def _drawn(kinds: Weighed, rng: Random) -> Disturbance:
    return rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
