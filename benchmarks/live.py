"""The live page of 36 arms and 1,000 trials: what its server takes of a core, and what a worker's word costs.

A trial ends every second, and seven in training tell their curves every two; the store of the runs is made up
(tests/synthetic_store.py), and what writes isn't counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from benchmarks.side_by_side import Figure

from optsweep.launch.live.reading import LOOK_SECONDS, Watching
from optsweep.launch.live.server import Feed
from optsweep.launch.status import PLANNED
from optsweep.launch.worker.latest import TELL_SECONDS
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.search.latest import Latest, write_latest
from optsweep.search.process import process_name
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies, Work
from optsweep.tracking import store
from optsweep.train.trial import End, Phase
from synthetic_store import arm, fill

OPTIMIZERS = ("adamw", "soap", "lion", "muon", "lamb", "sgd", "adagrad", "rmsprop", "adam")
SCHEDULES = ("cosine", "linear", "wsd", "schedule_free")
SECONDS = 24
IN_TRAINING = 7
WORDS = 50


def run(device: torch.device) -> Iterator[Figure]:
    """Two figures, each the worst round."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = list(product(OPTIMIZERS, SCHEDULES))
        uri, storage = (f"sqlite:///{folder}/{name}.db" for name in ("mlflow", "optuna"))
        store.check(uri)
        arms = [arm("charlm", o, s, final=2 + place / 100) for place, (o, s) in enumerate(pairs)]
        fill(uri, "many", arms, trials=20, seeds=8, rungs=100, num_steps=2000)
        studies = Studies.open(storage, "many")
        left = _trained(studies, [f"task=charlm optimizer={o} schedule={s}" for o, s in pairs])
        watching = Watching(storage, uri, "many")
        feed = Feed(watching)
        while not watching.view.finding.groups:  # the first reading
            feed.look()
            time.sleep(0.1)
        shares = [_share(feed, studies, left) for _ in range(2)]
        words = [_word(studies, left[-IN_TRAINING:]) for _ in range(3)]
    yield _figure("36 arms, 1,000 trials: the live page's server", f"{100 * max(shares):.1f} % of a core", shares, 0.2)
    said = f"{100 * max(words):.2f} % of its core, for {IN_TRAINING} lanes"
    yield _figure("a worker's word on its trials, every two seconds", said, words, 0.01)


def _trained(studies: Studies, arms: Sequence[str]) -> list[Work]:
    """All trials but the last, which are in training."""
    seat = studies.take_seat(arms, whole=True).__enter__()
    works = []
    for name in arms:
        studies.set_note(name, PLANNED, [20, 8, 1])
        for phase, count in ((Phase.SEARCH, 20), (Phase.CONFIRM, 8)):
            for number in range(count):
                studies.enqueue(seat, name, phase, Slot(number, {"lr": 0.1}, number, "model"))
            works += studies.pop(name, phase, process_name(), LEASE_SECONDS, count)
    kept = 2 * SECONDS + IN_TRAINING + 1
    for work in works[:-kept]:
        studies.tell(work.claim, End.FINISHED, 1.0, 1.0, 1.0)
    return works[-kept:]


def _share(feed: Feed, studies: Studies, left: list[Work]) -> float:
    """Of a core, while the sweep goes on."""
    begin, cpu, writing = time.monotonic(), time.process_time(), 0.0
    looked = told = ended = begin
    while (now := time.monotonic()) < begin + SECONDS:
        before = time.process_time()
        if now >= ended:
            studies.tell(left.pop(0).claim, End.FINISHED, 1.0, 1.0, 1.0)
            ended += 1.0
        if now >= told:
            _tell(studies, left[-IN_TRAINING:], int(now))
            told += TELL_SECONDS
        writing += time.process_time() - before
        if now >= looked:
            feed.look()
            looked = time.monotonic() + LOOK_SECONDS
        time.sleep(0.05)
    return (time.process_time() - cpu - writing) / (time.monotonic() - begin)


def _tell(studies: Studies, works: Sequence[Work], last: int) -> None:
    points = [(step, 1 / (1 + step + last)) for step in range(60)]
    write_latest(studies.engine, {work.claim: Latest.of(points, points) for work in works})


def _word(studies: Studies, works: Sequence[Work]) -> float:
    """What telling takes of a worker's core."""
    begin = time.process_time()
    for last in range(WORDS):
        _tell(studies, works, last)
    return (time.process_time() - begin) / WORDS / TELL_SECONDS


def _figure(what: str, ours: str, found: Sequence[float], target: float) -> Figure:
    best, worst = min(found), max(found)
    return Figure(what, ours, "–", worst, best, worst, rounds=len(found), expected="", target=target, unit="")
