"""`optsweep status`: how far a sweep is, who works on it and when they were last heard of, and what went wrong last."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from optsweep.cli.doorman import run
from optsweep.launch.listing import listed_sweeps
from optsweep.launch.status import FINISHED, PLANNED, PhaseStatus, forgive, status_of, status_table
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.search.process import process_name
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.train.trial import End, Phase

ARM = "task=iris_mlp optimizer=sgd schedule=step"
DEAD = process_name().rpartition("/")[0].rpartition("/")[0] + "/4194303/0"


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A sweep in the middle: one trial done, one failed, one that this process trains and one of a dead worker's."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    studies = Studies.open(url, "s")
    with studies.take_seat([ARM], whole=True) as seat:
        studies.set_note(ARM, PLANNED, [3, 2, 1])
        for number in range(4):
            studies.enqueue(seat, ARM, Phase.SEARCH, Slot(number, {"lr": 0.1}, 0, "model"))
        (done,) = studies.pop(ARM, Phase.SEARCH, process_name(), LEASE_SECONDS, 1)
        studies.tell(done.claim, End.FINISHED, 1.5, 12.0)
        (failed,) = studies.pop(ARM, Phase.SEARCH, process_name(), LEASE_SECONDS, 1)
        studies.fail(failed.claim, "mine.py:3, in forward: ValueError: no")
        studies.pop(ARM, Phase.SEARCH, process_name(), LEASE_SECONDS, 1)
        studies.pop(ARM, Phase.SEARCH, DEAD, LEASE_SECONDS - 60, 1)
        studies.enqueue(seat, ARM, Phase.SEARCH, failed.slot, attempt=1)
        seat.release = lambda: None  # type: ignore[method-assign] # it stays taken
    return url


def test_status_says_who_is_at_work_and_what_went_wrong(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = status_of(storage, "s")
    assert (found.done, found.planned, found.train_seconds) == (1, 5, 12.0)
    planner, *workers = found.signs
    assert (planner.trials, planner.alive) == (None, True)
    assert {(sign.trials, sign.alive, sign.seconds >= 60) for sign in workers} == {(1, True, False), (1, False, True)}
    assert run(["status", "s", "--storage", storage]) == 0
    said = capsys.readouterr().out
    assert "1 of 5 trials done; 12 s of training spent, about 48 s left, by one worker" in said
    assert re.search(r"planner: process \d+ on host \S+, last heard of \d", said)
    assert re.search(r"worker with 1 trial: process 4194303 on host \S+, last heard of 1 min .* ago; it is dead", said)
    assert re.search(
        r"last error \(sgd \+ step · search 1, [-\d]+ [:\d]+\): mine.py:3, in forward: ValueError: no", said
    )


def test_of_a_sweep_that_nobody_runs_it_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    studies = Studies.open(url, "s")
    studies.set_note(ARM, PLANNED, [3, "auto", 1])
    lines = list(status_of(url, "s").lines())
    assert lines == ["0 trials done; 0 s of training spent", "nobody is at work"]


def test_who_is_on_another_host_is_at_work_until_its_lease_is_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    studies = Studies.open(url, "s")
    studies.set_note(ARM, PLANNED, [2, 0, 1])
    with studies.take_seat([ARM], whole=True) as seat:
        studies.enqueue_all(seat, ARM, Phase.SEARCH, [Slot(n, {"lr": 0.1}, n, "model") for n in range(2)])

    def state(lease: float) -> str:
        (work,) = studies.pop(ARM, Phase.SEARCH, "b1946ac9/12/0", lease, 1)
        (held,) = listed_sweeps(url, tmp_path)
        studies.fail(work.claim, "gone", excused=True)
        return held.state

    assert [state(60.0), state(-1.0)] == ["running", "stopped"]


def test_what_was_given_up_and_is_freed_is_finished_no_more(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    studies = Studies.open(url, "s")
    with studies.take_seat([ARM], whole=True) as seat:
        studies.enqueue(seat, ARM, Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"))
    for key in (PLANNED, FINISHED):
        studies.set_note(ARM, key, [1, 0, 1])
    assert forgive(url, "s") == 0
    assert studies.note(ARM, FINISHED) == [1, 0, 1]
    (work,) = studies.pop(ARM, Phase.SEARCH, process_name(), 60.0, 1)
    studies.fail(work.claim, "RuntimeError: no")
    assert forgive(url, "s") == 1
    assert Studies.open(url, "s").note(ARM, FINISHED) is None


def test_status_for_machines(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "s", "--storage", storage, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sweep"], found["done"], found["planned"]) == ("s", 1, 5)
    (arm,) = found["arms"]
    assert (arm["name"], arm["label"], arm["phases"]["search"]["planned"]) == (ARM, "sgd + step", 3)
    assert (arm["phases"]["search"]["running"], arm["phases"]["confirm"]["best"]) == (2, None)
    assert [held["trials"] for held in found["at_work"]] == [None, 1, 1]
    assert found["last_error"]["what"] == "mine.py:3, in forward: ValueError: no"


def test_many_arms_with_long_names_fit_eighty_columns() -> None:
    choices = itertools.product(
        ("iris_mlp", "breast_cancer_mlp"), ("adamw", "soap", "lamb"), ("cosine", "schedule_free")
    )
    arms = [
        f"task={t} optimizer={o} schedule={s} warmup={w} weight_decay=decoupled averaging=ema"
        for t, o, s in choices
        for w in ("linear", "exponential", "cosine")
    ]
    found = [PhaseStatus(a, p, 11, 1, 1, 1, 0, 1, 2.5, planned=16) for a in arms for p in Phase]
    text = io.StringIO()
    Console(file=text, width=80).print(status_table("long", found))
    lines = text.getvalue().splitlines()
    assert len(arms) == 36
    assert sum("11/16    11/16   2.5" in line for line in lines) == 36  # a row each
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("best", "shown"), [(1e-6, "1×10⁻⁶"), (8.21e17, "8.21×10¹⁷"), (0.3583, "0.3583"), (None, "–")])
def test_a_best_value_of_any_size_is_readable(best: float | None, shown: str) -> None:
    found = [PhaseStatus("optimizer=adamw", p, 11, 1, 1, 1, 0, 1, best, planned=16) for p in Phase]
    text = io.StringIO()
    Console(file=text, width=80).print(status_table("s", found))
    assert f" {shown} " in text.getvalue()
