"""confirm.seeds=auto with the real planner and storage and made-up results: where seeds end, whoever works when."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from arms import arm_with
from optsweep.cli.doorman import run
from optsweep.inference.looks import AUTO, Seeds
from optsweep.launch.planner import PlannedArm, Planner
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.leases import LeaseWatch
from optsweep.search.process import process_name
from optsweep.search.slots import SearchPlan
from optsweep.search.space import Space
from optsweep.search.studies import Studies, Work
from optsweep.tracking.schema import Chosen
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Phase

Loss = Callable[[int], float]
"""Test loss by seed; infinity diverges, NaN is a finished trial without a usable loss."""

WORKER = process_name()
NOISE = np.random.default_rng(3).normal(size=(4, 40))


class NoTracker:
    """What the planner tells MLflow goes nowhere."""

    def note_chosen(self, run: str, chosen: Chosen | None, repeat: int = 0) -> None:
        pass

    def supersede(self, arm: str, slots: Sequence[int], repeat: int = 0) -> None:
        pass


def task(name: str) -> PlannedArm:
    """An arm named by its optimizer, and its task, if that isn't x."""
    optimizer, _, of = name.partition(" ")
    arm = replace(arm_with({}), choices={"task": of or "x", "optimizer": optimizer})
    plan = SearchPlan(trials=0, lag=1, sampler="gp", pruner="none", reruns=0.0, seed=0, arm=arm.name)
    return PlannedArm(Job(arm, name, "", ""), plan, Space({}))


def level(mean: float, noise: int = 0, spread: float = 1.0) -> Loss:
    return lambda seed: mean + spread * float(NOISE[noise, seed])


def diverging(loss: Loss, *seeds: int) -> Loss:
    return lambda seed: np.inf if seed in seeds else loss(seed)


def work(
    studies: Studies,
    losses: Mapping[str, Loss],
    seeds: Seeds = AUTO,
    *,
    workers: int = 1,
    restart: bool = False,
    stop_after: int = 1000,
    delta: float | None = None,
) -> dict[str, int]:
    """Run to the end, `workers` trials at a time, which end in reverse order; the number of seeds that each arm had."""

    tasks = [task(name) for name in losses]

    seat = studies.take_seat([of.name for of in tasks], whole=True)

    def planner() -> Planner:
        tracker = cast(Tracker, NoTracker())
        return Planner(tasks, studies, seat, tracker, seeds=seeds, baseline=tasks[0].name, delta=delta, retries=1)

    current, done = planner(), 0
    while not current.step() and done < stop_after:
        trials = _pop(studies, tasks, workers)
        assert trials, "the planner waits for nothing"
        for of, work in reversed(trials):
            loss = losses[of.job.label](work.slot.seed)
            end = End.DIVERGED if loss == np.inf else End.FINISHED
            studies.tell(work.claim, end, 1.0, 0.1, None if loss == np.inf else loss)
        done += len(trials)
        current = planner() if restart else current
    seat.release()
    return {of.job.label: studies.history(of.name, Phase.CONFIRM, 1).num_done for of in tasks}


def _pop(studies: Studies, tasks: Sequence[PlannedArm], workers: int) -> list[tuple[PlannedArm, Work]]:
    """A trial for each worker, of whichever arms have one; several workers start with the last arm."""
    found: list[tuple[PlannedArm, Work]] = []
    for of in tasks if workers == 1 else tasks[::-1]:
        popped = studies.pop(of.name, Phase.CONFIRM, WORKER, 60.0, workers - len(found))
        found += [(of, work) for work in popped]
    return found


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")


BASE = level(2.0)
CLEAR, CLOSE = level(-3.0, 1), level(2.0, 1)
SAME = level(2.5, 0)


@pytest.mark.parametrize(
    ("losses", "ends"),
    [
        ({"a": BASE}, {"a": 5}),  # nothing to compare
        ({"a": BASE, "b": CLEAR}, {"a": 5, "b": 5}),
        ({"a": BASE, "b": level(-0.2, 1)}, {"a": 10, "b": 10}),  # not shown at 5, shown at 10
        ({"a": BASE, "b": CLOSE}, {"a": 20, "b": 20}),
        ({"a": BASE, "b": CLEAR, "c": CLOSE}, {"a": 20, "b": 20, "c": 20}),  # all arms of a group alike
        ({"a": BASE, "b": SAME}, {"a": 5, "b": 5}),  # no variance
        ({"a": BASE, "b": diverging(level(1.5, 1), 2)}, {"a": 5, "b": 5}),  # leads, and can't be called better
        ({"a": BASE, "b": diverging(level(2.8, 1), 2)}, {"a": 20, "b": 20}),  # may be worse
        ({"a": BASE, "b": diverging(BASE, *range(40))}, {"a": 5, "b": 5}),
        ({"a": BASE, "b": lambda seed: np.nan}, {"a": 5, "b": 5}),
        ({"a": BASE, "b": CLEAR, "c y": BASE, "d y": CLOSE}, {"a": 5, "b": 5, "c y": 20, "d y": 20}),
    ],
)
def test_seeds_end_where_all_comparisons_of_a_group_are_decided(
    studies: Studies, losses: Mapping[str, Loss], ends: Mapping[str, int]
) -> None:
    assert work(studies, losses) == ends


