"""sweep.repeats=auto with the real planner and storage and made-up results, and the pages of a sweep under way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from arms import arm_with
from optsweep import api
from optsweep.config.arm import Arm
from optsweep.inference.looks import AUTO, REPEAT_LOOKS, Repeats
from optsweep.launch import provisional
from optsweep.launch.display import Display
from optsweep.launch.events import Event, PageWritten, RepeatEnded, Stopped, Trained
from optsweep.launch.planner import PlannedArm, Planner
from optsweep.launch.provisional import pages
from optsweep.launch.status import status_of
from optsweep.launch.worker.job import Job
from optsweep.search.process import process_name
from optsweep.search.slots import SearchPlan
from optsweep.search.space import Space
from optsweep.search.studies import Studies, Work
from optsweep.tracking.schema import Chosen
from optsweep.tracking.spool import Spool
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Phase

Loss = Callable[[int, int], float]
"""Test loss by repeat and seed; infinity diverges."""

WORKER = process_name()
NOISE = np.random.default_rng(3).normal(size=(4, 8))
SEEDS = 2


class NoTracker:
    """What the planner tells MLflow goes nowhere."""

    def note_chosen(self, run: str, chosen: Chosen | None, repeat: int = 0) -> None:
        pass

    def supersede(self, arm: str, slots: Any, repeat: int = 0) -> None:
        pass


def tasks(name: str) -> list[PlannedArm]:
    """All searches that an arm may have, each without a search trial."""
    optimizer, _, of = name.partition(" ")
    arm = replace(arm_with({}), choices={"task": of or "x", "optimizer": optimizer})
    plan = SearchPlan(trials=0, lag=1, sampler="gp", pruner="none", reruns=0.0, seed=0, arm=arm.name)
    return [PlannedArm(Job(arm, name, "", ""), plan, Space({}), repeat) for repeat in range(REPEAT_LOOKS[-1])]


def level(mean: float, noise: int, spread: float = 1.0) -> Loss:
    return lambda repeat, seed: mean + spread * float(NOISE[noise, repeat]) + 1e-3 * seed


BASE = level(2.0, 0)
CLEAR, CLOSE = level(-58.0, 1), level(2.0, 1)


def work(
    studies: Studies,
    losses: Mapping[str, Loss],
    repeats: Repeats = AUTO,
    *,
    seeds: int = SEEDS,
    before: int = 0,
    restart: bool = False,
    stop_after: int = 10_000,
) -> tuple[dict[str, int], list[int]]:
    """Run to the end: how many repeats each arm had, and the numbers of complete repeats that were told."""
    all_tasks = [task for searches in zip(*map(tasks, losses), strict=True) for task in searches]
    if repeats != AUTO:
        all_tasks = all_tasks[: repeats * len(losses)]
    seat = studies.take_seat(list(dict.fromkeys(task.name for task in all_tasks)), whole=True)
    told: list[int] = []

    def planner() -> Planner:
        terms: dict[str, Any] = {"seeds": seeds, "repeats": repeats, "repeats_before": before, "retries": 1}
        return Planner(
            all_tasks,
            studies,
            seat,
            cast(Tracker, NoTracker()),
            baseline=all_tasks[0].name,
            on_repeat=told.append,
            **terms,
        )

    current, done = planner(), 0
    while not current.step() and done < stop_after:
        one = next(work for task in all_tasks for work in _popped(studies, task))
        label = next(task.job.label for task in all_tasks if task.name == one.arm)
        loss = losses[label](one.repeat, one.slot.seed)
        end = End.DIVERGED if loss == np.inf else End.FINISHED
        studies.tell(one.claim, end, 1.0, 0.1, None if loss == np.inf else loss)
        done += 1
        current = planner() if restart else current
    seat.release()
    names = {task.job.label: task.name for task in all_tasks}
    counts = {
        label: sum(studies.history(name, Phase.CONFIRM, 1, r).num_done == seeds for r in range(REPEAT_LOOKS[-1]))
        for label, name in names.items()
    }
    return counts, told


def _popped(studies: Studies, task: PlannedArm) -> list[Work]:
    return studies.pop(task.name, Phase.CONFIRM, WORKER, 60.0, 1, repeat=task.repeat)


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")


@pytest.mark.parametrize(
    ("losses", "ends"),
    [
        ({"a": BASE}, [3]),  # nothing to compare
        ({"a": BASE, "b": CLEAR}, [3, 3]),
        ({"a": BASE, "b": level(-18.0, 1)}, [4, 4]),  # p = 0.018 at 3, where 0.017 is needed
        ({"a": BASE, "b": CLOSE}, [8, 8]),
        ({"a": BASE, "b": CLEAR, "c": CLOSE}, [8, 8, 8]),  # all arms of a group alike
        ({"a": BASE, "b": level(2.5, 0)}, [3, 3]),  # no variance
        ({"a": BASE, "b": lambda repeat, seed: np.inf}, [3, 3]),
        ({"a": BASE, "b": CLEAR, "c y": BASE, "d y": CLOSE}, [3, 3, 8, 8]),  # each group by itself
    ],
)
def test_searches_end_where_all_comparisons_of_a_group_are_decided(
    studies: Studies, losses: Mapping[str, Loss], ends: list[int]
) -> None:
    restart = len(losses) == 2  # a planner that begins anew comes to the same end
    assert list(work(studies, losses, restart=restart)[0].values()) == ends
    assert list(work(studies, losses, stop_after=0)[0].values()) == ends  # again, and there is nothing left


def test_it_goes_on_from_a_fixed_number_at_the_next_look(studies: Studies) -> None:
    assert work(studies, {"a": BASE, "b": CLEAR}, 5)[0] == {"a": 5, "b": 5}
    assert work(studies, {"a": BASE, "b": CLEAR}, before=5)[0] == {"a": 6, "b": 6}


def test_more_seeds_of_several_searches_are_run_in_each_and_nothing_again(studies: Studies) -> None:
    losses = {"a": BASE, "b": CLEAR}
    assert work(studies, losses, 3)[0] == {"a": 3, "b": 3}
    assert work(studies, losses, 3, seeds=4, stop_after=2 * 3 * 2)[0] == {"a": 3, "b": 3}  # two more of each
    assert work(studies, losses, 3, seeds=4, stop_after=0)[0] == {"a": 3, "b": 3}


def test_every_complete_repeat_is_told_but_the_last(studies: Studies) -> None:
    assert work(studies, {"a": BASE, "b": CLEAR}, 4, stop_after=7)[1] == [1]
    assert work(studies, {"a": BASE, "b": CLEAR}, 4)[1] == [2, 3]


def test_status_counts_the_trials_of_all_repeats(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    work(Studies.open(storage, "s"), {"a": BASE, "b": CLEAR}, 3, stop_after=9)
    found = {(of.arm, of.phase): of for of in status_of(storage, "s").phases}
    confirm = [of for (_, phase), of in found.items() if phase is Phase.CONFIRM]
    assert sum(of.done for of in confirm) == 9
    assert sum(of.done + of.waiting for of in confirm) == 2 * 3 * SEEDS


TRAINED = 2 * 3 * (2 + 2)


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Arm]:
    """Two arms with three searches of two trials and two seeds each, which take a moment."""
    monkeypatch.chdir(tmp_path)
    plan = {"search.trials": 2, "confirm.seeds": 2, "search.sampler": "quasi-random", "sweep.repeats": 3}
    stores = {"tracking.uri": f"sqlite:///{tmp_path}/mlflow.db", "tracking.storage": f"sqlite:///{tmp_path}/optuna.db"}
    run = {"trainer.steps": 8, "trainer.rungs": 2, "task.width": 4, "sweep.name": "p"}
    return [arm_with({"optimizer": name}).with_values({**plan, **run, **stores}) for name in ("momentum", "nesterov")]


def headline() -> str:
    found = json.loads(Path("reports/p/results.json").read_text())
    return str(found["groups"][0]["headline"])


class StoppedByHandError(Exception):
    """As Ctrl-C does, at a moment of the test's choice."""


