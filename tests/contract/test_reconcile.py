"""Studies and MLflow's runs are held against each other: what is missing is run again, what is foreign is set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from optsweep.address import TRACKING_KEY, read_address
from optsweep.inference.repeats import seed_index
from optsweep.launch.reconcile import Found, reconcile
from optsweep.search.seats import Seat
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies, Work
from optsweep.tracking import names, store
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.heads import run_heads
from optsweep.tracking.names import Status
from optsweep.tracking.reader import TrialRecord, load_sweep
from optsweep.tracking.schema import ArmSheet, Chosen, SweepSheet, Timing, TrialHead
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase

ARM, OTHER = "an arm", "another"
SEARCH, CONFIRM = Phase.SEARCH, Phase.CONFIRM


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making its tables takes seconds."""
    found = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    store.check(found)
    return found


@dataclass
class Stores:
    """Both stores of a sweep with one arm, and what planner and worker do with them."""

    studies: Studies
    seat: Seat
    tracker: Tracker
    logs: dict[str, TrialLog] = field(default_factory=dict)
    sinks: dict[str, AtOnce] = field(default_factory=dict)

    def begin(self, slot: int, phase: Phase = CONFIRM, arm: str = ARM) -> Work:
        """A worker takes a trial, and opens its run."""
        of = Slot(slot, {"lr": 0.1}, slot if phase is CONFIRM else 0, "chosen")
        self.studies.enqueue(self.seat, arm, phase, of)
        (work,) = self.studies.pop(arm, phase, "worker", 60.0, 1)
        self.log(work)
        return work

    def log(self, work: Work) -> None:
        """Open a trial's run."""
        slot = work.slot
        head = TrialHead(work.arm, work.phase, slot.number, slot.seed, "chosen", {"lr": 0.1}, id=work.id)
        parent, name = self.tracker.arm_run(work.arm, work.arm), f"{work.arm} · {work.phase.value} {slot.number}"
        self.sinks[work.id] = AtOnce(self.tracker)
        self.logs[work.id] = TrialLog(self.sinks[work.id], parent, name, head, "accuracy")
        self.logs[work.id].write()

    def close(self, work: Work, loss: float = 1.0) -> None:
        """The run is closed; the study isn't told yet."""
        self.logs[work.id].end(Outcome(End.FINISHED, 10, loss, 0.5, loss, 0.5, 1.0, 8, ""))

    def tell(self, work: Work, loss: float = 1.0) -> None:
        self.studies.tell(work.claim, End.FINISHED, loss, 1.0, loss)

    def train(self, slot: int, phase: Phase = CONFIRM, loss: float = 1.0) -> Work:
        work = self.begin(slot, phase)
        self.close(work, loss)
        self.tell(work, loss)
        return work

    def run_id(self, work: Work) -> str:
        return self.sinks[work.id].run_id

    def tags(self, work: Work) -> dict[str, str]:
        tags: dict[str, str] = self.tracker.client.get_run(self.run_id(work)).data.tags
        return tags

    def status(self, work: Work) -> tuple[str, str]:
        """Of its run: to MLflow, and to us."""
        return self.tracker.client.get_run(self.run_id(work)).info.status, self.tags(work)[names.STATUS]

    def look(self, undelivered: Sequence[str] = ()) -> Found:
        return reconcile(self.studies, self.seat, self.tracker, [ARM], lambda: undelivered)

    def states(self, phase: Phase = CONFIRM) -> list[TrialState]:
        return [trial.state for trial in self.studies.trials(ARM, phase)]

    def reported(self) -> tuple[TrialRecord, ...]:
        """The trials that the report counts."""
        loaded = load_sweep(self.tracker.client, self.tracker.sweep, self.tracker.experiment_id)
        return loaded.arms[0].trials if loaded.arms else ()


