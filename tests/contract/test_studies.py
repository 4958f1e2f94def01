"""The storage that planner and workers share: every trial is popped once, given up trials come back."""

from __future__ import annotations

import multiprocessing as mp
from pathlib import Path

import pytest

from optsweep.search.slots import Slot
from optsweep.search.studies import LeaseLostError, Studies, history
from optsweep.train.trial import End, Phase

COUNT = 40


def pop_all(url: str, name: str) -> list[int]:
    """Pop until nothing waits, as a worker would."""
    studies = Studies.open(url, "s")
    popped: list[int] = []
    while works := studies.pop("arm", Phase.SEARCH, name, 60.0, 1):
        popped += [work.slot.number for work in works]
    return popped


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def test_every_waiting_trial_is_popped_by_one_of_several_processes(url: str) -> None:
    studies = Studies.open(url, "s")
    for number in range(COUNT):
        studies.enqueue("arm", Phase.SEARCH, Slot(number, {"lr": 1e-3}, 0, "model"))
    with mp.get_context("spawn").Pool(3) as pool:
        popped = pool.starmap(pop_all, [(url, name) for name in "abc"])
    assert sorted(number for numbers in popped for number in numbers) == list(range(COUNT))


def test_a_crash_counts_and_an_excused_stop_does_not(url: str) -> None:
    studies = Studies.open(url, "s")
    slot = Slot(0, {"lr": 1e-3}, 0, "model")
    for excused in (True, True, False):
        studies.enqueue("arm", Phase.SEARCH, slot)
        (work,) = studies.pop("arm", Phase.SEARCH, "a", 60.0, 1)
        assert studies.fail(work.trial_id, "why", excused=excused)
    found = history(studies.trials("arm", Phase.SEARCH), retries=1)
    assert found.attempts == {0: 1}
    assert found.lost.keys() == {0}  # to be enqueued again
    assert not found.slots
    found = history(studies.trials("arm", Phase.SEARCH), retries=0)
    assert found.slots[0].crashed
    assert found.errors == {0: "why"}


def test_a_zombie_s_result_is_refused(url: str) -> None:
    studies = Studies.open(url, "s")
    studies.enqueue("arm", Phase.SEARCH, Slot(0, {"lr": 1e-3}, 0, "model"))
    (work,) = studies.pop("arm", Phase.SEARCH, "zombie", 60.0, 1)
    studies.fail(work.trial_id, "its worker was lost")
    with pytest.raises(LeaseLostError):
        studies.tell(work.trial_id, End.FINISHED, 1.0, 1.0)
    with pytest.raises(LeaseLostError):
        studies.renew(work.trial_id, "zombie", 60.0, 10)
    assert not history(studies.trials("arm", Phase.SEARCH), retries=1).slots
