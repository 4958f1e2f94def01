"""`trainer.lanes=auto` in a sweep: what is remembered, what a begun sweep keeps, that numbers don't depend on it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kinds
from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.config.arm import Arm
from optsweep.config.search_space import ChoicesConfig
from optsweep.config.sections import AUTO_LANES, OptimizerConfig, SearchConfig, TaskConfig, TrainerConfig
from optsweep.errors import UserError
from optsweep.launch.events import Event, Note
from optsweep.launch.prepare import fit
from optsweep.launch.prepare.continuity import CONTENT, BegunArm, begun
from optsweep.launch.prepare.decided import _with_lag, remember
from optsweep.launch.prepare.description import described
from optsweep.launch.prepare.fit import FittedLanes, Fitter, crowds_of, fitted_said
from optsweep.launch.prepare.together import Describe, describe_all
from optsweep.launch.sweep import run_sweep
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.inquiries import DiedError, Here
from optsweep.launch.worker.lane_memory import LaneMemory
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.tracking.writer import Tracker
from optsweep.train.lane_choice import Crowd, LaneTimes
from optsweep.train.trial import Phase

FAST = LaneTimes(1.0, {2: 1.0, 4: 1.0, 16: 1.0})
SLOW = LaneTimes(1.0, {2: 4.0, 4: 8.0})
ALONE = LaneTimes(alone="it draws random numbers")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are shared by one process, whatever machine this is."""
    monkeypatch.setattr("optsweep.launch.prepare.devices.num_cores", lambda: 1)


def measuring(monkeypatch: pytest.MonkeyPatch, *times: LaneTimes | Exception) -> list[int]:
    """Let these be measured, one after the other; returns how far each time."""
    left, asked = list(times), list[int]()

    def measure(program: Any, trial: Any, most: int, budget: float) -> LaneTimes:
        asked.append(most)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return replace(found, upto=most)

    monkeypatch.setattr("optsweep.train.fitting.measure", measure)
    return asked


def arm_at(folder: Path, *, seeds: int = 8, lanes: int = AUTO_LANES) -> Arm:
    return Arm(
        task=TaskConfig(name="plain", target="kinds.Plain", batch_size=16, steps=6),
        optimizer=OptimizerConfig("adam", "optsweep.optim.adam.Adam", 1e-2),
        search=SearchConfig(trials=0),
        trainer=TrainerConfig(device="cpu", rungs=2, lanes=lanes),
        confirm_seeds=seeds,
        sweep="found",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        storage=f"sqlite:///{folder}/optuna.db",
    )


def fitted(arm: Arm, **known: Any) -> FittedLanes:
    builds = Builds()
    return Fitter(1, **known).fit(arm, builds.task_of(arm), CPU, builds.of)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_what_was_measured_comes_back_and_others_keep_theirs(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    first, second = LaneMemory.of(storage), LaneMemory.of(storage)
    assert (first.add({"a": FAST, "b": ALONE}), second.add({"c": SLOW})) == ("", "")
    assert LaneMemory.of(storage).times == {"a": FAST, "b": ALONE, "c": SLOW}
    assert stat.S_IMODE((tmp_path / "lanes.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["lanes.json"]


def test_memory_that_ran_out_is_remembered_of_what_was_measured(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    LaneMemory.of(storage).add({"a": FAST})
    for key in ("a", "b", ""):
        LaneMemory.of(storage).narrow(key, 8)
    assert LaneMemory.of(storage).times == {"a": replace(FAST, room=8)}


def program_in_a_file(**changes: Any) -> str:
    held = {"one": 1.0, "several": {"2": 1.5}, "upto": 4, "alone": "", "room": 0, **changes}
    return json.dumps({"format": 1, "programs": {"a": held}})


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "lanes.json").write_text(program_in_a_file())
    assert LaneMemory.of(f"sqlite:///{tmp_path}/optuna.db").times == {"a": LaneTimes(1.0, {2: 1.5}, 4)}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"format": 2, "programs": {}}',
        '{"format": 1, "programs": []}',
        '{"format": 1, "programs": {"a": null}}',
        program_in_a_file(one=-1.0),
        program_in_a_file(one=0.0),
        program_in_a_file(one="1"),
        program_in_a_file(several={"two": 1.0}),
        program_in_a_file(several={"1": 1.0}),
        program_in_a_file(several={"2": float("nan")}),
        program_in_a_file(upto=None),
        program_in_a_file(room=-1),
        program_in_a_file(alone=3),
    ],
)
def test_a_damaged_file_is_a_line_and_is_written_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / "lanes.json"
    file.write_text(content)
    memory = LaneMemory.of(f"sqlite:///{tmp_path}/optuna.db")
    assert memory.times == {}
    assert memory.trouble.startswith(f"{file}: it can't be read (")
    assert memory.trouble.endswith("), so lanes are measured anew")
    assert "\n" not in memory.trouble
    memory.add({"b": FAST})
    assert LaneMemory.of(f"sqlite:///{tmp_path}/optuna.db") == LaneMemory(file, {"b": FAST})


