"""A sweep while it runs, seen from its studies: arms, workers and the dead, what diverged, failed or jumped."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from living import ADAMW, DEAD, HERE, JUMPS, SGD, WELL, Living
from optsweep.errors import UserError
from optsweep.launch.live import state as live
from optsweep.launch.live.reading import Watching
from optsweep.launch.live.state import Looker, Snapshot, State, jumps
from optsweep.launch.worker import latest
from optsweep.launch.worker.latest import Teller
from optsweep.search.latest import MOST_POINTS, Latest, read_latest
from optsweep.search.observing import Onlooker
from optsweep.search.process import in_words
from optsweep.search.studies import Studies
from optsweep.tracking import names
from optsweep.train.trial import End


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


class Eyes:
    """Who looks on."""

    def __init__(self, living: Living) -> None:
        self.observer, self.looker = Onlooker(living.studies.engine, "s"), Looker("s")

    def look(self) -> Snapshot:
        return self.looker.snapshot(self.observer.look())


def test_a_look_says_how_far_each_arm_is(living: Living) -> None:
    living.tell(living.pop(SGD), value=0.7)
    living.tell(living.pop(SGD), value=0.4)
    living.tell(living.pop(SGD), End.DIVERGED, math.inf)
    living.tell(living.pop(ADAMW), End.PRUNED, 3.0)
    living.studies.fail(living.pop(ADAMW).claim, "mine.py:3: ValueError: no")
    living.pop(ADAMW)
    seen = Eyes(living).look()
    sgd, adamw = seen.arms
    assert (sgd.label, sgd.phase, sgd.done, sgd.total, sgd.running, sgd.diverged, sgd.best) == (
        *("sgd + cosine", "search", 3, 6, 0, 1),
        0.4,
    )
    assert (adamw.done, adamw.running, adamw.pruned, adamw.failed, adamw.best) == (1, 1, 1, 1, None)
    assert (seen.state, seen.done, seen.total) == (State.RUNNING, 4, 12)
    assert seen.seconds_left == pytest.approx(8 * 10.0)  # by one worker
    assert {(i.kind, i.where, i.what) for i in seen.incidents} == {
        ("failed", "adamw + cosine · search 1", "mine.py:3: ValueError: no"),
        ("diverged", "sgd + cosine · search 2", "lr 0.1"),
    }
    assert [(w.process, w.doing, w.state) for w in seen.workers] == [
        (in_words(HERE), "plans", "at work"),
        (in_words(HERE), "trains adamw + cosine · search 2", "at work"),
    ]


def test_a_dead_worker_is_seen_before_the_planner_notices_and_after(living: Living) -> None:
    eyes, work = Eyes(living), living.pop(SGD, DEAD)
    before = eyes.look().workers[-1]
    living.studies.fail(work.claim, "its worker died (SIGKILL)", died=True)
    living.enqueue(SGD, 0, attempt=2)
    after = eyes.look()
    assert (before.process, before.state) == (in_words(DEAD), "dead")
    assert (after.workers[-1].process, after.workers[-1].state) == (in_words(DEAD), "dead")
    assert "died in sgd + cosine · search 0" in after.workers[-1].doing
    assert [(i.kind, i.what) for i in after.incidents] == [("dead", "its worker died (SIGKILL)")]
    assert [i.kind for i in Eyes(living).look().incidents] == ["dead"]  # to who comes later as well


def test_what_happens_now_takes_no_place_of_what_happened(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_INCIDENTS", 1)
    for _ in range(2):
        living.tell(living.pop(SGD), End.DIVERGED, math.inf)
    living.show(living.pop(ADAMW), JUMPS)
    assert [(i.kind, i.where) for i in Eyes(living).look().incidents] == [
        ("jump", "adamw + cosine · search 0"),
        ("diverged", "sgd + cosine · search 1"),
    ]


def test_a_trial_in_training_is_seen_with_its_curve_and_where_that_jumps(living: Living) -> None:
    eyes, first, second = Eyes(living), living.pop(SGD), living.pop(ADAMW)
    living.show(first, WELL)
    living.show(second, JUMPS)
    seen = eyes.look()
    assert [(t.label, tuple(t.val)) for t in seen.training] == [
        ("sgd + cosine · search 0", WELL),
        ("adamw + cosine · search 0", JUMPS),
    ]
    assert [(i.kind, i.where, i.what) for i in seen.incidents] == [
        ("jump", "adamw + cosine · search 0", "on validation from 0.5 to 40 at step 30")
    ]
    living.tell(second)
    assert [t.arm for t in eyes.look().training] == [SGD]


@pytest.mark.parametrize(
    ("points", "found"),
    [
        (WELL, []),
        (JUMPS, [(30, 0.5, 40.0)]),
        (((0, 2.3), (1, 2.29), (2, 2.35)), []),  # noise of a beginning
        (((0, 2.0), (1, 0.1), (2, 1.2)), [(2, 0.1, 1.2)]),
        (((0, 2.0), (1, math.inf), (2, math.inf)), [(1, 2.0, math.inf)]),
        ((), []),
    ],
)
def test_a_curve_jumps_where_it_loses_half_of_what_it_gained(
    points: tuple[tuple[int, float], ...], found: list[tuple[int, float, float]]
) -> None:
    assert jumps(points) == found


def test_what_has_ended_is_read_once(living: Living) -> None:
    living.tell(living.pop(SGD))
    observer = Onlooker(living.studies.engine, "s")
    statements: list[str] = []
    observer.look()
    event.listen(
        living.studies.engine, "before_cursor_execute", lambda c, k, statement, *a: statements.append(statement)
    )
    observer.look()
    assert len(statements) <= 7
    assert not any("trial_user_attributes" in statement for statement in statements)
    living.tell(living.pop(ADAMW), value=0.25)
    assert [trial.value for trial in observer.look().trials if trial.done] == [0.5, 0.25]


def test_a_sweep_is_stopped_without_its_planner_and_trained_with_all_its_notes(living: Living) -> None:
    eyes = Eyes(living)
    living.seat.release()
    stopped = eyes.look()
    living.finish()
    assert (stopped.state, stopped.seconds_left, eyes.look().state) == (State.STOPPED, None, State.TRAINED)


def test_of_an_unknown_sweep_the_nearest_is_named(living: Living) -> None:
    with pytest.raises(UserError, match=r"no sweep is called t \(did you mean s\?\)|there are s$"):
        Watching(living.storage, "sqlite:///none.db", "t")
    with pytest.raises(UserError, match="no sweep is called t any more"):
        Onlooker(living.studies.engine, "t").look()


def test_a_worker_tells_what_is_new_and_forgets_what_has_ended(living: Living) -> None:
    engine, work = living.studies.engine, living.pop(SGD)
    points = [(names.VAL_LOSS, 2.0, 0, 0), (names.LR, 0.1, 0, 0), (names.TRAIN_LOSS, 1.5, 0, 10)]
    teller = Teller(engine, seconds=3600.0)
    teller.add(work.claim, lambda: points)
    teller.beat()
    studies = range(1, 9)
    assert read_latest(engine, studies) == {work.claim.trial_id: Latest([(0, 2.0)], [(10, 1.5)])}
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda c, k, statement, *a: statements.append(statement))
    teller.beat()
    assert statements == []  # nothing is new
    teller.ended(work.claim)
    teller.beat()
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from optsweep_curves")) == 0
    teller.close()


def test_what_a_worker_left_behind_is_forgotten_by_the_next(living: Living) -> None:
    left, training = living.pop(SGD), living.pop(ADAMW)
    for work in (left, training):
        living.show(work, WELL)
    living.tell(left)
    teller = Teller(living.studies.engine, seconds=3600.0)
    teller.beat()
    with living.studies.engine.connect() as connection:
        found = connection.scalars(text("select trial_id from optsweep_curves")).all()
    assert found == [training.claim.trial_id]
    teller.close()


def test_a_word_that_the_storage_refuses_is_said_again(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OperationalError("insert", {}, Exception("database is locked"))

    work, teller = living.pop(SGD), Teller(living.studies.engine, seconds=3600.0)
    teller.add(work.claim, lambda: [(names.VAL_LOSS, 2.0, 0, 0)])
    with monkeypatch.context() as patched:
        patched.setattr(latest, "write_latest", refuse)
        teller.beat()
    teller.beat()
    assert list(read_latest(living.studies.engine, range(1, 9))) == [work.claim.trial_id]
    teller.close()


def test_a_long_curve_is_told_from_its_first_point_to_its_last() -> None:
    told = Latest.of([(step, 1.0) for step in range(1000)], []).val
    assert (told[0][0], told[-1][0]) == (0, 999)
    assert len(told) <= MOST_POINTS + 1
    assert Latest.of([(1, 1.0), (2, 1.0)], []).val == [(1, 1.0), (2, 1.0)]


def test_a_storage_of_before_gets_what_it_lacks(living: Living) -> None:
    with living.studies.engine.begin() as connection:
        connection.execute(text("drop table optsweep_curves"))
    living.studies.engine.dispose()
    assert read_latest(Studies.open(living.storage, "s").engine, [1]) == {}
