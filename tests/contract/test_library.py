"""The rules as torch optimizers: step by step the sweep's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drive import LAYOUT, LAYOUT_DECAY_ALL, RuleEntry, defaults, registry, run
from kinds import BatchNorm, Experts, Plain
from leaves import SCHEDULE, STEPS, Leaves, shipped, train
from optsweep.errors import UserError
from optsweep.optim import SOAP, for_model
from optsweep.optim.family import AVERAGINGS, FAMILY, RULES
from optsweep.optim.iterate import Iterate
from optsweep.optim.layout import Layout
from optsweep.optim.update import Decay, Update
from optsweep.tasks.base import Split, Task
from optsweep.train.program import Program
from optsweep.train.randomness import step_seeds
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Trial

ENTRIES = registry()
ALLOWED = [(entry, decay) for entry in ENTRIES for decay in Decay if decay not in entry.cls.refused_decays]

every_averaging = pytest.mark.parametrize("averaging", AVERAGINGS)


def reference(
    entry: RuleEntry, averaging: str, decay: Decay, layout: Layout = LAYOUT, clip_norm: float | None = None
) -> tuple[Tensor, Tensor]:
    """The row and the weights to ship, as the sweep's update has them."""
    iterate: Iterate = AVERAGINGS[averaging]()
    update = Update(entry.rule(), layout, decay=decay, clip_norm=clip_norm, iterate=iterate)
    hyper = defaults(update.floats, weight_decay=0.1)
    row, state, c = run(update, [hyper], num_steps=STEPS, multipliers=SCHEDULE.multipliers(STEPS, STEPS))
    return row, update.weights(row, state, c)


@pytest.mark.parametrize(("entry", "decay"), ALLOWED, ids=str)
@every_averaging
def test_every_rule_decay_and_averaging_steps_as_in_the_sweep(entry: RuleEntry, averaging: str, decay: Decay) -> None:
    options: dict[str, Any] = {"averaging": averaging, "schedule": SCHEDULE, "total_steps": STEPS, **entry.static}
    model = Leaves()
    optimizer = FAMILY[entry.name](model.groups(), lr=1e-2, weight_decay=0.1, decay_mode=str(decay), **options)
    row = train(model, optimizer)
    expected, weights = reference(entry, averaging, decay)
    assert torch.equal(row, expected)
    assert torch.equal(shipped(model, optimizer), weights)
    assert torch.equal(model.row(), expected)  # looking has changed nothing


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name in ("adamw", "soap")], ids=str)
def test_decay_of_all_and_clipping_are_the_sweeps(entry: RuleEntry) -> None:
    model = Leaves(LAYOUT_DECAY_ALL)
    options: dict[str, Any] = {"schedule": SCHEDULE, "total_steps": STEPS, "decay_apply_to": "all", "clip_norm": 0.5}
    optimizer = FAMILY[entry.name](model.groups(), lr=1e-2, weight_decay=0.1, **options)
    expected, _ = reference(entry, "none", Decay.DECOUPLED, LAYOUT_DECAY_ALL, clip_norm=0.5)
    assert torch.equal(train(model, optimizer), expected)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_moves_along_gradients_as_they_lie(decay: float) -> None:
    """In pieces it is to the last bit what it is in a row, as clipping by a norm that is never reached has it."""
    torch.manual_seed(0)
    values = [torch.randn(shape) for shape in [(3,), (7, 5), (1,), (129,), (4, 3, 3, 3)]]
    sides = []
    for clip_norm in (None, 1e30):
        leaves = [nn.Parameter(value.clone()) for value in values]
        optimizer = FAMILY["sgd"](leaves, lr=0.37, weight_decay=decay, decay_apply_to="all", clip_norm=clip_norm)
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            for leaf in leaves:
                leaf.grad = torch.randn(leaf.shape, generator=generator)
            given = [leaf.grad for leaf in leaves]
            before = [grad.clone() for grad in given if grad is not None]
            optimizer.step()
            assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True) if a is not None)
        sides.append(leaves)
    assert all(torch.equal(a, b) for a, b in zip(*sides, strict=True))


def program_of(task: Task, rule: str, averaging: str) -> Program:
    def build(layout: Layout) -> Update:
        return Update(RULES[rule](), layout, decay=Decay.DECOUPLED, iterate=AVERAGINGS[averaging]())

    return Program(task, build, SCHEDULE, STEPS, batch_size=32)


def batches(program: Program, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step, indices in enumerate(program.task.train_indices(seed, 0, STEPS, 32)):
        torch.manual_seed(step_seeds(seed, step, step + 1)[0])
        yield program.task.batch(Split.TRAIN, torch.from_numpy(indices))


@pytest.mark.parametrize("task", [Plain(), Experts()], ids=["plain", "experts"])
@pytest.mark.parametrize(("rule", "averaging"), [("soap", "schedule_free"), ("adamw", "ema"), ("lamb", "none")])
def test_a_loop_by_hand_trains_as_the_sweeps_loop(task: Task, rule: str, averaging: str) -> None:
    program = program_of(task, rule, averaging)
    hyper = defaults(program.build_update(program.layout).floats, weight_decay=0.1)
    trial = Trial(hyper, seed=3)
    missing = {name for name, _ in program.model(3).named_parameters()} if isinstance(task, Experts) else set()
    sweep = Run(program, [trial], Silent(), rare=missing)
    sweep.advance(STEPS)

    model = program.model(3)
    options: dict[str, Any] = {"weight_decay": 0.1, "averaging": averaging}
    optimizer = for_model(model, rule, lr=hyper["lr"], schedule=SCHEDULE, total_steps=STEPS, **options)
    for x, y in batches(program, 3):
        optimizer.zero_grad()
        task.loss(model(x), y).backward()
        optimizer.step()
    ours, theirs = optimizer.averaged_state_dict(model), sweep.shown([0]).weights
    for name in theirs:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6), name


def test_batch_norm_is_recomputed_and_put_back() -> None:
    torch.manual_seed(0)
    model = BatchNorm().model()
    optimizer = for_model(model, "adamw", lr=1e-2, averaging="ema", ema_decay=0.9)
    inputs = [torch.randn(16, 4) for _ in range(20)]
    for x in inputs:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.get_rng_state()

    def look(batches: Any = None) -> None:
        with optimizer.averaged(model, batches):
            first, norm = model.get_submodule("0"), model.get_submodule("1")
            assert isinstance(norm, nn.BatchNorm1d)
            assert norm.running_mean is not None
            assert not model.training
            with torch.no_grad():
                means = torch.stack([first(x).mean(0) for x in inputs[:16]]).mean(0)
            assert torch.allclose(norm.running_mean, means, atol=1e-5)
            assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])
            with pytest.raises(UserError, match="step outside"):
                optimizer.step()
            raise KeyError("mine")

    with pytest.raises(UserError, match="1 has batch-norm statistics of other weights; give batches"):
        look()
    with pytest.raises(KeyError, match="mine"):
        look([(x, 0) for x in inputs])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), noise)
    kept = optimizer.averaged_state_dict(model, ())
    assert torch.equal(kept["1.running_mean"], before["1.running_mean"])


def test_looking_at_the_average_changes_nothing() -> None:
    def end(looks: int) -> Tensor:
        model = Leaves()
        optimizer = SOAP(model.groups(), lr=1e-2, averaging="schedule_free", weight_decay=0.1)
        for step in range(STEPS):
            train(model, optimizer, step, 1)
            for _ in range(looks):
                shipped(model, optimizer)
        return model.row()

    assert torch.equal(end(0), end(2))
