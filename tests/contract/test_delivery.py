"""The spool's way into a real MLflow store, which a fake one may get wrong; and what `sync` and pages do of it."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run, ViewType

from optsweep import api
from optsweep.cli.doorman import run
from optsweep.tracking import names, store
from optsweep.tracking.postman import Postman, deliver
from optsweep.tracking.spool import BEGUN, Spool, SpoolFile
from optsweep.tracking.whole import WholeRun
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Outcome, Phase
from spooling import OUTCOME, StillCourier, finish, rung, write
from synthetic_store import fill

CURVE = [(10, 1.0), (20, 2.0), (30, 3.0)]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, which take seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    store.check(f"sqlite:///{folder}/mlflow.db")
    return folder


@pytest.fixture
def held(tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(empty, tmp_path / "mlruns")
    # absolute, since MLflow keeps an engine for each address as it is written
    return Spool.of(f"sqlite:///{tmp_path}/mlruns/mlflow.db", f"sqlite:///{tmp_path}/mlruns/optuna.db", "s")


def found(held: Spool) -> Sequence[Run]:
    tracker = Tracker(held.tracking_uri, held.sweep)
    return store.runs(tracker.client, tracker.experiment_id, f"tags.`{names.KIND}` = 'trial'")


def curve(held: Spool, run: Run, key: str = names.VAL_LOSS) -> list[tuple[int, float]]:
    history = store.client(held.tracking_uri).get_metric_history(run.info.run_id, key)
    return [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)]


def left_by_a_dead_worker(held: Spool, trial: str, *, ended: bool = True, outcome: Outcome = OUTCOME) -> None:
    courier = StillCourier(held, [])
    log = write(courier.open(trial), trial)
    if ended:
        log.end(outcome)
    for letter in courier.letters:
        letter.file.close()


def test_what_is_delivered_again_from_its_beginning_is_there_once(held: Spool) -> None:
    """Its deliverer died before it took the file away."""
    left_by_a_dead_worker(held, "a")
    path = held.path("a")
    assert path is not None
    kept = path.read_bytes()
    for _ in range(2):
        assert deliver(held) == 1
        (one,) = found(held)
        assert curve(held, one) == CURVE
        assert one.info.status == "FINISHED"
        assert (one.data.tags[names.STATUS], one.data.params["lr"]) == ("finished", "0.001")
        held.folder.mkdir(parents=True, exist_ok=True)
        (held.folder / f"a{BEGUN}").write_bytes(kept)


def test_a_trial_whose_arm_has_no_run_any_more_is_one_of_its_arm_s(held: Spool) -> None:
    """Its median curves were made without it."""
    left_by_a_dead_worker(held, "a")
    deliver(held)
    assert len(Tracker(held.tracking_uri, held.sweep).trials("arm")) == 1


def test_a_run_that_is_resumed_is_open_again_and_goes_on(held: Spool) -> None:
    left_by_a_dead_worker(held, "a", ended=False)
    assert deliver(held) == 1
    assert [(run.data.tags[names.STATUS], run.info.status) for run in found(held)] == [("crashed", "FAILED")]
    courier = StillCourier(held, [])
    log = write(courier.open("b"), "b", steps=(30,), resume="a", again=True)
    courier.go()
    assert [(run.data.tags[names.STATUS], run.info.status) for run in found(held)] == [("running", "RUNNING")]
    log.rung(rung(40))
    finish(log)
    courier.go()
    (one,) = found(held)
    assert curve(held, one) == [*CURVE, (40, 4.0)]
    assert [one.data.tags[key] for key in (names.TRIAL, names.STATUS, names.ERROR)] == ["b", "finished", ""]


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_what_was_deleted_meanwhile_is_made_anew(held: Spool, what: str) -> None:
    courier = StillCourier(held, [])
    log = write(courier.open("a"), "a", steps=(10, 20))
    courier.go()
    (before,) = found(held)
    client = store.client(held.tracking_uri)
    if what == "run":
        client.delete_run(before.info.run_id)
    else:
        client.delete_experiment(before.info.experiment_id)
    log.rung(rung(30))
    finish(log)
    assert courier.once()
    assert held.trials() == []
    (one,) = [run for run in found(held) if run.data.tags[names.STATUS] == "finished"]
    assert curve(held, one) == CURVE
    everything = client.search_runs([one.info.experiment_id], run_view_type=ViewType.ALL)
    assert len(everything) == (3 if what == "run" else 2)  # the arm's too


def test_an_earlier_attempt_at_the_slot_counts_as_crashed_and_other_slots_do_not(held: Spool) -> None:
    left_by_a_dead_worker(held, "a")
    deliver(held)
    tracker = Tracker(held.tracking_uri, held.sweep)
    parent = tracker.arm_run("arm", "arm")
    for one in tracker.client.search_runs([tracker.experiment_id], f"tags.`{names.TRIAL}` = 'a'"):
        tracker.set_tags(one.info.run_id, {names.PARENT: parent})
    courier = StillCourier(held, [])
    finish(write(courier.open("b"), "b", again=True))
    courier.go()
    assert {one.data.tags[names.TRIAL]: one.data.tags[names.STATUS] for one in tracker.trials("arm")} == {
        "a": "crashed",
        "b": "finished",
    }
    assert tracker.trials("arm", Phase.SEARCH, 1) == []


def test_a_page_states_what_waits_and_sync_says_how_much(held: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    fill(held.tracking_uri, "s", trials=2, seeds=2)
    before = len(found(held))
    left_by_a_dead_worker(held, "a")
    api.report(held.tracking_uri, ["s"])
    assert len(found(held)) == before + 1
    left_by_a_dead_worker(held, "b")
    assert run(["sync", "s", "--tracking-uri", held.tracking_uri, "--storage", held.storage]) == 0
    said = ["sweep s: 1 trial was delivered", "its own command goes on with what is left to train"]
    assert capsys.readouterr().out.splitlines() == said
    assert len(found(held)) == before + 2


def test_sync_of_a_store_that_is_away_or_of_no_sweep_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["sync", "mine"]) == 2
    assert capsys.readouterr().err.startswith("optsweep: tracking.uri: there is no store at mlruns/mlflow.db")
    assert run(["sync", "mine", "--tracking-uri", "http://127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("optsweep: tracking.uri: no MLflow server answers at http://127.0.0.1:1")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_nothing_that_waits_is_no_trouble(tmp_path: Path) -> None:
    assert deliver(Spool.of("http://127.0.0.1:1", f"sqlite:///{tmp_path}/o.db", "s")) == 0
    assert not list(tmp_path.iterdir())


def test_pauses_between_tries_draw_from_no_generator_that_trials_set() -> None:
    """One that a thread beside drew from made a model pass for random, which trained by another path then."""
    from mlflow.utils.name_utils import _generate_random_name
    from mlflow.utils.request_utils import JitteredRetry

    store.preload()
    before = random.getstate()
    retry = JitteredRetry(total=5, backoff_factor=1.0, backoff_jitter=1.0)
    for _ in range(3):
        retry = retry.increment("GET", "/", error=ConnectionError())
    assert retry.get_backoff_time() > 0.0
    assert _generate_random_name()
    assert random.getstate() == before


def test_what_has_ended_is_delivered_together_and_the_rest_is_left(
    held: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trial in "abc":
        left_by_a_dead_worker(held, trial, outcome=replace(OUTCOME, artifacts={}))
    left_by_a_dead_worker(held, "file")
    left_by_a_dead_worker(held, "open", ended=False)
    made: list[int] = []
    add = Tracker.add_whole

    def counted(self: Tracker, runs: Sequence[WholeRun]) -> list[str]:
        made.append(len(runs))
        return add(self, runs)

    monkeypatch.setattr(Tracker, "add_whole", counted)
    assert Postman(held).deliver_together(held.trials()) == ["file", "open"]
    assert made == [3]
    assert held.trials() == ["file", "open"]
    assert {curve(held, run) == CURVE for run in found(held)} == {True}


def test_trials_that_were_refused_together_are_delivered_one_by_one(
    held: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trial in "ab":
        left_by_a_dead_worker(held, trial, outcome=replace(OUTCOME, artifacts={}))
    add = Tracker.add_whole

    def not_together(self: Tracker, runs: Sequence[WholeRun]) -> list[str]:
        made = add(self, runs)
        if len(runs) > 1:
            raise RuntimeError("it may have got through")
        return made

    monkeypatch.setattr(Tracker, "add_whole", not_together)
    assert deliver(held) == 2
    assert len(found(held)) == 2, "each is looked for before it is made again"


def cut_off(call: Callable[..., Any], number: int, *, after: bool = False) -> Callable[..., Any]:
    """The same, but the process dies with one of its calls."""
    numbers = itertools.count()

    def called(*arguments: Any) -> Any:
        dies = next(numbers) == number
        found = call(*arguments) if after or not dies else None
        if dies:
            raise KeyboardInterrupt
        return found

    return called


@pytest.mark.parametrize("when", ["marks", "runs", "removals"])
def test_a_process_that_dies_amid_many_loses_and_doubles_none(
    held: Spool, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for trial in "abc":
        left_by_a_dead_worker(held, trial, outcome=replace(OUTCOME, artifacts={}))
    dying: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "marks": (SpoolFile, "begin", cut_off(SpoolFile.begin, 1)),
        "runs": (Tracker, "add_whole", cut_off(Tracker.add_whole, 0, after=True)),
        "removals": (SpoolFile, "remove", cut_off(SpoolFile.remove, 1)),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*dying[when])
        with pytest.raises(KeyboardInterrupt):
            Postman(held).deliver_together(held.trials())
    deliver(held)
    assert held.trials() == []
    assert sorted(run.data.tags[names.TRIAL] for run in found(held)) == ["a", "b", "c"]
    assert all(curve(held, run) == CURVE for run in found(held))
