"""The rules as torch optimizers in a loop of one's own, at charlm's shapes: against optsweep's loop, and against torch.

A training step (forward, backward, update) of a loop by hand with `optsweep.optim.for_model` is held against one of
optsweep's own loop, whose rows take the gradients as they come; an elementwise rule's `step()` against torch's foreach
version of the same rule, over parameters and gradients of the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from benchmarks.side_by_side import Figure, Ratio, Round, clock, compare, timed
from benchmarks.trials import arm, built, program_of, run_of, trial
from torch import nn

from optsweep.optim.family import FAMILY, for_model
from optsweep.tasks.base import Split
from optsweep.train.program import Program
from optsweep.train.trial import Trial

STEPS = 20
"""Per round: two refresh periods of SOAP."""

WHOLE = {"adamw": "cosine", "soap": "cosine", "soap + schedule_free": "schedule_free"}
"""Optimizers of whole training steps, with their schedules."""

LR = 1e-3

ELEMENTWISE: Mapping[str, tuple[Any, Mapping[str, Any], Mapping[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, {}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, {}),
    "adagrad": (torch.optim.Adagrad, {}, {}),
    "rmsprop": (torch.optim.RMSprop, {}, {}),
    "adadelta": (torch.optim.Adadelta, {}, {}),
    "adam": (torch.optim.Adam, {}, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}, {"weight_decay": 0.01, "decay_apply_to": "all"}),
}
"""torch's class of the same rule, its options, and ours."""


def run(device: torch.device) -> Iterator[Figure]:
    """Whole training steps, then bare ones of the optimizer."""
    for name, schedule in WHOLE.items():
        yield _whole(name, schedule, device)
    shapes = _shapes(device)
    for name, (cls, theirs, ours) in ELEMENTWISE.items():
        ratio = compare(
            _bare(shapes, device, lambda ps, n=name, o=ours: FAMILY[n](ps, lr=LR, **o)),
            {"": _bare(shapes, device, lambda ps, c=cls, o=theirs: c(ps, lr=LR, foreach=True, **o))},
            rounds=60,
            warmup=5,
        )[""]
        against = f"torch.optim.{cls.__name__}(foreach=True)"
        yield _figure(f"{name}, step()", against, ratio, 1.0, "0.3 – 0.9")


def _whole(name: str, schedule: str, device: torch.device) -> Figure:
    """A loop by hand over the samples of optsweep's, with the library's optimizer."""
    rule = name.split()[0]
    b = built(arm("charlm", f"optimizer={rule}", f"schedule={schedule}"), device)
    run = run_of(program_of(b), [trial(b)])
    ratio = compare(
        _by_hand(program_of(b), trial(b), rule, schedule, device),
        {"": lambda: timed(lambda: run.advance(run.tick + STEPS), device)},
        rounds=40,
    )[""]
    return _figure(f"{name}, training step", "optsweep's loop", ratio, 1.1, "1.00")


def _by_hand(program: Program, trial: Trial, rule: str, schedule: str, device: torch.device) -> Round:
    """Rounds of `STEPS` training steps by hand."""
    module, task = program.model(trial.seed).to(device), program.task
    options: dict[str, Any] = {"schedule": program.schedule, "total_steps": program.num_steps}
    if schedule == "schedule_free":
        options = {"averaging": schedule}
    decay = trial.hyper["weight_decay"]
    optimizer = for_model(module, rule, lr=trial.hyper["lr"], weight_decay=decay, **options)
    first = 0

    def steps() -> None:
        nonlocal first
        indices = torch.from_numpy(task.train_indices(trial.seed, first, STEPS, program.batch_size)).to(device)
        first += STEPS
        for batch in indices:
            inputs, targets = task.batch(Split.TRAIN, batch)
            loss = task.loss(module(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return lambda: timed(steps, device)


def _bare(shapes: list[tuple[int, ...]], device: torch.device, build: Any) -> Round:
    """Rounds of `STEPS` steps of an optimizer, with gradients that stay as they are."""
    generator = torch.Generator(device).manual_seed(0)
    leaves = [nn.Parameter(torch.randn(shape, device=device, generator=generator) * 0.1) for shape in shapes]
    optimizer = build(leaves)
    for leaf in leaves:
        leaf.grad = torch.randn(leaf.shape, device=device, generator=generator)

    def round_() -> float:
        begin = clock(device)
        for _ in range(STEPS):
            optimizer.step()
        return clock(device) - begin

    return round_


def _shapes(device: torch.device) -> list[tuple[int, ...]]:
    """Of charlm's parameters."""
    model = program_of(built(arm("charlm"), device)).model(0)
    return [tuple(parameter.shape) for parameter in model.parameters()]


def _figure(what: str, against: str, ratio: Ratio, target: float, expected: str) -> Figure:
    return Figure(
        what=what,
        ours=f"{1000 * ratio.ours / STEPS:.3f} ms",
        against=f"{against}: {1000 * ratio.theirs / STEPS:.3f} ms",
        value=ratio.value,
        low=ratio.low,
        high=ratio.high,
        rounds=ratio.rounds,
        expected=expected,
        target=target,
    )
