"""The training loop: equal to a hand-written one, lanes equal to single runs, evaluation without a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optsweep.optim.adam import Adam
from optsweep.optim.external import ExternalUpdate
from optsweep.optim.layout import Layout
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.sgd import Momentum
from optsweep.optim.soap import SOAP
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Facts, Split, Task
from optsweep.tasks.landscapes import Landscape
from optsweep.tasks.tabular import Table
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.trial import End, Outcome, Rung, Trial

HYPER = {
    "lr": 3e-3,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.99,
    "eps": 1e-8,
    "momentum": 0.9,
    "dampening": 0.0,
    "damping": 1e-3,
    "shampoo_beta": 0.95,
    "averaging_beta": 0.9,
}


class Listener:
    """Keeps everything that it is told."""

    def __init__(self) -> None:
        self.rungs: dict[int, list[Rung]] = {}
        self.outcomes: dict[int, Outcome] = {}

    def on_rung(self, place: int, rung: Rung) -> None:
        self.rungs.setdefault(place, []).append(rung)

    def on_end(self, place: int, outcome: Outcome) -> None:
        self.outcomes[place] = outcome


def adamw(layout: Layout) -> Updater:
    return Update(Adam(), layout, decay=Decay.DECOUPLED)


def soap_schedule_free(layout: Layout) -> Updater:
    return Update(SOAP(), layout, decay=Decay.DECOUPLED, iterate=ScheduleFree())


def momentum_l2(layout: Layout) -> Updater:
    return Update(Momentum(), layout, decay=Decay.L2, clip_norm=1.0)


def adagrad(layout: Layout) -> Updater:
    return ExternalUpdate(torch.optim.Adagrad, {}, layout, decay=Decay.DECOUPLED)


class DoubleTable(Table):
    """In float64, so that equality can be asked for closely."""

    def model(self) -> nn.Module:
        return super().model().double()


@pytest.fixture(scope="module")
def digits() -> Task:
    return DoubleTable(width=16)


@pytest.fixture(scope="module")
def digits32() -> Task:
    return Table(width=16)


def program(task: Task, build: Callable[[Layout], Updater] = adamw, **changes: object) -> Program:
    base = Program(
        task=task,
        build_update=build,
        schedule=Schedule("cosine", {"final": 0.1}, "linear", 4),
        num_steps=40,
        batch_size=64,
        num_rungs=4,
        log_every=5,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def values(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.val_loss for outcome in outcomes]


def test_one_lane_equals_a_hand_written_loop_over_torch_adamw(digits: Task) -> None:
    trial = Trial({**HYPER, "weight_decay": 0.05}, seed=3, test=True)
    p = program(digits, num_steps=60, decay_all=True)
    listener = Listener()
    (outcome,) = train_all(p, [trial], listener)

    model = p.model(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.05)
    losses = []
    for step in range(60):
        progress = (step - 4) / 55
        decay = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * ((step + 1) / 4 if step < 4 else decay)
        x, y = digits.batch(Split.TRAIN, torch.from_numpy(digits.train_indices(3, step, 1, 64)[0]))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.double()), y)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    for split, found in ((Split.VAL, outcome.val_loss), (Split.TEST, outcome.test_loss)):
        x, y = digits.batch(split, torch.arange(digits.size(split)))
        expected = nn.functional.cross_entropy(model(x.double()), y).item()
        assert found == pytest.approx(expected, abs=1e-12)
    size = digits.size(Split.TEST) // 32
    assert len(outcome.test_blocks) == 32
    for block in (0, 31):
        x, y = digits.batch(Split.TEST, torch.arange(block * size, (block + 1) * size))
        expected = nn.functional.cross_entropy(model(x.double()), y).item()
        assert outcome.test_blocks[block] == pytest.approx(expected, abs=1e-12)
    points = [point for rung in listener.rungs[0] for point in rung.points]
    assert [p.step for p in points] == list(range(5, 61, 5))
    for point in points:
        assert point.loss == pytest.approx(np.mean(losses[point.step - 5 : point.step]), abs=1e-12)
    assert points[-1].lr == pytest.approx(3e-4)
    assert points[0].lr == pytest.approx(3e-3, rel=1e-3)


@pytest.mark.parametrize("batch", [7, 1000])
def test_parts_of_the_test_split_are_at_most_32_and_the_same_in_lanes(digits: Task, batch: int) -> None:
    trials = [Trial(HYPER, seed=seed, test=True) for seed in range(2)]
    p = program(digits, num_steps=10, eval_batch_size=batch)
    singles = [train_all(p, [trial])[0] for trial in trials]
    for one, lane in zip(singles, train_all(replace(p, vmapped=True), trials), strict=True):
        assert len(one.test_blocks) == 32
        assert lane.test_blocks == pytest.approx(one.test_blocks, abs=1e-9)
        assert one.test_loss == pytest.approx(np.mean(one.test_blocks), rel=0.05)


@pytest.mark.parametrize("build", [adamw, soap_schedule_free, momentum_l2, adagrad])
def test_lanes_equal_single_runs(digits: Task, build: Callable[[Layout], Updater]) -> None:
    trials = [
        Trial({**HYPER, "lr": lr, "weight_decay": wd, "beta2": beta2}, seed=seed)
        for seed, (lr, wd, beta2) in enumerate([(1e-3, 0.0, 0.9), (3e-3, 0.1, 0.99), (1e-2, 0.3, 0.999)])
    ]
    p = program(digits, build, num_steps=200)
    singles = values(train_all(p, trials))
    lanes = values(train_all(replace(p, vmapped=True), trials))
    assert lanes == pytest.approx(singles, abs=1e-9)
    assert len(set(singles)) == 3


def test_a_lane_is_bitwise_the_same_in_any_company(digits32: Task) -> None:
    p = program(digits32, soap_schedule_free, vmapped=True)
    trials = [Trial({**HYPER, "lr": lr}, seed=seed) for seed, lr in enumerate((1e-3, 3e-3, 1e-2))]
    together = values(train_all(p, trials))
    assert values(train_all(p, trials[1:2])) == together[1:2]  # alone, padded to two lanes
    assert values(train_all(p, [trials[2], trials[0]])) == [together[2], together[0]]


def test_a_diverging_lane_ends_early_and_leaves_the_others_bitwise_alone(digits: Task) -> None:
    p = program(digits, momentum_l2, vmapped=True)
    p = replace(p, build_update=lambda layout: Update(Momentum(), layout))
    good = [Trial({**HYPER, "lr": 1e-2}, seed=0), Trial({**HYPER, "lr": 2e-2}, seed=1)]
    bad = Trial({**HYPER, "lr": 1e9}, seed=2)
    expected = values(train_all(p, good))
    outcomes = train_all(p, [good[0], bad, good[1]])
    assert [outcome.end for outcome in outcomes] == [End.FINISHED, End.DIVERGED, End.FINISHED]
    assert outcomes[1].step < p.num_steps
    assert "loss" in outcomes[1].reason
    assert [outcomes[0].val_loss, outcomes[2].val_loss] == expected


@pytest.mark.parametrize("build", [adamw, soap_schedule_free])
@pytest.mark.parametrize("vmapped", [False, True])
def test_how_often_one_evaluates_changes_nothing(
    digits32: Task, build: Callable[[Layout], Updater], vmapped: bool
) -> None:
    p = program(digits32, build, vmapped=vmapped)
    trial = [Trial(HYPER, seed=1)]
    assert values(train_all(replace(p, num_rungs=4), trial)) == values(train_all(replace(p, num_rungs=1), trial))


def test_logging_more_often_changes_nothing(digits: Task) -> None:
    p = program(digits, soap_schedule_free)
    trial = [Trial(HYPER, seed=1)]
    assert values(train_all(replace(p, log_every=1), trial)) == values(train_all(replace(p, log_every=40), trial))


@pytest.mark.parametrize("vmapped", [False, True])
def test_micro_batches_accumulate_to_the_whole_batch(digits: Task, vmapped: bool) -> None:
    p = program(digits, vmapped=vmapped)
    trials = [Trial(HYPER, seed=1), Trial(HYPER, seed=2)]
    whole = values(train_all(p, trials))
    assert values(train_all(replace(p, accumulate=4), trials)) == pytest.approx(whole, abs=1e-11)


def test_a_full_batch_is_deterministic_descent(digits: Task) -> None:
    """With the whole training set in every batch the data order can't matter, only the initialisation does."""
    p = program(digits, batch_size=digits.size(Split.TRAIN), num_steps=10, num_rungs=1)
    model = p.model(5)
    (outcome,) = train_all(p, [Trial({**HYPER, "weight_decay": 0.0}, seed=5)])
    x, y = digits.batch(Split.TRAIN, torch.arange(digits.size(Split.TRAIN)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
    for lr in p.schedule.multipliers(10, 10) * 3e-3:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.double()), y)
        loss.backward()
        optimizer.step()
    x, y = digits.batch(Split.VAL, torch.arange(digits.size(Split.VAL)))
    assert outcome.val_loss == pytest.approx(nn.functional.cross_entropy(model(x.double()), y).item(), abs=1e-11)


