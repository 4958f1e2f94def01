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
import torch
from torch import nn

from drive import RuleEntry, registry
from keeping import CutError, Cutter
from kinds import BatchNorm, Frozen
from optsweep.optim.adam import AdamW
from optsweep.optim.averaging import EMA, LAWA
from optsweep.optim.external import ExternalUpdate
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import Layout
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Split
from optsweep.train.evaluate import Shown, evaluate
from optsweep.train.loop import train
from optsweep.train.program import Program
from optsweep.train.run import Silent, _grid
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


def check(p: Program, hyper: Mapping[str, float], random: Random, *, bitwise: bool = True) -> None:
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
        if bitwise:
            assert repr(heard.rungs[trial.key]) == repr(alone.rungs[trial.key])
            assert repr(heard.outcomes[trial.key]) == repr(alone.outcomes[trial.key])
        else:
            ours, theirs = ([rung.val_loss for rung in told.rungs[trial.key]] for told in (heard, alone))
            assert ours == pytest.approx(theirs, rel=1e-4, nan_ok=True)
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


def adamw(layout: Layout) -> Updater:
    return Update(AdamW(), layout, decay=Decay.DECOUPLED, clip_norm=1.0)


def adagrad(layout: Layout) -> Updater:
    return ExternalUpdate(torch.optim.Adagrad, {}, layout, decay=Decay.DECOUPLED, clip_norm=1.0)


ADAMW = {"weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


@pytest.mark.parametrize("seed", range(3))
def test_optimizers_of_torch(seed: int) -> None:
    check(program(adagrad, PLATEAU), ADAMW, Random(seed))


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"accumulate": 2}], ids=str)
def test_frozen_parameters_and_low_precision(changes: dict[str, Any]) -> None:
    check(program(adamw, task=Frozen(), **changes), ADAMW, Random(0))


def test_batch_norm_but_for_the_last_bits() -> None:
    """torch sums a channel up otherwise in a lane that is the last of an odd number."""
    for seed in range(3):
        check(program(adamw, task=BatchNorm()), ADAMW, Random(seed), bitwise=False)


def test_what_was_kept_and_does_not_fit_begins_anew_and_the_others_go_on() -> None:
    p, trials = program(adamw), [Trial({**ADAMW, "lr": 1e-3}, seed, key=seed) for seed in range(3)]
    expected = Heard()
    train(p, Listed(trials), expected, lanes=3)
    cut = Cutter(7)
    with suppress(CutError):
        train(p, Listed(trials), Heard(), lanes=3, checkpointer=cut)
    cut.kept[1]["arena"]["params"] = torch.zeros(3)
    again, heard = Cutter(given=cut.kept), Heard()
    train(p, Listed(trials), heard, lanes=3, checkpointer=again)
    assert [line.partition(":")[0] for line in again.refused] == ["[1]"]
    assert repr(sorted(heard.outcomes.items())) == repr(sorted(expected.outcomes.items()))


class Later:
    """A source that has one more trial from the second time on that it is asked."""

    def __init__(self, first: Trial, later: Trial) -> None:
        self.given = [[first], [], [later]]

    def take(self, free_lanes: int) -> Sequence[Trial]:
        return self.given.pop(0) if self.given else []


def test_one_that_does_not_fit_beside_others_begins_anew_at_once() -> None:
    p, trials = program(adamw), [Trial({**ADAMW, "lr": 1e-3}, seed, key=seed) for seed in range(2)]
    alone, cut = Heard(), Cutter(7)
    train(p, Listed(trials[1:]), alone)
    with suppress(CutError):
        train(p, Listed(trials[1:]), Heard(), checkpointer=cut)
    cut.kept[1]["arena"]["params"] = torch.zeros(3)
    again, heard = Cutter(given=cut.kept), Heard()
    train(p, Later(*trials), heard, lanes=2, checkpointer=again)
    assert len(again.refused) == 1
    assert repr(heard.outcomes[1]) == repr(alone.outcomes[1])
    assert heard.outcomes.keys() == {0, 1}


@pytest.mark.parametrize(
    ("period", "num_steps", "apart"),
    [
        (1, 600, 30),  # a rung every 30 steps, a point every 10
        (10, 600, 30),
        (1, 500, 50),  # every 25
        (7, 600, 7),  # to wait for a rung of all would take 210 steps
    ],
)
def test_lanes_begin_where_all_have_their_rungs_unless_that_is_rare(period: int, num_steps: int, apart: int) -> None:
    assert _grid(program(adamw, num_steps=num_steps, num_rungs=20, log_every=10), period) == apart


def test_only_lanes_whose_rung_it_is_are_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(shown: Shown, split: Split) -> torch.Tensor:
        seen.append(shown.arena.lanes)
        return evaluate(shown, split)

    monkeypatch.setattr("optsweep.train.run.evaluate", noted)
    ends = {1: {STRIDE: 0.0}}  # the second is pruned at its first rung, and another takes its place
    trials = [Trial({**ADAMW, "lr": 1e-3}, seed, ends.get(seed, {}), key=seed) for seed in range(4)]
    train(program(adamw), Listed(trials), Silent(), lanes=3)
    assert seen == [3, 3, 2, 3, 3, 2], "three begin; one is replaced, whose beginning is seen twice; its end, too"
