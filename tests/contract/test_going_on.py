"""A trial that was cut off between any two steps and goes on from a file is bitwise the uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from drive import registry
from keeping import CutError, Cutter, alike
from kinds import (
    Attribute,
    AuxHead,
    BatchNorm,
    Buffer,
    Dropout,
    Experts,
    Frozen,
    LayerDrop,
    Norms,
    Plain,
    Siamese,
    Tied,
)
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
from optsweep.tasks.base import Task
from optsweep.tasks.pieces import Pieces
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.trial import Outcome, Rung, Trial
from own_pieces import X, Y, net

STEPS = 12

PLATEAU = Schedule("plateau", {"patience": 0, "factor": 0.5}, "linear", 2)
COSINE = Schedule("cosine", {}, "linear", 3)
FREE = Schedule("schedule_free", {}, "none", 0)
ITERATES: list[tuple[Iterate, Schedule]] = [
    (Last(), PLATEAU),
    (EMA(), COSINE),
    (LAWA(window=2, every=2), PLATEAU),
    (ScheduleFree(), FREE),
]


ADAMW = {"weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "damping": 1e-2, "shampoo_beta": 0.9}
ADAMW["averaging_beta"] = 0.9


class Heard:
    """What an observer was told, but for what a clock says."""

    def __init__(self) -> None:
        self.rungs: dict[int, list[Rung]] = {}

    def on_rung(self, key: int, rung: Rung) -> None:
        timeless = replace(rung, ms_per_step=None, train_seconds=0.0, peak_bytes=0)
        self.rungs.setdefault(key, []).append(timeless)

    def on_end(self, key: int, outcome: Outcome) -> None: ...


def program(task: Task, build: Callable[[Layout], Updater], schedule: Schedule = COSINE, **changes: Any) -> Program:
    settings = {"num_steps": STEPS, "batch_size": 16, "num_rungs": 2, "log_every": 3, "eval_batch_size": 64, **changes}
    return Program(task=task, build_update=build, schedule=schedule, **settings)


def adamw(layout: Layout) -> Updater:
    return Update(AdamW(), layout, decay=Decay.DECOUPLED, clip_norm=1.0)


def soap(layout: Layout) -> Updater:
    return Update(SOAP(refresh=4), layout, decay=Decay.DECOUPLED, iterate=ScheduleFree())


def adagrad(layout: Layout) -> Updater:
    return ExternalUpdate(torch.optim.Adagrad, {}, layout, decay=Decay.DECOUPLED, clip_norm=1.0)


def trained(p: Program, trials: Sequence[Trial], cutter: Cutter) -> tuple[list[str], dict[int, list[Rung]]]:
    """Outcomes and curves; of training that is cut off, the curves up to there."""
    heard, outcomes = Heard(), []
    with suppress(CutError):
        outcomes = train_all(p, trials, heard, cutter)
    return [repr(replace(outcome, train_seconds=0.0)) for outcome in outcomes], heard.rungs


def check(p: Program, trials: Sequence[Trial], at: int) -> None:
    """Train to a pause, go on from there, and compare with training in one go."""
    whole = Cutter()
    outcomes, curves = trained(p, trials, whole)
    cut = Cutter(at)
    _, before = trained(p, trials, cut)
    assert cut.kept.keys() == {*range(len(trials))}
    second = Cutter(given=cut.kept)
    found, after = trained(p, trials, second)
    assert not second.refused
    assert found == outcomes
    assert not second.last or alike(whole.last, second.last), "parameters or an optimizer's state"
    assert {key: before.get(key, []) + after[key] for key in after} == curves


def trials_of(hyper: dict[str, float], count: int) -> list[Trial]:
    return [Trial({**hyper, "lr": lr}, seed=seed, test=True) for seed, lr in enumerate((1e-2, 1e-3, 3e-3)[:count])]


OPTIMIZERS = [(entry, *kind, lanes) for entry in registry() for kind in ITERATES for lanes in (1, 3)]


@pytest.mark.parametrize("place", range(len(OPTIMIZERS)))
def test_every_optimizer_goes_on(place: int) -> None:
    entry, iterate, schedule, lanes = OPTIMIZERS[place]
    decay = Decay.NONE if Decay.DECOUPLED in entry.cls.refused_decays else Decay.DECOUPLED
    hyper = {"weight_decay": 0.1, **entry.floats, **{n: domain.default for n, domain in iterate.floats.items()}}

    def build(layout: Layout) -> Updater:
        return Update(entry.rule(), layout, decay=decay, iterate=iterate)

    at = 1 + 5 * place % STEPS  # there is a pause before the first step and after each but the last, rungs included
    check(program(Plain(), build, schedule, vmapped=lanes > 1), trials_of(hyper, lanes), at)


TORCH_S: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.NAdam, {}),
    (torch.optim.Rprop, {}),
    (torch.optim.ASGD, {"t0": 3}),
    (torch.optim.SGD, {"momentum": 0.9}),
]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(("cls", "options"), TORCH_S)
def test_optimizers_of_torch_go_on(cls: Any, options: dict[str, Any], lanes: int) -> None:
    def build(layout: Layout) -> Updater:
        return ExternalUpdate(cls, options, layout, decay=Decay.L2)

    for at in (4, 7):  # after a step, and at a rung
        check(program(Plain(), build, PLATEAU, vmapped=lanes > 1), trials_of({"weight_decay": 0.1}, lanes), at)


MODELS = [Attribute, AuxHead, Buffer, Dropout, Frozen, LayerDrop, Norms, Siamese, Tied]


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_every_kind_go_on(kind: type[Task]) -> None:
    task = kind()
    for at in (4, 7):
        check(program(task, adamw), trials_of(ADAMW, 1), at)


@pytest.mark.parametrize("build", [adamw, soap, adagrad])
def test_parameters_that_turn_out_to_be_rare_go_on(build: Callable[[Layout], Updater]) -> None:
    p = program(Experts(), build, batch_size=4, num_steps=20)
    whole = Cutter()
    trained(p, trials_of(ADAMW, 1), whole)
    restarts = whole.pauses - 20
    assert restarts > 0, "no trial began again"
    for at in range(2, whole.pauses + 1, 5):
        check(p, trials_of(ADAMW, 1), at)


def test_lanes_with_frozen_parameters_buffers_and_low_precision_go_on() -> None:
    for task in (Frozen(), BatchNorm()):
        for changes in ({}, {"precision": "bf16"}, {"accumulate": 2}):
            check(program(task, soap, vmapped=True, **changes), trials_of(ADAMW, 2), 4)


def test_a_lane_goes_on_in_other_company() -> None:
    p, trials = program(Plain(), soap, vmapped=True), trials_of(ADAMW, 3)
    outcomes, _ = trained(p, trials, Cutter())
    early, late = Cutter(3), Cutter(9)
    for cutter in (early, late):
        trained(p, trials, cutter)
    found, _ = trained(p, trials, Cutter(given={0: early.kept[0], 1: late.kept[1]}))  # and 2 from its beginning
    assert found == outcomes


class Rows(Dataset[Any]):
    """Samples with noise."""

    def __len__(self) -> int:
        return 120

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor(X[index], dtype=torch.float32) + 0.1 * torch.randn(4), int(Y[index])


def stream(batch_size: int, epoch: int) -> DataLoader[Any]:
    return DataLoader(Rows(), batch_size, shuffle=True, drop_last=True)


@pytest.mark.parametrize("train", [Rows(), stream])
def test_data_through_a_loader_go_on(train: Any) -> None:
    task = Pieces(net, train, (X[120:160], Y[120:160]), (X[160:], Y[160:]), batch_size=16, samples=120)
    for at in (2, 7):
        check(program(task, adamw), trials_of(ADAMW, 1), at)


def test_a_state_that_does_not_fit_begins_anew() -> None:
    p, trials = program(Plain(), adamw), trials_of(ADAMW, 1)
    outcomes, _ = trained(p, trials, Cutter())
    cut = Cutter(4)
    trained(p, trials, cut)
    cut.kept[0]["arena"]["params"] = torch.zeros(3)
    second = Cutter(given=cut.kept)
    found, _ = trained(p, trials, second)
    assert found == outcomes
    assert "[0]: RuntimeError" in second.refused[0]


def test_seconds_go_on_and_a_pause_takes_none() -> None:
    class Slow(Cutter):
        def pause(self, states: Callable[[], Any]) -> None:
            clock.seconds += 100.0
            super().pause(states)

    clock = Clock()
    p, trials = program(Plain(), adamw), trials_of(ADAMW, 1)
    with patch("optsweep.train.run.time.perf_counter", clock):
        cut = Slow(6)
        trained(p, trials, cut)
        clock.seconds += 1000.0
        (outcome,) = train_all(p, trials, None, Slow(given=cut.kept))
    assert outcome.train_seconds < 1.0
    assert outcome.train_seconds > cut.kept[0]["lane"]["train_seconds"] > 0


class Clock:
    """A millisecond between two looks."""

    seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1e-3
        return self.seconds