def test_it_is_kept_in_the_working_folder_where_the_storage_is_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arm, server = arm_with({}), "postgresql://host/studies"
    known = replace(described(arm, build_arm(arm)), fitted=FittedLanes(2, key="a", times=FAST))
    assert list(remember(LaneMemory.of(server), [arm], [known], {arm.name: "adamw"})) == []
    assert LaneMemory.of(server) == LaneMemory(tmp_path / "mlruns" / "lanes.json", {"a": FAST})


def test_what_cant_be_kept_is_a_line(tmp_path: Path) -> None:
    said = LaneMemory.of(f"sqlite:///{tmp_path}/nowhere/optuna.db").add({"a": FAST})
    assert said.startswith(f"{tmp_path}/nowhere/lanes.json: it can't be written (")


# -- an arm ------------------------------------------------------------------------------------------------------------


def test_trials_at_once_are_those_that_wait_for_nothing_shared_by_workers_and_programs() -> None:
    arm = replace(arm_with({}), search=SearchConfig(trials=400), confirm_seeds=8)
    every = [Crowd(100, 100), Crowd(200, 76), Crowd(100, 100), Crowd(8, 8)]
    assert crowds_of(arm, 1) == every
    assert crowds_of(arm, 2) == [Crowd(c.trials, -(-c.at_once // 2)) for c in every]
    among = SearchConfig(trials=400, space={"task.batch_size": ChoicesConfig((16, 32, 64, 128))})
    assert crowds_of(replace(arm, search=among), 1)[1] == Crowd(200, 19)
    assert crowds_of(replace(arm, search=SearchConfig(trials=0), confirm_seeds="auto"), 1) == [Crowd(5, 5)]


def test_a_worker_has_an_arms_trials_for_itself_where_there_are_as_many_searches(tmp_path: Path) -> None:
    arm = arm_at(tmp_path)
    fitters = [Fitter.of([arm] * arms, 16) for arms in (1, 3, 16, 20)]
    assert [fitter.processes for fitter in fitters] == [16, 6, 1, 1]
    searched = replace(arm, search=SearchConfig(trials=4), optimizer=replace(arm.optimizer, lr=None), repeats=4)
    assert Fitter.of([searched], 16).processes == 4
    assert Fitter.of([replace(searched, repeats="auto")], 16).processes == 6


def test_a_number_that_is_given_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measuring(monkeypatch)
    assert fitted(arm_at(tmp_path, lanes=3)) == FittedLanes(3)
    assert fitted(arm_at(tmp_path, seeds=3)).why == "at most 3 of an arm's trials wait for a worker at a time"
    assert fitted(arm_at(tmp_path), begun={arm_at(tmp_path).name: "one"}).lanes == 1
    assert asked == []


def test_what_is_known_is_not_measured_again_unless_more_lanes_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measuring(monkeypatch, FAST, FAST)
    first = fitted(arm_at(tmp_path))
    again = fitted(arm_at(tmp_path, seeds=6), known={first.key: first.times})
    larger = fitted(arm_at(tmp_path, seeds=100), known={first.key: first.times})
    other = replace(arm_at(tmp_path), trainer=TrainerConfig(device="cpu", clip_norm=1.0))
    assert (first.lanes, again.lanes, larger.lanes, asked) == (16, 16, 16, [8, 100])
    assert fit._key(other, kinds.Plain(), CPU) != first.key


def test_the_machines_word_doesnt_change_what_a_sweep_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = arm_at(tmp_path)
    measuring(monkeypatch, SLOW, FAST, ALONE)
    assert fitted(arm, begun={arm.name: "several"}).lanes == 2
    assert fitted(arm, begun={arm.name: "several"}).lanes == 16
    assert fitted(arm, begun={arm.name: "several"}).lanes == 2
    assert fitted(arm, begun={arm.name: "several"}, troubles={arm.name: "it died"}).lanes == 2


def test_what_fails_while_it_is_measured_fails_where_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, ValueError("of the user's own"))
    found = fitted(arm_at(tmp_path))
    assert (found.lanes, found.key) == (1, "")
    assert found.why.endswith(": ValueError: of the user's own)")


class DiesMeasuring(Here):
    """Whoever is asked ends while lanes are measured."""

    def ask(self, request: Any, tell: Callable[[str], None] = lambda what: None) -> Any:
        if isinstance(request, Describe) and not request.fitter.troubles:
            raise DiedError("measuring lanes of a", 1)
        return super().ask(request, tell)


def test_an_arm_that_ends_the_process_then_is_built_without(tmp_path: Path) -> None:
    arm = arm_at(tmp_path)
    (found,) = describe_all(DiesMeasuring(Builds()), [arm], {arm.name: "a"})
    assert (found.fitted.lanes, found.fitted.why) == (1, "not measured (its process ended with exit code 1)")


def test_the_line_has_names_and_figures_and_of_many_arms_a_range() -> None:
    fast = FittedLanes(16, True, "5.1 × one lane; 0.036 ms a trial-step", "k", FAST, 5.1)
    slow = FittedLanes(1, True, "2 would be 0.80 ×", "k", SLOW, 0.8)
    alone = FittedLanes(1, True, "one after the other, because it draws", "k", ALONE)
    quiet = FittedLanes(1, True, "as the sweep began", quiet=True)
    (line,) = fitted_said([("a", fast), ("b", slow), ("c", alone), ("d", alone), ("e", quiet), ("f", FittedLanes(2))])
    assert line == (
        "lanes: a 16 (5.1 × one lane; 0.036 ms a trial-step); b 1 (2 would be 0.80 ×); "
        "c, d 1 (one after the other, because it draws)"
    )
    assert list(fitted_said([("e", quiet)])) == []
    assert list(fitted_said([("e", quiet)], every=True)) == ["lanes: e 1 (as the sweep began)"]
    many = [(str(n), replace(fast, gain=float(n))) for n in range(2, 9)]
    assert list(fitted_said(many)) == ["lanes: 7 arms 16 (2.0 × to 8.0 × one lane)"]


# -- a sweep -----------------------------------------------------------------------------------------------------------


def slots(arm: Arm) -> list[Slot]:
    return Studies.open(arm.storage, arm.sweep).history(arm.name, Phase.CONFIRM, 1).prefix()


def kind(arm: Arm) -> object:
    return (Studies.open(arm.storage, arm.sweep).note(arm.name, CONTENT) or {})["trainer.lanes"]


def lines_of(arms: Sequence[Arm]) -> list[str]:
    said: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Note) and "lanes" in event.text:
            said.append(event.text)

    run_sweep(arms, workers=0, observe=observe)
    return said


def test_a_sweep_with_auto_is_the_one_with_its_number_and_goes_on_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measuring(monkeypatch, FAST, SLOW)
    for name in ("auto", "given"):
        (tmp_path / name).mkdir()
    auto, given = arm_at(tmp_path / "auto"), arm_at(tmp_path / "given", lanes=16)
    assert lines_of([auto]) == ["lanes: adam + cosine 16 (8.0 × one lane; 0.0625 ms a trial-step)"]
    assert lines_of([given]) == []
    assert slots(auto) == slots(given)
    assert kind(auto) == kind(given) == "several"
    tracker = Tracker(auto.tracking_uri, auto.sweep)
    sheet = tracker.arm_sheet(tracker.arm_run(auto.name, "adam + cosine"))
    assert sheet is not None
    assert sheet.facts is not None
    assert (sheet.facts.lanes, sheet.facts.lanes_found) == (16, "auto → 16: 8.0 × one lane; 0.0625 ms a trial-step")
    file = tmp_path / "auto" / "lanes.json"
    file.write_text("{")  # so it is measured again, and one lane is faster by now
    damaged, again = lines_of([arm_at(tmp_path / "auto", seeds=9)])
    assert damaged.startswith(f"{file}: it can't be read (")
    assert again == "lanes: adam + cosine 2 (0.50 × one lane; 2 ms a trial-step)"
    assert (asked, list(LaneMemory.of(auto.storage).times.values())) == ([8, 9], [replace(SLOW, upto=9)])
    lines_of([arm_at(tmp_path / "given", seeds=9, lanes=2)])
    assert slots(auto) == slots(given)
    assert len(slots(auto)) == 9
    with pytest.raises(UserError, match=r"trainer\.lanes was 'several', is 'one'"):
        run_sweep([arm_at(tmp_path / "auto", seeds=9, lanes=1)], workers=0)


@dataclass(frozen=True)
class Noted:
    """Studies of an arm that has trials, or hasn't."""

    content: Mapping[str, Any] | None
    trials: bool = True

    def note(self, arm: str, key: str) -> Mapping[str, Any] | None:
        return self.content

    def has_trials(self, arm: str) -> bool:
        return self.trials


def test_a_search_that_grows_keeps_the_lag_that_it_began_with(tmp_path: Path) -> None:
    arm = replace(arm_at(tmp_path), search=SearchConfig(trials=48))
    noted = {"trainer.lanes": "one", "search.lag": 2}
    held: Any = Noted(noted)
    found = begun(held, [arm])
    assert found == {arm.name: BegunArm("one", 2)}
    others: Any = [Noted(None), Noted({}), Noted(noted, trials=False)]
    assert all(begun(studies, [arm]) == {} for studies in others)
    assert _with_lag(arm, None).search.lag == 3
    assert _with_lag(arm, found[arm.name]).search.lag == 2
    given = replace(arm, search=SearchConfig(trials=48, lag=5))
    assert _with_lag(given, found[arm.name]).search.lag == 5


def test_bad_numbers_are_a_line_and_nothing_is_written(tmp_path: Path) -> None:
    for lanes in (0, -2, "many", 10_001, 2.5):
        with pytest.raises(UserError, match=r"^trainer\.lanes: .* is not allowed; give a whole number ≥ 1"):
            arm_at(tmp_path, lanes=lanes)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_arm_that_is_built_before_its_lanes_are_found_has_one() -> None:
    assert build_arm(arm_with({}, trainer__lanes="auto")).content["trainer.lanes"] == "one"