def test_one_sample_per_step_trains(digits: Task) -> None:
    p = program(digits, batch_size=1, num_steps=400, schedule=Schedule("constant"))
    (outcome,) = train_all(p, [Trial({**HYPER, "lr": 1e-3, "weight_decay": 0.0}, seed=0)])
    assert outcome.val_loss < 0.7 * math.log(10)


def test_a_trial_above_its_threshold_is_pruned_at_that_rung(digits: Task) -> None:
    p = program(digits)
    (outcome,) = train_all(p, [Trial(HYPER, seed=0, prune_above={20: 0.0})])
    assert (outcome.end, outcome.step) == (End.PRUNED, 20)


def test_rungs_are_evenly_spaced_and_end_with_the_run(digits: Task) -> None:
    assert program(digits, num_steps=95, num_rungs=4).rung_steps() == [24, 48, 72, 95]
    assert program(digits, num_steps=5, num_rungs=20).rung_steps() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_rule_with_a_rhythm_is_evaluated_at_the_same_steps_and_trains_alike_whatever_these_are(
    digits: Task, lanes: int
) -> None:
    def evaluated(num_rungs: int) -> tuple[list[int], list[float]]:
        of = program(digits, build_update=soap_schedule_free, num_steps=25, num_rungs=num_rungs, vmapped=lanes > 1)
        listener = Listener()
        outcomes = train_all(of, [Trial(HYPER, seed=seed) for seed in range(lanes)], listener)
        return [rung.step for rung in listener.rungs[0]], [outcome.val_loss for outcome in outcomes]

    often, rarely = evaluated(8), evaluated(1)
    assert often[0] == [0, 3, 6, 9, 12, 15, 18, 21, 25]  # SOAP's refresh is 10
    assert often[1] == rarely[1]


