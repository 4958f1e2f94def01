"""A study's name is read as it was written, by whoever looks: an arm's own has values of keys in it, and so bars."""

from __future__ import annotations

from pathlib import Path

import pytest

from optsweep.launch.browse.dashboard import names_of
from optsweep.launch.status import PLANNED, status_of
from optsweep.search.helping import notes
from optsweep.search.observing import Onlooker
from optsweep.search.overview import stored_sweeps
from optsweep.search.process import process_name
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.search.study_names import StudyName
from optsweep.train.trial import End, Phase

ARMS = ("task=iris optimizer=sgd", "optimizer=sgd note=a | b", "note=x | search", "note=x | search | 1", "note=a\nb")
SIZE = [1, 1, 2]


@pytest.mark.parametrize("repeat", [0, 1, 12])
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("arm", ARMS)
def test_it_is_read_as_it_was_written(arm: str, phase: Phase, repeat: int) -> None:
    name = StudyName("my sweep", arm, phase, repeat)
    assert StudyName.read(str(name)) == name


@pytest.mark.parametrize("name", ["somebody else's", "a | b", "a | b | train", "a | b | search | more"])
def test_somebody_else_s_is_none(name: str) -> None:
    assert StudyName.read(name) is None


def test_a_bar_in_an_arm_s_name_hides_it_from_nobody(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    studies = Studies.open(url, "s")
    with studies.take_seat(ARMS, whole=True) as seat:
        for arm in ARMS:
            studies.set_note(arm, PLANNED, SIZE)
            studies.enqueue(seat, arm, Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"), repeat=1)
    assert list(dict.fromkeys(phase.arm for phase in status_of(url, "s").phases)) == list(ARMS)
    noted = {arm: of[PLANNED] for arm, of in notes(studies.engine, "s", (PLANNED,)).items()}
    assert noted == dict.fromkeys(ARMS, SIZE)
    assert {(known.arm, known.repeat) for known in studies.known(ARMS)} == {(arm, 1) for arm in ARMS}
    assert {trial.arm for trial in Onlooker(studies.engine, "s").look().trials} == set(ARMS)
    (stored,) = stored_sweeps(studies.engine, PLANNED)
    assert (stored.name, stored.arms, stored.noted(PLANNED)) == ("s", ARMS, [SIZE] * len(ARMS))
    shown = names_of([str(StudyName("s", arm, Phase.SEARCH)) for arm in ARMS])
    assert len(set(shown.values())) == len(ARMS)


def test_an_arm_whose_name_ends_like_another_s_is_not_that_one(tmp_path: Path) -> None:
    studies = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")
    arms = ("b", "note=a | b", "B")
    with studies.take_seat(arms, whole=True) as seat:
        for seconds, arm in enumerate(arms, 1):
            studies.set_note(arm, "content", arm)
            studies.enqueue(seat, arm, Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"))
            (work,) = studies.pop(arm, Phase.SEARCH, process_name(), 60.0, 1)
            studies.tell(work.claim, End.FINISHED, 0.5, float(seconds))
    assert [(found.note, found.seconds) for found in studies.earlier(["b"], "content")] == [("b", 1.0)]
