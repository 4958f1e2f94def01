"""A small sweep on servers: how far it is, and what it has left in its stores."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from optsweep.launch.status import repeats_of, status_of
from optsweep.search.space import Value
from optsweep.search.studies import WENT_ON, Studies
from optsweep.tracking import names, store
from optsweep.tracking.contents import histories
from optsweep.train.trial import Phase
from patience import PATIENCE_SECONDS

SWEEP = [
    *("optimizer=momentum,soap", "schedule=cosine,schedule_free", "weight_decay=decoupled", "task=digits_mlp"),
    *("search.trials=6", "search.over=[lr,weight_decay]", "confirm.seeds=2", "trainer.steps=300", "task.width=16"),
    *("trainer.rungs=2", "trainer.lanes=1", "hydra.launcher.report=false"),
]
NUM_TRIALS = 4 * (6 + 2)
LONG = [
    *("optimizer=momentum,soap", "schedule=cosine", "weight_decay=decoupled", "task=digits_mlp", "task.width=16"),
    *("search.trials=4", "search.over=[lr,weight_decay]", "confirm.seeds=2", "trainer.steps=3000", "trainer.rungs=2"),
    *("trainer.lanes=1", "hydra.launcher.report=false"),
]
"""Trials of a second or more, so that workers who come later, or are to be lost in one, are in time."""

NUM_LONG_TRIALS = 2 * (4 + 2)
OFTEN = "trainer.checkpoint_seconds=0.05"

Place = tuple[str, str, int]


@dataclass(frozen=True)
class Kept:
    """What a sweep's stores have of its slots: what was decided and found, and each slot's one curve."""

    numbers: dict[Place, tuple[dict[str, Value], int, float | None]]
    curves: dict[Place, Sequence[tuple[int, float]]]


def kept(storage: str, tracking_uri: str, sweep: str) -> Kept:
    """Of a sweep that has ended, in which each slot has one result, and each result one run that isn't set aside."""
    studies = Studies.open(storage, sweep)
    numbers, told = {}, Counter[Place]()
    for arm in repeats_of(studies):
        for phase in Phase:
            for number, slot in studies.history(arm, phase, 1).slots.items():
                numbers[arm, phase.value, number] = (dict(slot.params), slot.seed, slot.value)
    for trial in studies.known([arm for arm, *_ in numbers]):
        told[trial.arm, trial.phase.value, trial.slot] += trial.told
    assert set(told.values()) == {1}, "none lost, none twice"
    client = store.client(tracking_uri)
    found = store.runs(client, store.find_experiment(client, sweep), f"tags.`{names.KIND}` = 'trial'")
    ended = [run for run in found if run.info.status == "FINISHED" and run.data.tags[names.PHASE] != names.SET_ASIDE]
    points = histories(client, {run.info.run_id: [names.VAL_LOSS] for run in ended})
    curves: dict[Place, Sequence[tuple[int, float]]] = {}
    for run in ended:
        place = run.data.tags[names.ARM], run.data.tags[names.PHASE], int(run.data.params["slot"])
        assert place not in curves, f"two runs of {place}"
        curves[place] = list(points[run.info.run_id, names.VAL_LOSS])
    assert curves.keys() == numbers.keys()
    return Kept(numbers, curves)


def wait_for(done: Callable[[], object], process: Popen[str] | None = None) -> None:
    """Until something is so, while a process runs, if one is given; what ends it may be what makes it so."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if process is not None and process.poll() is not None:
            assert done(), process.communicate()[0]
            return
        assert time.monotonic() < until
        time.sleep(0.2)


def num_done(storage: str, sweep: str) -> int:
    """Trials with a result; none before there is a sweep."""
    try:
        return status_of(storage, sweep).done
    except Exception:  # nothing is there yet, or just away
        return 0


def ended(process: Popen[str]) -> str:
    """What a process has said, which ends well."""
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    return said


def saved(checkpoints: Path) -> set[str]:
    """The ids of trials that have a checkpoint in a folder, or below it."""
    try:
        return {path.stem for path in checkpoints.rglob("*.pt")}
    except FileNotFoundError:  # the folder, with its last file
        return set()


def went_on(storage: str, sweep: str, lost: str) -> Sequence[int]:
    """The steps from which later attempts at a lost trial went on to a result."""
    studies = Studies.open(storage, sweep)
    arms = {name.split(" | ")[1] for name in (s.study_name for s in studies.storage.get_all_studies())}
    trials = [trial for arm in arms for phase in Phase for trial in studies.trials(arm, phase)]
    return [t.user_attrs[WENT_ON] for t in trials if WENT_ON in t.user_attrs and lost in t.user_attrs["earlier"]]