@pytest.fixture
def stores(uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Stores:
    name = str(request.node.name)
    studies, tracker = Studies.open(f"sqlite:///{tmp_path}/optuna.db", name), Tracker(uri, name)
    tracker.write_sheet(tracker.sweep_run(), SweepSheet(reported="results"))
    tracker.write_sheet(tracker.arm_run(ARM, ARM), ArmSheet(ARM, ARM))
    return Stores(studies, studies.take_seat([ARM, OTHER], whole=True), tracker)


def reported(stores: Stores) -> str:
    sheet = stores.tracker.sweep_sheet(stores.tracker.sweep_run())
    assert sheet is not None
    return sheet.reported


def sentences(found: Found) -> list[str]:
    return list(found.sentences("mlflow.db", "optuna.db"))


def test_nothing_is_done_where_both_know_the_same(stores: Stores) -> None:
    for slot in range(2):
        stores.train(slot)
    stores.train(0, SEARCH)
    running = stores.begin(2)
    assert not stores.look()
    assert stores.status(running) == ("RUNNING", Status.RUNNING)
    assert reported(stores) == "results"


def test_trials_whose_curves_are_gone_are_run_again(uri: str, stores: Stores) -> None:
    """As after mlflow.db was deleted: nothing of the sweep is there."""
    for slot in range(2):
        stores.train(slot, loss=1.0)
    stores.train(0, SEARCH)
    stores.studies.set_note(ARM, "finished", [0, 2, 1])
    empty = Stores(stores.studies, stores.seat, Tracker(uri, "deleted"))
    assert sentences(empty.look()) == ["3 trials have no curves in mlflow.db any more: they are run again"]
    assert empty.states() == [TrialState.FAIL] * 2
    found = empty.studies.history(ARM, CONFIRM, 0)
    assert found.lost.keys() == {0, 1}
    assert not found.attempts, "no fault of theirs"
    assert found.train_seconds == 0.0
    for trial in empty.studies.trials(ARM, CONFIRM):
        assert trial.values is None
        assert not {"end", "test_loss", "test_blocks"} & trial.user_attrs.keys()
    assert empty.studies.note(ARM, "finished") is None
    assert not empty.look(), "once is enough"
    empty.train(0)
    empty.train(1)
    assert not empty.look()
    assert [trial.slot for trial in empty.studies.known([ARM]) if trial.told] == [0, 1]


def test_trials_that_are_on_their_way_are_not_run_again(uri: str, stores: Stores) -> None:
    works = [stores.train(slot) for slot in range(2)]
    empty = Stores(stores.studies, stores.seat, Tracker(uri, "on their way"))
    found = empty.look(undelivered=[works[0].id])
    assert [trial.id for trial in found.again] == [works[1].id]
    assert empty.states() == [TrialState.COMPLETE, TrialState.FAIL]


def test_a_superseded_trial_without_curves_stays(uri: str, stores: Stores) -> None:
    for slot in range(2):
        stores.train(slot)
    stores.studies.set_note(ARM, "superseded", [0])
    empty = Stores(stores.studies, stores.seat, Tracker(uri, "superseded"))
    assert [trial.slot for trial in empty.look().again] == [1]


def test_runs_that_somebody_deleted_are_restored(stores: Stores) -> None:
    work = stores.train(0)
    for run in (stores.run_id(work), stores.tracker.arm_run(ARM, ARM), stores.tracker.sweep_run()):
        stores.tracker.client.delete_run(run)
    stores.tracker = Tracker(stores.tracker.uri, stores.tracker.sweep)
    address = read_address(TRACKING_KEY, stores.tracker.uri)
    asked = [address, replace(address, is_server=True)]
    ways = [run_heads(stores.tracker.client, way, stores.tracker.experiment_id) for way in asked]
    assert ways[0] == ways[1], "a server is asked in another way"
    assert sentences(stores.look()) == ["3 runs that somebody had deleted in mlflow.db are restored"]
    assert [trial.run_id for trial in stores.reported()] == [stores.run_id(work)]
    assert reported(stores) == ""


def test_what_other_trials_left_is_set_aside_and_the_arm_begins_anew(stores: Stores, tmp_path: Path) -> None:
    """As after optuna.db was deleted."""
    for slot in range(2):
        stores.train(slot)
    open_one = stores.begin(2)
    parent = stores.tracker.arm_run(ARM, ARM)
    stores.tracker.note_timing(parent, Timing(1.0, 1.0, 1.0, 5))
    other = Studies.open(f"sqlite:///{tmp_path}/new.db", stores.studies.sweep)
    stores.studies, stores.seat = other, other.take_seat([ARM], whole=True)
    assert sentences(stores.look()) == [
        "4 runs in mlflow.db are of no result in optuna.db: set aside",
        "what mlflow.db said of 1 arm was of other trials: it is written anew",
    ]
    assert stores.status(open_one)[0] == "FAILED"
    assert reported(stores) == ""
    assert stores.reported() == ()
    assert stores.tracker.arm_run(ARM, ARM) != parent
    assert Tracker(stores.tracker.uri, stores.tracker.sweep).arm_run(ARM, ARM) == stores.tracker.arm_run(ARM, ARM)
    fresh = stores.train(0, loss=2.0)
    assert [trial.run_id for trial in stores.reported()] == [stores.run_id(fresh)]
    assert not stores.look()


def test_an_arm_that_this_call_does_not_run_is_left_alone(stores: Stores) -> None:
    stores.begin(0, arm=OTHER)
    stores.studies.storage.delete_study(stores.studies.ensure(OTHER, CONFIRM))
    assert not stores.look()


def test_a_slot_whose_result_was_never_told_has_one_current_run(stores: Stores) -> None:
    """Its worker is killed between closing the run and telling the study."""
    untold = stores.begin(0)
    stores.close(untold, 5.0)
    stores.studies.fail(untold.claim, "its worker died (SIGKILL)", died=True)
    again = stores.train(0, loss=1.0)
    assert [trial.run_id for trial in stores.reported()] == [stores.run_id(again)], "the report counts it once already"
    assert sentences(stores.look()) == ["1 run in mlflow.db is of no result in optuna.db: set aside"]
    assert [run.info.run_id for run in stores.tracker.trials(ARM, CONFIRM)] == [stores.run_id(again)]
    assert not stores.look()


def test_runs_that_were_left_open_are_closed(stores: Stores) -> None:
    cut_off = stores.begin(0)
    stores.studies.fail(cut_off.claim, "its worker died (SIGKILL)", died=True)
    head = TrialHead("sgd", SEARCH, 3, seed_index(1, 3), "model", {"lr": 1e-3}, label="sgd + cosine")
    bare = ("sgd · repeat 1, confirm 3", head.run_name)  # as they were named before, and now
    made = [stores.tracker.client.create_run(stores.tracker.experiment_id, run_name=name) for name in (*bare, "mine")]
    assert sentences(stores.look()) == ["3 runs of trials that were cut off are closed as crashed"]
    assert stores.status(cut_off) == ("FAILED", Status.CRASHED)
    ended = [stores.tracker.client.get_run(run.info.run_id).info.status for run in made]
    assert ended == ["FAILED", "FAILED", "RUNNING"]


def test_a_trial_with_two_whole_runs_keeps_the_last(stores: Stores) -> None:
    work = stores.train(0)
    first = stores.run_id(work)
    stores.log(work)
    stores.close(work)
    assert [run.run_id for run in stores.look().aside] == [first]


def test_a_run_that_does_not_end_as_was_told_is_no_proof(stores: Stores) -> None:
    """As in a copy of mlflow.db from before the trial ended."""
    work = stores.begin(0)
    stores.tell(work)
    found = stores.look()
    assert [trial.id for trial in found.again] == [work.id]
    assert stores.status(work) == ("FAILED", Status.CRASHED)


def test_what_was_chosen_by_trials_without_a_result_is_taken_back(stores: Stores) -> None:
    work = stores.train(0, SEARCH)
    stores.train(1, SEARCH)
    parent = stores.tracker.arm_run(ARM, ARM)
    kept = Chosen({"lr": 0.1}, 1.0, 1, {}, {}, (1,))
    stores.tracker.note_chosen(parent, kept)
    assert not stores.look()
    stores.tracker.note_chosen(parent, Chosen({"lr": 0.1}, 1.0, 1, {}, {}, (0, 1)))
    stores.tracker.set_tags(stores.run_id(work), {names.STATUS: Status.PRUNED})
    assert stores.look().arms == {ARM}
    sheet = stores.tracker.arm_sheet(parent)
    assert sheet is not None
    assert sheet.chosen is None


def test_repeats_that_this_call_does_not_ask_for_are_known(stores: Stores) -> None:
    of = Slot(0, {"lr": 0.1}, seed_index(2, 0), "chosen")
    stores.studies.enqueue(stores.seat, ARM, CONFIRM, of, repeat=2)
    (work,) = stores.studies.pop(ARM, CONFIRM, "worker", 60.0, 1, repeat=2)
    stores.log(work)
    stores.close(work)
    stores.tell(work)
    assert not stores.look()


def test_trials_to_be_run_again_are_found_until_they_are(
    uri: str, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store fails in between, and whoever waits for it looks again: a sweep without curves isn't at its end."""
    stores.train(0)
    empty = Stores(stores.studies, stores.seat, Tracker(uri, "emptied"))
    empty.tracker.write_sheet(empty.tracker.sweep_run(), SweepSheet())

    def away(run_id: str, results: str) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(empty.tracker, "note_report", away)
        with pytest.raises(ConnectionError):
            empty.look()
    assert len(empty.look().again) == 1
    assert empty.states() == [TrialState.FAIL]
