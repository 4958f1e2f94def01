"""A worker, a whole group and a planner are killed in one sweep, which ends as if nothing had happened."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from chaos.calls import faults
from chaos.compare import compare
from chaos.disturbances import Disturbance, KillWorker, Signal
from chaos.plan import Plan, Step
from chaos.run import Run
from chaos.scene import Moment, TrialHeld, TrialsTold
from chaos.stores import Attempt, Found
from chaos.sweeps import Sweep

SMALL = Sweep(
    "small",
    "task=iris_mlp optimizer=adamw,momentum search.trials=4 confirm.seeds=2 trainer.steps=2000 trainer.rungs=4 "
    "trainer.log_every=50 hydra.launcher.workers=2",
)


class ThreeKills:
    """Each at a moment of its own."""

    most, with_server, fresh = 3, False, True
    kills: Sequence[tuple[Disturbance, Moment]] = (
        (KillWorker(), TrialHeld()),
        (Signal("the group", signal.SIGKILL, group=True), TrialsTold(3)),
        (Signal("the planner", signal.SIGKILL, group=False), TrialHeld()),
    )

    def opening(self, call: int) -> None:
        return None

    def step(self, number: int) -> Step:
        return Step(*self.kills[number % len(self.kills)], Random(number))

    def between(self, call: int) -> None:
        return None

    def after(self, call: int) -> None:
        return None


def test_three_kills_leave_the_numbers_of_an_undisturbed_sweep(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.episode("kills", SMALL, ThreeKills())
    assert not run.tally.violations
    assert run.tally.done.total() == 3
    assert run.tally.exits["exit 0"] == 1  # of as many calls as the kills of planner and group have ended


SLOT = ("adamw", "search", 0, 0)


def sweep_of(*attempts: Attempt, told: int = 1, **values: str) -> Found:
    result = {"params": "{}", "value": "0.5", **values}
    states = Counter(attempt.status for attempt in attempts)
    return Found({SLOT: [result] * told}, {SLOT: attempts}, states, {}, {"lowest": ["adamw"]})


def attempt(*losses: str, status: str = "FINISHED", ended: str = "finished") -> Attempt:
    return Attempt("run", status, ended, {"lr": "0.1", "lanes": str(len(losses))}, {("val/loss", 10): losses})


@pytest.mark.parametrize(
    ("disturbed", "kinds"),
    [
        (sweep_of(attempt("0.5")), []),
        (sweep_of(attempt("0.5"), attempt("0.4", status="FAILED", ended="crashed")), []),
        (sweep_of(attempt("0.5"), told=0), ["lost"]),
        (sweep_of(attempt("0.5"), told=2), ["doubled"]),
        (sweep_of(attempt("0.5"), value="0.5000000000000001"), ["numbers"]),
        (sweep_of(), ["lost"]),
        (sweep_of(attempt("0.5"), attempt("0.5")), ["doubled"]),
        (sweep_of(attempt("0.5000000000000001")), ["numbers"]),
        (sweep_of(attempt("0.5", "0.5")), ["numbers", "doubled"]),
        (sweep_of(attempt("0.5"), attempt("0.5", status="RUNNING", ended="crashed")), ["left running"]),
        (replace(sweep_of(attempt("0.5")), lacks=["index.html"]), ["exit"]),
        (replace(sweep_of(attempt("0.5")), report={"lowest": ["soap"]}), ["numbers"]),
    ],
)
def test_whatever_is_lost_doubled_or_otherwise_is_seen(disturbed: Found, kinds: list[str]) -> None:
    assert [kind for kind, _ in compare(disturbed, sweep_of(attempt("0.5")))] == kinds


LINE = "optsweep: the store failed: disk full; what is finished is kept"
TRACE = "Traceback (most recent call last):"


@pytest.mark.parametrize(
    ("code", "err", "told_to_stop", "num_faults"),
    [
        (0, ["note: something"], False, 0),
        (0, [TRACE, "ValueError"], False, 1),
        (2, [LINE], False, 0),
        (2, ["  File …", "ValueError"], False, 1),
        (2, [], False, 1),
        (2, [LINE] * 322, False, 1),
        (3, [LINE], False, 1),
        (130, [], True, 0),
        (130, [], False, 1),
        (-9, [], False, 0),
        (-9, [TRACE, "BrokenPipeError"], False, 1),
    ],
)
def test_an_exit_code_needs_its_line(code: int, err: list[str], told_to_stop: bool, num_faults: int) -> None:
    assert len(faults(code, err, [], told_to_stop)) == num_faults


def test_an_episode_s_plan_is_that_of_its_seed() -> None:
    def drawn(seed: int) -> list[object]:
        plan = Plan(seed, 3)
        steps = [plan.step(number) for number in range(40)]
        return [(step.disturbance, step.moment, step.rng.random()) for step in steps]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len({Plan(1, 3).step(number).disturbance.name for number in range(40)}) > 5
