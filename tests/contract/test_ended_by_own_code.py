"""The user's code that ends the process it runs in, or hangs in it: a line, and what it costs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arms import arm_with
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch import timing
from optsweep.launch.events import Event, Note
from optsweep.launch.prepare.together import Describe, describe_all
from optsweep.launch.sweep import run_sweep
from optsweep.launch.timing import MOST_TRIES, Measure, Measured, ToMeasure, measure_all, note_untimed
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.exit_codes import OVERDUE
from optsweep.launch.worker.inquiries import DiedError, Here
from optsweep.launch.worker.job import Job
from optsweep.search.studies import Studies
from optsweep.tracking.schema import Timing
from optsweep.tracking.writer import Tracker


def own_arm(folder: Path, at: str = "", how: str = "exit", **values: Any) -> Arm:
    """An arm whose task's code ends its process there."""
    stores = {"tracking__uri": f"sqlite:///{folder}/mlflow.db", "tracking__storage": f"sqlite:///{folder}/optuna.db"}
    arm = arm_with(
        {"task": "own"},
        **{"task___target_": "own_ends.task", "task__name": "ends", "task__batch_size": 50, **stores, **values},
    )
    return replace(arm, task=replace(arm.task, options={"at": at, "how": how}))


class Ends:
    """Whoever is asked dies of these, one after the other, and then answers."""

    def __init__(self, *deaths: DiedError, answers: Mapping[str, Measured] | None = None) -> None:
        self.deaths, self.answers = list(deaths), answers or {}
        self.asked: list[Any] = []

    def ask(self, request: Any, tell: Callable[[str], None] = lambda what: None) -> Any:
        self.asked.append(request)
        if self.deaths:
            raise self.deaths.pop(0)
        if isinstance(request, Describe):
            return []
        return [self.answers[wanted.arm.name] for wanted in request.arms]


LINES = {
    "task: building a: its process ended with exit code 0: the task's own code does that": DiedError("a", 0),
    "task: building a: its process ended with SIGSEGV: the task's own code does that": DiedError("a", -signal.SIGSEGV),
    "task: building a: it took longer than 60 s (own.py:3, in f): the task's own code hangs, or trainer.timeout should "
    "give it longer": DiedError("a", OVERDUE, "own.py:3, in f", 60.0),
}


@pytest.mark.parametrize("line", LINES)
def test_a_task_that_ends_the_process_which_builds_it_is_one_line(line: str) -> None:
    asker = Ends(LINES[line])
    with pytest.raises(UserError) as raised:
        describe_all(asker, [], {})
    assert str(raised.value) == line
    assert len(asker.asked) == 1


def test_one_that_was_killed_is_tried_once_more() -> None:
    killed = DiedError("a", -signal.SIGKILL)
    assert describe_all(Ends(killed), [], {}) == []
    with pytest.raises(UserError) as raised:
        describe_all(Ends(killed, killed), [], {})
    assert str(raised.value) == "task: building a: its process ended with SIGKILL, twice: is there memory enough?"


@pytest.mark.parametrize("at", ["construction", "model"])
def test_sys_exit_is_told_with_its_line(tmp_path: Path, at: str) -> None:
    arm = own_arm(tmp_path, at, "sys.exit")
    with pytest.raises(UserError, match=r"^task: own_ends\.py:\d+, in <lambda>: SystemExit: 3$"):
        describe_all(Here(Builds()), [arm], {arm.name: "a"})


def test_nothing_is_written_where_the_task_ends_the_process_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task: building adamw \+ cosine: its process ended with exit code 0"):
        run_sweep([own_arm(tmp_path, "model", "exit")], workers=1)
    assert list(tmp_path.iterdir()) == []


# -- the timing pass ---------------------------------------------------------------------------------------------------


TIMED = Measured(timing=Timing(1.0, 1.0, 1.0, 5))


