"""Steps whose numbers lie on the device, with a stand-in for CUDA graphs: what is recorded is called again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optsweep.build.assemble import build_arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.errors import UserError
from optsweep.optim.adam import Adam
from optsweep.optim.averaging import LAWA
from optsweep.optim.layout import Layout
from optsweep.optim.muon import Muon
from optsweep.optim.rule import Coefficients, Rule, State
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP, orthonormal
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.tasks.data import Indices, Stretch, epochs
from optsweep.tasks.pieces import Pieces
from optsweep.train.graphs import Replay
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.resident import Resident
from optsweep.train.trial import Outcome, Trial
from small_programs import EVERY_FLOAT

FLOATS = {**EVERY_FLOAT, "lr": 1e-2, "damping": 1e-2}


class CalledAgain:
    """A recorder whose recordings call once more; counts them and their replays."""

    waits: Sequence[object] = ()
    recorded = replayed = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    @contextmanager
    def watched(self) -> Iterator[Sequence[object]]:
        yield self.waits

    def record(self, call: Callable[[], object]) -> Replay | None:
        type(self).recorded += 1

        def again() -> None:
            type(self).replayed += 1
            call()

        return again


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[CalledAgain]:
    """Takes the place of CUDA graphs, on the CPU."""
    kind = type("CalledHere", (CalledAgain,), {})
    monkeypatch.setattr("optsweep.train.resident.Graphs", kind)
    monkeypatch.setattr("optsweep.train.run.Graphs", kind)
    monkeypatch.setattr(Program, "resident", property(lambda p: p.compile is not False and not p.traits.unlike))
    return kind


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.second(self.first(inputs).relu()).relu())
        return logits


class Noisy(Net):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(inputs, 0.2))


def program(build: Callable[[Layout], Updater], model: Callable[[], nn.Module] = Net, **changes: Any) -> Program:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(120, 6, generator=generator), torch.randint(0, 3, (120,), generator=generator)
    return replace(
        Program(Pieces(model, (x, y)), build, Schedule("cosine", {}, "linear", 3), 30, 16, num_rungs=4, log_every=4),
        **changes,
    )


def adamw(layout: Layout) -> Updater:
    return Update(Adam(), layout, decay=Decay.DECOUPLED, clip_norm=1.0)


def soap(layout: Layout) -> Updater:
    return Update(SOAP(refresh=4), layout, decay=Decay.DECOUPLED, iterate=ScheduleFree())


def muon(layout: Layout) -> Updater:
    return Update(Muon(), layout, decay=Decay.DECOUPLED, iterate=LAWA(window=2, every=3))


def numbers(outcomes: Sequence[Outcome]) -> list[tuple[float, ...]]:
    return [(float(o.test_loss or 0), o.val_loss, o.val_score, *o.test_blocks) for o in outcomes]


TRIALS = [Trial({**FLOATS, "lr": lr}, seed=seed, test=True) for seed, lr in enumerate((1e-3, 1e-2, 3e-2))]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("build", [adamw, soap, muon])
def test_lanes_are_bitwise_the_same(
    recorder: type[CalledAgain], build: Callable[[Layout], Updater], accumulate: int
) -> None:
    p = program(build, vmapped=True, accumulate=accumulate)
    found = numbers(train_all(p, TRIALS))
    assert recorder.replayed > 20
    assert found == numbers(train_all(replace(p, compile=False), TRIALS))


@pytest.mark.parametrize("build", [adamw, soap, muon])
def test_one_lane_is_the_same_to_rounding(recorder: type[CalledAgain], build: Callable[[Layout], Updater]) -> None:
    p = program(build)
    found = numbers(train_all(p, TRIALS[:2]))
    assert recorder.replayed > 40
    expected = numbers(train_all(replace(p, compile=False), TRIALS[:2]))
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_samples_are_drawn_once_ahead_of_their_steps(
    recorder: type[CalledAgain], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []

    def counted(size: int, seed: int, first: int, *rest: int) -> Indices:
        drawn.append((seed, first))
        return epochs(size, seed, first, *rest)

    p, trials = program(adamw, vmapped=True), [replace(TRIALS[k % 3], seed=k) for k in range(5)]
    expected = numbers(train_all(replace(p, compile=False), trials))
    monkeypatch.setattr("optsweep.tasks.parts.epochs", counted)
    assert p.traits.alone == ""
    drawn.clear()
    looked: list[int] = []
    look_ahead = Resident.look_ahead

    def looking(resident: Resident, spans: Sequence[Stretch]) -> None:
        looked.append(len(drawn))
        look_ahead(resident, spans)

    monkeypatch.setattr(Resident, "look_ahead", looking)
    assert numbers(train_all(p, trials)) == expected
    assert len(drawn) == len(set(drawn)) == 5 * 4
    assert looked == [5, 10, 15, 20], "what is drawn before a stretch ends is what the next one takes"


def test_each_kind_of_step_is_recorded_once_with_and_without_norms(recorder: type[CalledAgain]) -> None:
    train_all(program(adamw, num_rungs=1), TRIALS[:1])
    assert recorder.recorded == 2 + 1  # an evaluation comes twice, those of the test split once
    train_all(program(soap, num_rungs=3, log_every=5), TRIALS[:1])
    assert recorder.recorded == 3 + 4 + 1


class Waiting(CalledAgain):
    waits = ("for the loss",)


def test_steps_that_wait_for_the_device_are_not_recorded(
    recorder: type[CalledAgain], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optsweep.train.resident.Graphs", Waiting)
    train_all(program(adamw, num_rungs=1), TRIALS[:1])
    assert (Waiting.recorded, recorder.recorded) == (0, 1)


def test_what_draws_at_random_is_launched_step_by_step(recorder: type[CalledAgain]) -> None:
    p = program(adamw, Noisy)
    assert p.traits.unlike
    train_all(p, TRIALS[:1])
    assert recorder.recorded == 0


class Renewing(Adam):
    """Every second step stands alone, and puts other tensors in the place of its state."""

    def kind(self, tick: int) -> int | None:
        return None if tick % 2 else 0

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        if tick % 2:
            state["v"] = state["v"].clone()
        return super().update(grads, state, params, c, tick, layout)


def test_no_recording_goes_on_that_reads_state_which_another_step_gives_anew(recorder: type[CalledAgain]) -> None:
    train_all(program(lambda layout: Update(Renewing(), layout), num_rungs=1), TRIALS[:1])
    assert recorder.replayed == 1 + 1, "a step, before what it reads was left behind, and an evaluation"


class Rhythmic(Adam):
    period = 3


class Halves(Rule):
    """Says nothing of its kinds."""

    init = Adam.init
    update = Adam.update


def test_a_rhythm_that_is_not_told_stands_alone() -> None:
    assert Rhythmic().kind(1) is None
    assert Halves().kind(1) == Halves().kind(2) == 0
    assert SOAP(refresh=3).kind(0) == SOAP(refresh=3).kind(3) != SOAP(refresh=3).kind(1)
    lawa = LAWA(window=2, every=3)
    assert [lawa.kind(tick) for tick in range(12)] == [-1, -1, 0, -1, -1, 1] * 2


@pytest.mark.parametrize(
    ("compile", "size", "steps", "compiled"),
    [("auto", 1, 5000, False), ("auto", 20_000_000, 5000, True), ("auto", 20_000_000, 500, False), (True, 1, 5, True)],
)
def test_large_models_are_compiled_where_that_pays(
    recorder: type[CalledAgain], compile: Any, size: int, steps: int, compiled: bool
) -> None:
    p = program(adamw, compile=compile, num_steps=steps)
    vars(p)["num_parameters"] = size
    assert p.compiled is compiled
    assert p.execution
    assert not replace(p, compile=False).execution


def test_on_a_cpu_nothing_of_it_is_in_a_fingerprint() -> None:
    words = ["task=iris_mlp", "optimizer=adamw", "sweep.name=a", "trainer.device=cpu"]
    for compile in ("auto", "true", "false"):
        content = build_arm(arm_of(compose([*words, f"trainer.compile={compile}"]))).content
        assert not [key for key in content if "compile" in key or "computed" in key]
    with pytest.raises(UserError, match=r"trainer\.compile.*true or false, or auto"):
        arm_of(compose([*words, "trainer.compile=yes"]))


@pytest.mark.parametrize("condition", [1e1, 1e6, 1e12])
def test_orthonormal_bases_are_those_of_qr_and_of_a_singular_matrix_the_other(condition: float) -> None:
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(4, 12, 12, dtype=torch.float64, generator=generator))[0] for _ in range(2))
    scale = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), 12, dtype=torch.float64)
    matrices = torch.cat([u * scale @ v.mT, torch.zeros(1, 12, 12, dtype=torch.float64)])
    other = torch.full_like(matrices, 7.0)
    found, (q, r) = orthonormal(matrices, other), torch.linalg.qr(matrices)
    signed = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    torch.testing.assert_close(found[:4], signed[:4], rtol=0, atol=1e-15 * condition + 1e-14)
    torch.testing.assert_close(found[:4].mT @ found[:4], torch.eye(12, dtype=torch.float64).expand(4, 12, 12))
    assert torch.equal(found[4:], other[4:])