@pytest.mark.parametrize(("workers", "restart"), [(2, False), (7, False), (3, True)])
def test_the_same_end_whatever_the_workers_and_restarts(studies: Studies, workers: int, restart: bool) -> None:
    losses = {"a": BASE, "b": level(-0.2, 1), "c y": BASE, "d y": CLEAR}
    assert work(studies, losses, workers=workers, restart=restart) == {"a": 10, "b": 10, "c y": 5, "d y": 5}
    assert work(studies, losses) == {"a": 10, "b": 10, "c y": 5, "d y": 5}  # again, and there is nothing left


def test_stopped_within_a_look_it_goes_on_to_that_look(studies: Studies) -> None:
    losses = {"a": BASE, "b": level(-0.2, 1)}
    work(studies, losses, stop_after=13)
    assert work(studies, losses, workers=2) == {"a": 10, "b": 10}


@pytest.mark.parametrize(
    ("first", "losses", "ends"),
    [
        (5, {"a": BASE, "b": CLEAR}, 5),
        (5, {"a": BASE, "b": CLOSE}, 20),
        (8, {"a": BASE, "b": CLEAR}, 10),  # the first look with as many
        (30, {"a": BASE, "b": CLOSE}, 30),  # nothing to add
    ],
)
def test_auto_goes_on_from_a_fixed_number(studies: Studies, first: int, losses: Mapping[str, Loss], ends: int) -> None:
    assert set(work(studies, losses, first).values()) == {first}
    assert set(work(studies, losses, AUTO).values()) == {ends}


def test_a_fixed_number_goes_on_from_auto_and_a_new_arm_has_as_many(studies: Studies) -> None:
    assert set(work(studies, {"a": BASE, "b": CLEAR}).values()) == {5}
    assert set(work(studies, {"a": BASE, "b": CLEAR}, 3).values()) == {5}
    assert set(work(studies, {"a": BASE, "b": CLEAR}, 8).values()) == {8}
    assert set(work(studies, {"a": BASE, "b": CLEAR, "c": level(-4.0, 2)}).values()) == {10}


def test_equal_within_delta_ends_the_seeds(studies: Studies) -> None:
    assert set(work(studies, {"a": BASE, "b": level(2.0, 0, 1.001)}, delta=0.1).values()) == {5}


@pytest.mark.parametrize(("shift", "ends"), [(-0.0002, 5), (0.0005, 20)])
def test_but_not_of_an_arm_with_a_diverged_seed_that_may_yet_be_shown_to_be_worse(
    studies: Studies, shift: float, ends: int
) -> None:
    near = diverging(level(2.0 + shift, 0, 1.001), 2)
    assert set(work(studies, {"a": BASE, "b": near}, delta=0.1).values()) == {ends}


def test_a_whole_sweep_stops_where_the_difference_is_clear_and_says_by_which_rule(tmp_path: Path) -> None:
    sweep = ["task=digits_mlp", "task.width=8", "optimizer=momentum", "search=none", "confirm.seeds=auto"]
    sweep += ["trainer.steps=20", "trainer.rungs=2", "hydra.launcher.workers=0", "sweep.name=clear"]
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert run(["-m", *sweep, "optimizer.lr=1e-1,1e-6"]) == 0
    finally:
        os.chdir(before)
    found = json.loads((tmp_path / "reports" / "clear" / "results.json").read_text())
    (group,) = found["groups"]
    assert group["partial"] is False
    assert [len(arm["confirm"]) for arm in group["arms"]] == [5, 5]
    assert group["comparisons"][0]["outcome"] == "worse"
    assert group["seeds"] == {
        "looks": [5, 10, 20],
        "over_searches": False,
        "stopped_at": 5,
        "nominal_level": pytest.approx(0.0208, abs=1e-4),
    }
    assert "97.9 % interval of the difference (three looks planned, Pocock)" in group["headline"]


@pytest.mark.parametrize("worker", ["elsewhere/1/1", WORKER], ids=["elsewhere", "here"])
def test_a_lease_that_ran_out_here_or_elsewhere_is_noticed_at_the_next_full_look(
    studies: Studies, monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    hung: list[str] = []
    one = task("a")
    seat, tracker, watch = studies.take_seat([one.name], whole=True), cast(Tracker, NoTracker()), LeaseWatch(patience=0)
    rest: dict[str, Any] = {"seeds": 1, "baseline": one.name, "retries": 1, "on_hung": hung.append, "watch": watch}
    planner = Planner([one], studies, seat, tracker, **rest)
    planner.step()
    (taken,) = studies.pop(one.name, Phase.CONFIRM, worker, 60.0, 1)
    planner.step()
    studies.renew(taken.claim, -1.0)
    planner.step()  # nothing has begun or ended, so nothing is read
    assert not studies.pop(one.name, Phase.CONFIRM, WORKER, 60.0, 1)
    monkeypatch.setattr("optsweep.launch.planner.FULL_LOOK_SECONDS", 0.0)
    planner.step()
    assert hung == [worker]  # and ended, if it is one of the pool
    (again,) = studies.pop(one.name, Phase.CONFIRM, WORKER, 60.0, 1)
    assert again.slot.number == taken.slot.number
    assert again.attempt > taken.attempt
