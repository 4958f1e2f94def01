"""`optsweep status`: how far a sweep is, who works on it and when they were last heard of, and what went wrong last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from optsweep.cli.doorman import run
from optsweep.launch.leases import LEASE_SECONDS
from optsweep.launch.status import PLANNED, status_of
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
    assert {(sign.trials, sign.alive, round(sign.seconds, -1)) for sign in workers} == {(1, True, 0), (1, False, 60)}
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