def test_bf16_lanes_compute_in_bf16_and_keep_float32_weights(digits: Task) -> None:
    seen: list[torch.dtype] = []

    class Watching(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x)
            seen.append(out.dtype)
            return out

    class Watched(Table):
        def model(self) -> nn.Module:
            inner = super().model()
            return Watching(*(inner if isinstance(inner, nn.Sequential) else [inner]))

    task = Watched(width=16)
    p = program(task, precision="bf16", num_steps=60)
    trials = [Trial(HYPER, seed=0), Trial(HYPER, seed=1)]
    plain = values(train_all(p, trials))
    assert torch.bfloat16 in seen
    seen.clear()
    lanes = values(train_all(replace(p, vmapped=True), trials))
    assert set(seen[1:]) == {torch.bfloat16}  # the first call builds the layout
    assert lanes == pytest.approx(plain, rel=0.05)


class Normed(Task):
    """A model with batch norm, a parameter that its loss never uses, and two classes that differ in scale."""

    facts = Facts("mlp", "complex", reference_batch_size=32)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.y = torch.arange(256) % 2
        self.x = torch.randn(256, 5, generator=generator) * (1 + 2 * self.y[:, None]) + self.y[:, None]

    def model(self) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.norm, self.last = nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 2)
                self.unused = nn.Parameter(torch.ones(3, 3))

            def forward(self, x: Tensor) -> Tensor:
                out: Tensor = self.last(torch.relu(self.norm(self.first(x))))
                return out

        return Net()

    def size(self, split: Split) -> int:
        return 128 if split is Split.TRAIN else 64

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        shift = {Split.TRAIN: 0, Split.VAL: 128, Split.TEST: 192}[split]
        return self.x[indices + shift], self.y[indices + shift]

    def to(self, device: torch.device) -> None:
        self.x, self.y = self.x.to(device), self.y.to(device)

    def digest(self) -> str:
        return "normed"


