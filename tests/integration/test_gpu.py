"""What only a GPU can show. Skipped, with the reason, where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from optsweep.optim.adam import Adam
from optsweep.optim.averaging import LAWA
from optsweep.optim.layout import Layout
from optsweep.optim.muon import Muon
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP, orthonormal
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.tasks.pieces import Pieces
from optsweep.tasks.text import CharLM
from optsweep.train.graphs import Graphs, Replay
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.resident import Resident
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Outcome, Trial
from small_programs import EVERY_FLOAT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

HYPER = EVERY_FLOAT


def adamw(layout: Layout) -> Updater:
    return Update(Adam(), layout, decay=Decay.DECOUPLED, clip_norm=1.0)


def soap_schedule_free(layout: Layout) -> Updater:
    return Update(SOAP(), layout, decay=Decay.DECOUPLED, iterate=ScheduleFree())


def muon_lawa(layout: Layout) -> Updater:
    return Update(Muon(), layout, decay=Decay.DECOUPLED, iterate=LAWA(window=3, every=4))


def program(build: Callable[[Layout], Updater], device: str) -> Program:
    task = CharLM(width=32, val_windows=32, test_windows=32)
    task.to(torch.device(device))
    return Program(
        task=task,
        build_update=build,
        schedule=Schedule("constant", {}, "linear", 5),
        num_steps=40,
        batch_size=16,
        num_rungs=4,
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


def strict() -> Iterator[None]:
    """A synchronisation inside raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compile", [False, "auto"])
@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("build", [adamw, soap_schedule_free])
def test_no_step_waits_for_the_device(
    build: Callable[[Layout], Updater], vmapped: bool, compile: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = replace(program(build, "cuda"), vmapped=vmapped, compile=compile)
    run = Run(p, [Trial(HYPER, 0), Trial(HYPER, 1)][: 1 + vmapped], Silent())
    run.advance(20)
    outside = Resident.running if compile else nullcontext

    @contextmanager
    def running(*args: Any) -> Iterator[None]:
        with outside(*args), contextmanager(strict)():
            yield

    if compile:
        monkeypatch.setattr(Resident, "running", running)
    else:
        monkeypatch.setattr("optsweep.train.run.nullcontext", running)
    run.advance(40)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("build", [adamw, soap_schedule_free, muon_lawa])
def test_recorded_steps_are_bitwise_those_that_are_taken(
    build: Callable[[Layout], Updater], vmapped: bool, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = replace(program(build, "cuda"), vmapped=vmapped, precision=precision)
    trials = [Trial({**HYPER, "lr": lr}, seed=seed, test=True) for seed, lr in enumerate((1e-3, 3e-3, 1e-2))]
    graphs = CountedRecordings()
    monkeypatch.setattr(Graphs, "record", lambda self, call: graphs.record(self, call))
    recorded = train_all(p, trials)
    assert graphs.made >= 3
    assert not graphs.failed
    monkeypatch.setattr(Graphs, "record", lambda *_: None)
    taken = train_all(p, trials)
    assert numbers_of(recorded) == numbers_of(taken)


def test_compiled_steps_agree_with_the_others() -> None:
    p = program(adamw, "cuda")
    trials = [Trial(HYPER, seed=0, test=True)]
    assert replace(p, compile=True).compiled
    assert not p.compiled
    ((loss, *_),), ((compiled, *_),) = (numbers_of(train_all(q, trials)) for q in (p, replace(p, compile=True)))
    assert compiled == pytest.approx(loss, rel=1e-3)


class Undecided(nn.Module):
    """Asks the device for a value in every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs)
        hidden = hidden * 2 if hidden.mean().item() > 0 else hidden
        logits: torch.Tensor = self.head(hidden)
        return logits


class Dropping(Undecided):
    """Draws from the device's generator."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(nn.functional.dropout(self.first(inputs)))
        return logits


@pytest.mark.parametrize("model", [Undecided, Dropping])
def test_what_cannot_be_recorded_trains_as_ever(
    model: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = torch.randn(96, 8), torch.randint(0, 3, (96,))
    task = Pieces(model, (x, y))
    task.to(torch.device("cuda"))
    p = replace(program(adamw, "cuda"), task=task)
    trials = [Trial(HYPER, seed=0, test=True)]
    graphs = CountedRecordings()
    monkeypatch.setattr(Graphs, "record", lambda self, call: graphs.record(self, call))
    first, again, eager = (numbers_of(train_all(q, trials)) for q in (p, p, replace(p, compile=False)))
    assert first == again
    assert first[0] == pytest.approx(eager[0], rel=1e-3)
    assert not graphs.made


class CountedRecordings:
    """Counts recordings."""

    def __init__(self) -> None:
        self.made = self.failed = 0
        self._record = Graphs.record

    def record(self, graphs: Graphs, call: Callable[[], object]) -> Replay | None:
        replay = self._record(graphs, call)
        self.made += replay is not None
        self.failed += replay is None
        return replay


def numbers_of(outcomes: list[Outcome]) -> list[tuple[float, ...]]:
    return [(o.val_loss, o.val_score, float(o.test_loss or 0), *o.test_blocks) for o in outcomes]


def test_orthonormal_bases_of_many_matrices_are_those_of_qr() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    matrices = torch.randn(50, 24, 24, device="cuda", dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(matrices)
    torch.testing.assert_close(orthonormal(matrices, matrices), q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2))