def wanted(*names: str) -> Sequence[ToMeasure]:
    arm = arm_with({})
    return [ToMeasure(replace(arm, choices={**arm.choices, "optimizer": name}), {}, timed=True) for name in names]


def test_an_arm_whose_steps_end_the_worker_costs_its_own_timing_and_no_other() -> None:
    arms = wanted("a", "b", "c")
    first, second, third = [one.arm.name for one in arms]
    asker = Ends(DiedError(second, 0), answers={first: TIMED, third: TIMED})
    found = measure_all(asker, arms)
    assert (found[first], found[third]) == (TIMED, TIMED)
    assert found[second] == Measured(trouble="its process ended with exit code 0")
    assert [len(request.arms) for request in asker.asked] == [3, 2]


def test_a_worker_that_was_killed_costs_no_timing_the_first_time() -> None:
    arms = wanted("a", "b")
    first, second = [one.arm.name for one in arms]
    killed = DiedError(second, -signal.SIGKILL)
    assert measure_all(Ends(killed, answers={first: TIMED, second: TIMED}), arms) == {first: TIMED, second: TIMED}
    found = measure_all(Ends(killed, killed, answers={first: TIMED}), arms)
    assert found == {first: TIMED, second: Measured(trouble="its process ended with SIGKILL")}


def test_when_every_arm_does_so_the_rest_is_left_alone() -> None:
    arms = wanted(*"abcde")
    asker = Ends(*(DiedError(one.arm.name, -signal.SIGSEGV) for one in arms))
    found = measure_all(asker, arms)
    assert len(asker.asked) == 3
    assert {measured.trouble for measured in found.values()} == {"its process ended with SIGSEGV"}
    assert len(found) == 5


def test_an_arm_that_can_t_be_timed_is_tried_in_three_calls_and_again_when_it_has_changed(tmp_path: Path) -> None:
    studies = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")
    job = Job(arm_with({}), "a", "0123", "")
    said = [note_untimed(studies, job, "it crashed") for _ in range(MOST_TRIES)]
    assert said[0] == "no timing of its steps (it crashed); the same command tries again"
    assert said[-1] == "no timing of its steps (it crashed); it was tried 3 times, and isn't any more"
    assert note_untimed(studies, replace(job, fingerprint="4567"), "it crashed") == said[0]


def test_steps_that_crash_are_no_timing_and_say_why(tmp_path: Path) -> None:
    arm = own_arm(tmp_path, "timing", "sys.exit")
    (found,) = Here(Builds()).ask(Measure([ToMeasure(arm, {"lr": 0.1}, timed=True)]))
    assert found.timing is None
    assert found.facts is not None
    assert found.trouble.startswith("own_ends.py:")


@pytest.mark.parametrize(("seconds", "rounds"), [(60.0, 5), (0.0, 3)])
def test_steps_that_take_long_are_timed_in_fewer_rounds(
    seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "LONG_SECONDS", seconds)
    (found,) = Here(Builds()).ask(Measure([ToMeasure(arm_with({}, task__width=8), {"lr": 0.1}, timed=True)]))
    assert found.timing is not None
    assert found.timing.n == rounds


def test_a_sweep_whose_task_ends_the_timing_pass_ends_as_it_would_have(tmp_path: Path) -> None:
    arm = own_arm(tmp_path, "timing", "exit", trainer__steps=4, trainer__rungs=1)
    said: list[Event] = []
    result = run_sweep([replace(arm, confirm_seeds=1)], workers=1, observe=said.append)
    assert (result.trials, result.failure) == (1, None)
    lines = [event.text for event in said if isinstance(event, Note)]
    assert lines[-1] == (
        "adamw + cosine: no timing of its steps (its process ended with exit code 0); the same command tries again"
    )
    tracker = Tracker(arm.tracking_uri, arm.sweep)
    sheet = tracker.arm_sheet(tracker.arm_run(arm.name, "adamw + cosine"))
    assert sheet is not None
    assert sheet.timing is None