@pytest.mark.parametrize("vmapped", [False, True])
def test_batch_norm_is_scored_with_statistics_of_the_evaluated_weights(vmapped: bool) -> None:
    """At schedule-free's average the running statistics of training belong to other weights."""
    task = Normed()
    p = program(task, soap_schedule_free, batch_size=32, num_steps=60, schedule=Schedule("schedule_free"))
    p = replace(p, vmapped=vmapped)
    outcome = train_all(p, [Trial({**HYPER, "lr": 3e-2}, seed=0)])[0]
    assert outcome.val_score > 0.8
    # independent of how long the running average has had to settle: a start with absurd statistics ends the same
    original = Normed.model

    def absurd(self: Normed) -> nn.Module:
        model = original(self)
        model.norm.running_mean.fill_(1e6)  # type: ignore[union-attr, operator]
        return model

    task.model = absurd.__get__(task)  # type: ignore[method-assign]
    again = train_all(p, [Trial({**HYPER, "lr": 3e-2}, seed=0)])[0]
    assert again.val_loss == pytest.approx(outcome.val_loss, abs=1e-12)


def test_bf16_lanes_with_batch_norm_train() -> None:
    p = program(Normed(), batch_size=32, num_steps=60, precision="bf16", vmapped=True)
    outcomes = train_all(p, [Trial({**HYPER, "lr": 3e-2}, seed=0), Trial({**HYPER, "lr": 3e-2}, seed=1)])
    assert min(outcome.val_score for outcome in outcomes) > 0.8


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_landscape_leaves_its_path(vmapped: bool) -> None:
    p = program(Landscape(record=50), momentum_l2, batch_size=1, num_steps=8, schedule=Schedule(), vmapped=vmapped)
    outcomes = train_all(p, [Trial({**HYPER, "lr": 1e-2}, seed=seed) for seed in (0, 1)])
    paths = [outcome.artifacts["path.csv"].splitlines() for outcome in outcomes]
    assert [(path[0], len(path)) for path in paths] == [("step,x,y", 1 + 8)] * 2
    step, x, y = paths[1][1].split(",")
    assert step == "0"
    assert [float(x), float(y)] == pytest.approx(p.model(1).point.tolist(), abs=1e-7)  # type: ignore[operator]
    assert len(set(paths[0])) == 9
    assert train_all(replace(p, task=Landscape()), [Trial({**HYPER, "lr": 1e-2}, seed=0)])[0].artifacts == {}


def test_descent_reaches_a_minimum_and_stays_there() -> None:
    """The distance is no part of the loss: the gradient of its root at the minimum would be NaN."""
    task = Landscape(start=[0.0, 0.0], spread=0.0)
    p = program(task, momentum_l2, batch_size=1, num_steps=20, schedule=Schedule())
    (outcome,) = train_all(p, [Trial({**HYPER, "lr": 1.0}, seed=0)])
    assert (outcome.end, outcome.val_loss, outcome.val_score) == (End.FINISHED, 0.0, 0.0)


def test_a_parameter_that_the_loss_does_not_use_stays_out_of_the_row() -> None:
    layout = program(Normed(), batch_size=32).layout
    assert "unused" not in {slot.name for slot in layout.slots}
    assert {slot.name for slot in layout.slots} >= {"first.weight", "norm.weight", "last.bias"}


def test_a_model_that_replaces_its_parameters_is_caught() -> None:
    class Restless(Table):
        def model(self) -> nn.Module:
            model = super().model()
            model.register_forward_pre_hook(lambda module, _: module.double().float() and None)
            return model

    with pytest.raises(RuntimeError, match="left the arena"):
        train_all(program(Restless(width=16)), [Trial(HYPER, seed=0)])


def test_a_model_that_drops_its_gradients_trains_as_it_would(digits32: Task) -> None:
    class Tidy(Table):
        def model(self) -> nn.Module:
            model = super().model()
            model.register_forward_pre_hook(lambda module, _: module.zero_grad())
            return model

    trial = [Trial(HYPER, seed=0)]
    assert values(train_all(program(Tidy(width=16)), trial)) == values(train_all(program(digits32), trial))
