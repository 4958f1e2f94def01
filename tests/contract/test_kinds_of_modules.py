"""Every kind of module trains as in a loop written by hand, and as it should under every kind of update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import pytest
import torch

import kinds
from optsweep.optim.adam import Adam
from optsweep.optim.averaging import EMA
from optsweep.optim.layout import Layout
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Task
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.trial import Trial
from oracle import by_hand

HYPER = {
    "lr": 1e-2,
    "weight_decay": 0.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "shampoo_beta": 0.95,
    "damping": 1e-3,
    "averaging_beta": 0.9,
    "ema_decay": 0.9,
}
SCHEDULE = Schedule("cosine", {}, "linear", 2)
STEPS = 20

ALONE: dict[str, type[Task]] = {
    "dropout": kinds.Dropout,
    "layer drop and noise": kinds.LayerDrop,
    "experts": kinds.Experts,
    "reassigned buffer": kinds.Buffer,
    "plain attribute": kinds.Attribute,
}
"""Kinds that can't train in lanes."""

STACKED: dict[str, type[Task]] = {
    "plain": kinds.Plain,
    "frozen": kinds.Frozen,
    "in-place buffer": kinds.BufferInPlace,
    "auxiliary head": kinds.AuxHead,
    "batch norm": kinds.BatchNorm,
    "lstm": kinds.LSTM,
    "scalars": kinds.Scalar,
    "empty": kinds.Empty,
    "double": kinds.Double,
    "shared": kinds.Shared,
    "siamese": kinds.Siamese,
    "tied": kinds.Tied,
    "norms": kinds.Norms,
    "bag": kinds.Bag,
    "sparse": kinds.Sparse,
    "unused": kinds.Unused,
}
KINDS = {**STACKED, **ALONE}
RARE = {"experts", "layer drop and noise"}
"""Kinds with parameters that not every step uses."""

OUTSIDE_VMAP = {"bag", "sparse", "norms", "lstm"}
"""Kinds whose lanes depend on what this version of torch can run under vmap."""


def adam(layout: Layout) -> Updater:
    return Update(Adam(), layout)


def soap(layout: Layout) -> Updater:
    return Update(SOAP(), layout, decay=Decay.DECOUPLED)


def schedule_free(layout: Layout) -> Updater:
    return Update(Adam(), layout, iterate=ScheduleFree())


def ema(layout: Layout) -> Updater:
    return Update(Adam(), layout, iterate=EMA(debias=False))


def program(task: Task, build: Callable[[Layout], Updater] = adam, *, vmapped: bool = False) -> Program:
    return Program(task, build, SCHEDULE, STEPS, batch_size=32, num_rungs=4, vmapped=vmapped)


def losses(p: Program, seeds: Sequence[int] = (0, 1)) -> list[float]:
    outcomes = train_all(p, [Trial(HYPER, seed=seed, test=True) for seed in seeds])
    assert all(outcome.test_loss is not None for outcome in outcomes)
    return [outcome.test_loss or 0.0 for outcome in outcomes]


@cache
def oracle(kind: str, seed: int, averaged: float | None = None, clip_norm: float | None = None) -> float:
    task = KINDS[kind]()
    optimizer = partial(torch.optim.Adam, betas=(0.9, 0.999), eps=1e-8)
    return by_hand(
        task,
        seed,
        optimizer=optimizer,
        lr=HYPER["lr"],
        schedule=SCHEDULE,
        num_steps=STEPS,
        batch_size=32,
        clip_norm=clip_norm,
        averaged=averaged,
    )


@pytest.mark.parametrize("vmapped", [False, True], ids=["alone", "lanes"])
@pytest.mark.parametrize("kind", KINDS)
def test_adam_trains_every_kind_of_module_as_a_loop_by_hand(kind: str, vmapped: bool) -> None:
    task = KINDS[kind]()
    expected = [oracle(kind, seed) for seed in (0, 1)]
    assert losses(program(task, vmapped=vmapped)) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("vmapped", [False, True], ids=["alone", "lanes"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in RARE])
def test_an_average_of_the_weights_is_torch_s(kind: str, vmapped: bool) -> None:
    """But for rare parameters, whose average counts the steps that they took part in."""
    task = KINDS[kind]()
    expected = [oracle(kind, seed, averaged=HYPER["ema_decay"]) for seed in (0, 1)]
    assert losses(program(task, ema, vmapped=vmapped)) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("build", [soap, schedule_free])
@pytest.mark.parametrize("kind", KINDS)
def test_lanes_and_their_order_change_nothing_for_any_kind(kind: str, build: Callable[[Layout], Updater]) -> None:
    p = program(KINDS[kind](), build)
    alone = losses(p)
    assert losses(p, (1, 0)) == alone[::-1]  # bitwise: what a trial draws and holds is its own
    assert losses(replace(p, vmapped=True)) == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_lanes_says_why(kind: str) -> None:
    p = program(KINDS[kind](), vmapped=True)
    if kind not in OUTSIDE_VMAP:
        assert p.stacked is (kind not in ALONE)
    notes = [note for note in p.notes if note.startswith("trainer.lanes: ")]
    assert len(notes) == (not p.stacked)
    if kind == "dropout":
        assert "draws random numbers" in notes[0]
    if kind == "reassigned buffer":
        assert "buffer mean" in notes[0]


def test_clipping_takes_the_norm_of_all_gradients_where_parameters_are_rare() -> None:
    task = kinds.Experts()
    p = program(task, lambda layout: Update(Adam(), layout, clip_norm=0.5))
    assert losses(p) == pytest.approx([oracle("experts", seed, clip_norm=0.5) for seed in (0, 1)], rel=2e-5)


def test_experts_of_which_each_step_uses_one_are_trained_as_in_torch() -> None:
    """With one sample per step every parameter misses some steps."""
    task = kinds.Experts()
    p = replace(program(task), batch_size=1, num_steps=40)
    optimizer = partial(torch.optim.Adam, betas=(0.9, 0.999), eps=1e-8)
    expected = by_hand(task, 1, optimizer=optimizer, lr=1e-2, schedule=SCHEDULE, num_steps=40, batch_size=1)
    assert losses(p, (1,)) == pytest.approx([expected], rel=2e-5)
    assert losses(p, (0, 1))[1] == losses(p, (1,))[0]  # whatever an earlier trial found to be rare
