"""What only a GPU can show. Skipped, with the reason, where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.tasks.data import Stretch
from optsweep.tasks.text import CharLM
from optsweep.train.lanes import numbers
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.run import Run, Silent
from optsweep.train.steps import backward_of
from optsweep.train.trial import Trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

HYPER = {
    "lr": 3e-3,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.99,
    "eps": 1e-8,
    "damping": 1e-3,
    "shampoo_beta": 0.95,
    "averaging_beta": 0.9,
}


def adamw(layout: Layout) -> Updater:
    return Update(Adam(), layout, decay=Decay.DECOUPLED, clip_norm=1.0)


def soap_schedule_free(layout: Layout) -> Updater:
    return Update(SOAP(), layout, decay=Decay.DECOUPLED, iterate=ScheduleFree())


def program(build: Callable[[Layout], Updater], device: str) -> Program:
    task = CharLM(width=32, val_windows=32, test_windows=32)
    task.to(torch.device(device))
    return Program(
        task=task,
        build_update=build,
        schedule=Schedule("constant", {}, "linear", 5),
        num_steps=40,
        batch_size=16,
        num_rungs=2,
        device=torch.device(device),
    )


@pytest.mark.parametrize("build", [adamw, soap_schedule_free])
@pytest.mark.parametrize("vmapped", [False, True])
def test_a_gpu_agrees_with_the_cpu(build: Callable[[Layout], Updater], vmapped: bool) -> None:
    trials = [Trial({**HYPER, "lr": lr}, seed=seed, test=True) for seed, lr in enumerate((1e-3, 3e-3))]
    cpu = train_all(program(build, "cpu"), trials)
    cuda = train_all(replace(program(build, "cuda"), vmapped=vmapped), trials)
    for one, other in zip(cpu, cuda, strict=True):
        assert other.val_loss == pytest.approx(one.val_loss, rel=2e-3)
        assert other.test_loss == pytest.approx(one.test_loss, rel=2e-3)


@pytest.mark.parametrize("vmapped", [False, True])
def test_bf16_trains_as_well_as_float32(vmapped: bool) -> None:
    trials = [Trial(HYPER, seed=0), Trial(HYPER, seed=1)]
    full = train_all(program(soap_schedule_free, "cuda"), trials)
    low = train_all(replace(program(soap_schedule_free, "cuda"), precision="bf16", vmapped=vmapped), trials)
    for one, other in zip(full, low, strict=True):
        assert other.val_loss == pytest.approx(one.val_loss, rel=0.05)


@pytest.mark.parametrize("build", [adamw, soap_schedule_free])
def test_no_step_waits_for_the_device(build: Callable[[Layout], Updater]) -> None:
    """A synchronisation between two rungs raises."""
    p = program(build, "cuda")
    run = Run(p, [Trial(HYPER, 0)], Silent())
    run.advance(10)
    plan = numbers(run.lanes, run.update, 10, 20)
    batches, backward = (
        run.data.training([Stretch(0, 10, 20)], p.batch_size, 1, p.device),
        backward_of(p, run.arena, ()),
    )
    seed = p.traits.generators.seeder()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for offset, c in enumerate(plan.steps):
            seed(offset)
            backward(batches)
            assert not run.arena.gather()
            run.update.step(run.arena.params, run.arena.grads, run.arena.state, c, 10 + offset)
    finally:
        torch.cuda.set_sync_debug_mode("default")
