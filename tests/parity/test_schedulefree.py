"""Schedule-free over SGD and Adam against the authors' package, float64, 60 steps with warm-up.

The oracle warms up by (k+1)/W itself, weighs an average by its learning rate (`weight_lr_power=2`), and divides by
the same power of nothing else (`r=0`): the same weights as ours, which leave the constant peak out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pytest
import schedulefree
import torch
from torch import Tensor

from drive import LAYOUT, LAYOUT_DECAY_ALL, Gradient, defaults, largest, noisy, run, start, state_difference
from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout
from optsweep.optim.rule import Rule, State
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.sgd import SGD, Momentum
from optsweep.optim.update import Decay, Update

STEPS = 60


def oracle(
    build: Callable[[list[Tensor]], Any], layout: Layout, gradient: Gradient
) -> tuple[Tensor, Tensor, list[Tensor], Any]:
    row = start(layout)
    leaves = [view[0].detach().requires_grad_() for _, view in layout.views(row)]
    optimizer = build(leaves)
    optimizer.train()
    for step in range(STEPS):
        for leaf, (_, grad) in zip(leaves, layout.views(gradient(step, row)), strict=True):
            leaf.grad = grad[0].clone()
        optimizer.step()
    at_y = row.clone()
    optimizer.eval()
    return at_y, row, leaves, optimizer


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize(
    ("rule", "hyper", "build"),
    [
        (
            SGD,
            {},
            lambda p, w: schedulefree.SGDScheduleFree(p, lr=0.1, momentum=0.9, weight_decay=0.05, warmup_steps=w),
        ),
        (
            Adam,
            {"beta2": 0.97},
            lambda p, w: schedulefree.AdamWScheduleFree(
                p, lr=0.1, betas=(0.9, 0.97), weight_decay=0.05, warmup_steps=w, foreach=False
            ),
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_schedule_free_equals_the_authors_package(
    rule: type[Rule], hyper: Mapping[str, float], build: Callable[..., Any], warmup: int
) -> None:
    layout = LAYOUT_DECAY_ALL
    update = Update(rule(), layout, decay=Decay.DECOUPLED, iterate=ScheduleFree())
    multipliers = Schedule(warmup="linear", warmup_steps=warmup).multipliers(STEPS, STEPS)
    hypers = [defaults(update.floats, lr=0.1, weight_decay=0.05, **hyper)]
    y, state, c = run(update, hypers, num_steps=STEPS, multipliers=multipliers)
    their_y, their_x, leaves, optimizer = oracle(lambda p: build(p, warmup), layout, noisy(layout))
    assert largest(y, their_y) <= 1e-12
    assert largest(update.weights(y, state, c), their_x) <= 1e-12
    assert state_difference(layout, state["z"], leaves, optimizer, "z") <= 1e-12


@pytest.mark.parametrize("at", ["y", "z"])
def test_schedule_free_equals_its_three_line_definition(at: Literal["y", "z"]) -> None:
    """x, y and z kept apart, as the paper writes them."""
    update = Update(SGD(), LAYOUT, decay=Decay.DECOUPLED, iterate=ScheduleFree(at))
    multipliers = Schedule("cosine", {"final": 0.1}, "linear", 5).multipliers(STEPS, STEPS)
    lr, decay, beta = 0.1, 0.05, 0.8
    hypers = [defaults(update.floats, lr=lr, weight_decay=decay, averaging_beta=beta)]
    y, state, c = run(update, hypers, num_steps=STEPS, multipliers=multipliers)
    gradient = noisy(LAYOUT)
    x, z, total, largest_so_far = start(LAYOUT), start(LAYOUT), 0.0, 0.0
    decays = torch.zeros_like(x)
    decays[:, : LAYOUT.decayed] = decay
    for step, multiplier in enumerate(multipliers):
        point = beta * x + (1 - beta) * z
        largest_so_far = max(largest_so_far, multiplier)
        total += largest_so_far**2
        z = z - lr * multiplier * (gradient(step, point) + decays * (point if at == "y" else z))
        share = largest_so_far**2 / total
        x = (1 - share) * x + share * z
    assert largest(update.weights(y, state, c), x) <= 1e-12
    assert largest(state["z"], z) <= 1e-12
    assert largest(y, beta * x + (1 - beta) * z) <= 1e-12


def test_evaluating_changes_nothing() -> None:
    update = Update(Adam(), LAYOUT, iterate=ScheduleFree())
    hypers = [defaults(update.floats)]
    table = update.coefficients(hypers[0], np.ones(STEPS))

    def evaluate(step: int, params: Tensor, state: State) -> None:
        update.weights(params, state, {name: float(values[step]) for name, values in table.items()})

    undisturbed, _, _ = run(update, hypers)
    disturbed, _, _ = run(update, hypers, each=evaluate)
    assert torch.equal(undisturbed, disturbed)


def test_zero_multipliers_at_the_start_give_no_nan() -> None:
    update = Update(SGD(), LAYOUT, iterate=ScheduleFree())
    multipliers = np.concatenate([np.zeros(3), np.ones(7)])
    y, state, c = run(update, [defaults(update.floats)], num_steps=10, multipliers=multipliers)
    assert torch.isfinite(update.weights(y, state, c)).all()


def test_momentum_under_schedule_free_is_sgd() -> None:
    rules: tuple[Rule, ...] = (SGD(), Momentum())
    runs = [
        run(
            Update(rule, LAYOUT, iterate=ScheduleFree()),
            [defaults({"averaging_beta": ScheduleFree.floats["averaging_beta"]})],
        )
        for rule in rules
    ]
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[1][1].keys() == {"z"}
