"""What a planner and workers read again and again: no more than what may have changed, and always what is there."""

from __future__ import annotations

import random
from pathlib import Path

from sqlalchemy import Engine, event

from optsweep.search.slots import Slot
from optsweep.search.storage import open_storage
from optsweep.search.studies import Studies, Work
from optsweep.search.waiting import MOST_CANDIDATES, candidates
from optsweep.train.trial import End, Phase

ARM, SEARCH = "an arm", Phase.SEARCH


def _slot(number: int) -> Slot:
    return Slot(number, {"lr": 0.1 + number}, 0, "model", prune_above={5: 1.0})


def _do_something(studies: Studies, dice: random.Random, held: list[Work]) -> None:
    """A step of some worker."""
    chance = dice.random()
    if held and chance < 0.4:
        studies.tell(held.pop(dice.randrange(len(held))).claim, End.FINISHED, dice.random(), 1.0, 0.5, [0.5])
    elif held and chance < 0.5:
        studies.tell(held.pop(0).claim, End.DIVERGED if chance < 0.45 else End.PRUNED, 1.0, 2.0)
    elif held and chance < 0.6:
        studies.fail(held.pop().claim, "it broke", died=chance < 0.53, excused=chance > 0.57)
    else:
        held += studies.pop(ARM, SEARCH, "worker", 60.0, 1)


def test_a_history_that_is_looked_at_again_is_as_if_read_for_the_first_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    studies, worker = Studies.open(url, "a"), Studies.open(url, "a")
    dice, held = random.Random(1), list[Work]()
    with studies.take_seat([ARM], whole=True) as seat:
        for number in range(30):
            studies.enqueue(seat, ARM, SEARCH, _slot(number))
        for _ in range(150):
            _do_something(worker, dice, held)
            now = studies.history(ARM, SEARCH, 1)
            for number, slot in now.lost.items():
                studies.enqueue(seat, ARM, SEARCH, _slot(number), now.attempts.get(number, 0) + 1)
                assert slot.number == number
            again, fresh = studies.history(ARM, SEARCH, 1), Studies.open(url, "a").history(ARM, SEARCH, 1)
            assert (again.slots, again.attempts, again.lost) == (fresh.slots, fresh.attempts, fresh.lost)
            assert (again.waiting, again.earlier, again.errors) == (fresh.waiting, fresh.earlier, fresh.errors)
            assert again.train_seconds == fresh.train_seconds
            assert (again.done, again.num_diverged, again.best) == (fresh.done, fresh.num_diverged, fresh.best)
            assert again.prefix() == [again.slots[number] for number in range(len(again.prefix()))]
            assert again.done == {number for number, slot in again.slots.items() if slot.done}
            assert [running.slot for running in again.running] == [running.slot for running in fresh.running]
        told = [trial for trial in studies.known([ARM]) if trial.told]
        assert len(told) > 20
        studies.run_again(seat, ARM, told[:3], "its curves are gone")
        assert studies.history(ARM, SEARCH, 1).slots == Studies.open(url, "a").history(ARM, SEARCH, 1).slots


def test_what_has_ended_is_not_asked_for_again(tmp_path: Path) -> None:
    held = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    studies = Studies(held, "a")
    with studies.take_seat([ARM], whole=True) as seat:
        for number in range(20):
            studies.enqueue(seat, ARM, SEARCH, _slot(number))
            (work,) = studies.pop(ARM, SEARCH, "worker", 60.0, 1)
            studies.tell(work.claim, End.FINISHED, 0.5, 1.0)
        studies.history(ARM, SEARCH, 1)
        studies.enqueue(seat, ARM, SEARCH, _slot(20))
        asked = _statements(held.engine)
        assert len(studies.history(ARM, SEARCH, 1).slots) == 21
        (first,) = [values for text, values in asked if "trials.state" in text and "trial_user_attributes" not in text]
        assert 21 in first, "from the first that hasn't ended on"


def _statements(engine: Engine) -> list[tuple[str, tuple[object, ...]]]:
    found: list[tuple[str, tuple[object, ...]]] = []

    def heard(connection: object, cursor: object, text: str, values: tuple[object, ...], *rest: object) -> None:
        found.append((text, tuple(values)))

    event.listen(engine, "before_cursor_execute", heard)
    return found


def test_a_worker_that_wants_one_trial_looks_at_the_oldest_and_then_at_others_of_them(tmp_path: Path) -> None:
    held = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    studies = Studies(held, "a")
    with studies.take_seat([ARM], whole=True) as seat:
        for number in range(MOST_CANDIDATES + 6):
            studies.enqueue(seat, ARM, SEARCH, _slot(number))
    study = studies.ensure(ARM, SEARCH)
    seen = [waiting.slot.number for _, waiting in candidates(held.engine, study, {}, only_one=True)]
    assert seen[0] == 0
    assert sorted(seen) == list(range(MOST_CANDIDATES))
    assert seen != sorted(seen), "or all who were beaten would be beaten again"
    every = [waiting.slot.number for _, waiting in candidates(held.engine, study, {}, only_one=False)]
    assert every == list(range(MOST_CANDIDATES + 6))


def test_a_worker_looks_from_the_oldest_on_that_waited_before(tmp_path: Path) -> None:
    held = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    studies = Studies(held, "a")
    with studies.take_seat([ARM], whole=True) as seat:
        studies.enqueue_all(seat, ARM, SEARCH, [_slot(number) for number in range(6)])
    assert len(studies.pop(ARM, SEARCH, "worker", 60.0, 3)) == 3
    (fourth,) = studies.pop(ARM, SEARCH, "worker", 60.0, 1)
    asked = _statements(held.engine)
    (fifth,) = studies.pop(ARM, SEARCH, "worker", 60.0, 1)
    assert (fourth.slot.number, fifth.slot.number) == (3, 4)
    assert fourth.claim.trial_id in asked[0][1], "not from the first trial of the study on"
