"""Lanes that are filled again as they get free: a trial is bitwise what it is alone, whatever comes and goes beside it.

Alone is on the vmapped path, padded to two lanes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from torch import nn

from drive import RuleEntry, registry
from keeping import CutError, Cutter
from optsweep.optim.averaging import EMA, LAWA
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import Layout
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.train.loop import train
from optsweep.train.program import Program
from optsweep.train.source import Listed
from optsweep.train.trial import End, Outcome, Rung, Trial
from small_programs import built_by

STEPS, STRIDE = 12, 4

PLATEAU = Schedule("plateau", {"patience": 0, "factor": 0.5, "threshold": 0.5}, "linear", 2)
COSINE = Schedule("cosine", {}, "linear", 3)
ITERATES: list[tuple[Iterate, Schedule]] = [
    (Last(), PLATEAU),
    (EMA(), COSINE),
    (LAWA(window=2, every=2), PLATEAU),
    (ScheduleFree(), Schedule("schedule_free")),
]


@dataclass
class Heard:
    """What an observer was told of each trial, but for what a clock says."""

    rungs: dict[int, list[Rung]] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def on_rung(self, key: int, rung: Rung) -> None:
        timeless = replace(rung, ms_per_step=None, train_seconds=0.0, peak_bytes=0)
        self.rungs.setdefault(key, []).append(timeless)

    def on_end(self, key: int, outcome: Outcome) -> None:
        assert key not in self.outcomes, "told twice"
        self.outcomes[key] = replace(outcome, train_seconds=0.0)


class Arriving:
    """A source that has some of the trials that are left when it is asked, or none."""

    def __init__(self, trials: Sequence[Trial], random: Random) -> None:
        self.left, self.random = list(trials), random

    def take(self, free_lanes: int) -> Sequence[Trial]:
        count = self.random.randint(0, free_lanes)
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))


def program(build: Callable[[Layout], Updater], schedule: Schedule = COSINE, **changes: Any) -> Program:
    small = Program(
        built_by(model),
        build,
        schedule,
        STEPS,
        batch_size=8,
        num_rungs=STEPS // STRIDE,
        log_every=5,
        vmapped=True,
        eval_batch_size=1000,
    )
    return replace(small, **changes)


def trials_of(hyper: Mapping[str, float], random: Random, count: int = 5) -> list[Trial]:
    """Some that finish, one that diverges, and one that is pruned at a rung."""
    lrs = [10 ** random.uniform(-3, -1.5) for _ in range(count)]
    ends: list[dict[str, Any]] = [{} for _ in range(count)]
    pruned, diverging = random.sample(range(count), 2)
    ends[pruned] = {"prune_above": {random.choice((STRIDE, 2 * STRIDE)): 0.0}}
    lrs[diverging] = 1e30
    return [Trial({**hyper, "lr": lr}, seed, key=seed, test=True, **ends[seed]) for seed, lr in enumerate(lrs)]


def check(p: Program, hyper: Mapping[str, float], random: Random) -> None:
    """Train in random company, cut off once, and compare with every trial alone."""
    trials, heard = trials_of(hyper, random), Heard()
    random.shuffle(trials)
    lanes, cutter = random.randint(2, 4), Cutter(random.randint(2, 14))
    cutter.due = random.choice((0.0, math.inf))  # pauses after every step, or at stops only
    source = Arriving(trials, random)
    with suppress(CutError):
        while source.left:
            train(p, source, heard, lanes=lanes, checkpointer=cutter)
    left = [trial for trial in trials if trial.key not in heard.outcomes]
    random.shuffle(left)
    again = Cutter(given=cutter.kept)
    source = Arriving(left, random)
    while source.left:
        train(p, source, heard, lanes=lanes, checkpointer=again)
    assert not again.refused
    for trial in trials:
        alone = Heard()
        train(p, Listed([trial]), alone)
        assert repr(heard.rungs[trial.key]) == repr(alone.rungs[trial.key])
        assert repr(heard.outcomes[trial.key]) == repr(alone.outcomes[trial.key])
    assert {outcome.end for outcome in heard.outcomes.values()} == set(End)


@pytest.mark.parametrize("place", range(len(ITERATES)), ids=["last", "ema", "lawa", "schedule_free"])
@pytest.mark.parametrize("entry", registry(), ids=str)
def test_every_optimizer(entry: RuleEntry, place: int) -> None:
    iterate, schedule = ITERATES[place]
    decay = Decay.NONE if Decay.DECOUPLED in entry.cls.refused_decays else Decay.DECOUPLED
    static = {"refresh": 3} if issubclass(entry.cls, SOAP) else {}
    hyper = {"weight_decay": 0.1, **entry.floats, **{n: domain.default for n, domain in iterate.floats.items()}}

    def build(layout: Layout) -> Updater:
        return Update(entry.rule(**static), layout, decay=decay, iterate=iterate)

    check(program(build, schedule), hyper, Random(f"{entry} {place}"))