def test_a_page_follows_every_complete_repeat_stays_after_a_stop_and_is_replaced_by_the_last(arms: list[Arm]) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, PageWritten):
            raise StoppedByHandError

    with pytest.raises(StoppedByHandError):
        api.run(arms, workers=0, observe=stop)
    assert headline().startswith("Provisional: 1 of 3 repeats. On digits_mlp, at the settings that this search chose, ")

    said: list[tuple[int, str]] = []

    def listen(event: Event) -> None:
        if isinstance(event, PageWritten):
            said.append((event.complete, headline()))

    found = api.run(arms, workers=0, observe=listen)
    ((complete, second),) = said
    assert complete == 2
    assert second.startswith("Provisional: 2 of 3 repeats. On digits_mlp, ")
    assert "paired over 2 of 3 searches" in second
    assert "rovisional" not in headline()
    assert "paired over 3 searches" in headline()
    assert 0 < found.result.trials < TRAINED


def test_beside_workers_a_process_writes_it_and_one_that_is_begun_is_waited_for(arms: list[Arm]) -> None:
    result = api.run(arms, workers=0, report=False).result
    index, heard = Path("reports/p/index.html"), list[Event]()
    with pages(Spool.of(result.tracking_uri, arms[0].storage, "p"), index, heard.append, aside=True) as observe:
        for event in (RepeatEnded(1, 3), RepeatEnded(2, 3), Stopped(1, 2, ""), Trained()):
            observe(event)
    written = [event for event in heard if isinstance(event, PageWritten)]
    assert written == [PageWritten(1, 3, index), PageWritten(2, 3, index)]  # the second since none follows after a stop
    assert "paired over 3 searches" in headline()


def test_a_page_that_fails_costs_the_sweep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(provisional, "write_report", fail)
    heard: list[Event] = []
    nowhere = "sqlite:///nowhere/at.db"
    with pages(Spool.of(nowhere, nowhere, "p"), Path("index.html"), heard.append, aside=False) as observe:
        observe(RepeatEnded(1, 3))
    assert heard == [RepeatEnded(1, 3)]


def test_a_terminal_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display(PageWritten(1, 4, Path("reports/p/index.html")))
    display(PageWritten(3, AUTO, Path("reports/p/index.html")))
    assert capsys.readouterr().out.splitlines() == [
        "provisional: 1 of 4 repeats: reports/p/index.html",
        "provisional: 3 repeats of at most 8: reports/p/index.html",
    ]
