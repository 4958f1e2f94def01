"""Drives rules and oracles over the same gradients."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from optsweep.optim.layout import Layout, Role
from optsweep.optim.rule import Domain, Floats, Rule, State
from optsweep.optim.update import Update

CONF = Path(__file__).parents[1] / "conf"
SHAPES = {
    "embed": (7, 4),
    "stem": (4, 3, 3, 3),
    "conv": (6, 4, 2, 2),
    "hidden1": (6, 4),
    "hidden2": (6, 4),
    "wide": (3, 9),
    "head": (5, 6),
    "bias1": (6,),
    "bias2": (5,),
}
ROLES = {
    "embed": Role.EMBEDDING,
    "stem": Role.HEAD,
    "conv": Role.CONV,
    "hidden1": Role.HIDDEN,
    "hidden2": Role.HIDDEN,
    "wide": Role.HIDDEN,
    "head": Role.HEAD,
    "bias1": Role.VECTOR,
    "bias2": Role.VECTOR,
}
LAYOUT = Layout.build(SHAPES, ROLES)
LAYOUT_DECAY_ALL = Layout.build(SHAPES, ROLES, decay_all=True)

NOISE = 200
"""Steps for which there are random gradients."""

Gradient = Callable[[int, Tensor], Tensor]
"""(step, parameters [K, P]) → gradients [K, P]."""


@dataclass(frozen=True)
class RuleEntry:
    """One YAML of conf/optimizer/."""

    name: str
    cls: type[Rule]
    floats: Mapping[str, float]
    static: Mapping[str, Any]

    def rule(self, **static: Any) -> Rule:
        return self.cls(**{**self.static, **static})

    def __str__(self) -> str:
        return self.name


def registry() -> list[RuleEntry]:
    """Every optimizer that has a YAML, other than `external`."""
    entries = []
    for path in sorted((CONF / "optimizer").glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        if config["name"] == "external":
            continue
        module, _, name = config.pop("_target_").rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        options = {key: value for key, value in config.items() if key not in ("name", "lr")}
        floats = {key: options.pop(key) for key in cls.floats}
        entries.append(RuleEntry(config["name"], cls, floats, options))
    return entries


def defaults(floats: Mapping[str, Domain], **hyper: float) -> dict[str, float]:
    """Default values, a learning rate of 1e-2, no weight decay, and `hyper` over them."""
    return {"lr": 1e-2, "weight_decay": 0.0, **{name: d.default for name, d in floats.items()}, **hyper}


def start(layout: Layout = LAYOUT, lanes: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random parameters, the same in every lane; padding is zero, as in the arena."""
    generator = torch.Generator().manual_seed(seed)
    return (
        (torch.randn(1, layout.size, generator=generator, dtype=torch.float64) * mask(layout))
        .repeat(lanes, 1)
        .to(dtype)
    )


def mask(layout: Layout) -> Tensor:
    """1 where a parameter lies, 0 in the padding."""
    row = torch.zeros(1, layout.size, dtype=torch.float64)
    for _, view in layout.views(row):
        view.fill_(1.0)
    return row


def noisy(layout: Layout = LAYOUT, seed: int = 1, pull: float = 0.1) -> Gradient:
    """Random gradients, plus a pull to zero so that a difference in the parameters feeds back."""

    inside = mask(layout)
    noise = inside * torch.randn(NOISE, layout.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def gradient(step: int, params: Tensor) -> Tensor:
        return torch.add(noise[step].to(params.dtype), params * inside.to(params.dtype), alpha=pull)

    return gradient


def run(
    update: Update,
    hypers: Sequence[Mapping[str, float]],
    *,
    num_steps: int = 60,
    params: Tensor | None = None,
    gradient: Gradient | None = None,
    multipliers: Floats | None = None,
    each: Callable[[int, Tensor, State], None] | None = None,
) -> tuple[Tensor, State, dict[str, float | Tensor]]:
    """Parameters, state and last coefficients after `num_steps`, one lane per entry of `hypers`.

    One lane gets floats, several get `[K, 1]` tensors, as the training loop does it.
    """
    layout = update.layout
    params = start(layout, len(hypers)) if params is None else params.clone()
    gradient = gradient or noisy(layout)
    multipliers = np.ones(num_steps) if multipliers is None else multipliers
    tables = [update.coefficients(hyper, multipliers) for hyper in hypers]
    columns = {name: np.stack([table[name] for table in tables], 1) for name in tables[0]}
    lanes = {name: torch.from_numpy(values).to(params.dtype).unsqueeze(-1) for name, values in columns.items()}
    state = update.init(params)
    c: dict[str, float | Tensor] = {}
    for step in range(num_steps):
        if len(hypers) == 1:
            c = {name: float(values[step, 0]) for name, values in columns.items()}
        else:
            c = {name: values[step] for name, values in lanes.items()}
        update.step(params, gradient(step, params), state, c, step)
        if each is not None:
            each(step, params, state)
    return params, state, c


def coefficients(tables: Sequence[Mapping[str, Floats]], step: int, dtype: torch.dtype) -> dict[str, float | Tensor]:
    """One step's coefficients of all lanes."""
    if len(tables) == 1:
        return {name: float(values[step]) for name, values in tables[0].items()}
    return {name: torch.tensor([[t[name][step]] for t in tables], dtype=torch.float64).to(dtype) for name in tables[0]}


def run_oracle(
    build: Callable[[list[Tensor]], Any],
    *,
    layout: Layout,
    num_steps: int = 60,
    gradient: Gradient | None = None,
    multipliers: Iterable[float] | None = None,
    lr: float = 1e-2,
    each: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, list[Tensor], Any]:
    """The row after `num_steps` of a torch optimizer over the layout's parameters, its leaves, and itself."""
    row = start(layout)
    gradient = gradient or noisy(layout)
    leaves = [view[0].detach().requires_grad_() for _, view in layout.views(row)]
    optimizer = build(leaves)
    factors = list(multipliers) if multipliers is not None else [1.0] * num_steps
    for step in range(num_steps):
        grads = gradient(step, row)
        for leaf, (_, grad) in zip(leaves, layout.views(grads), strict=True):
            leaf.grad = grad[0].clone()
        for group in optimizer.param_groups:
            group["lr"] = lr * factors[step]
        optimizer.step()
        if each is not None:
            each(step, row)
    return row, leaves, optimizer


def largest(a: Tensor, b: Tensor) -> float:
    """Largest difference."""
    return float((a - b).detach().abs().max())


def state_difference(layout: Layout, ours: Tensor, leaves: Sequence[Tensor], optimizer: Any, name: str) -> float:
    """Largest difference between a state row of ours and an oracle's per-parameter state."""
    pairs = zip(layout.views(ours), leaves, strict=True)
    return max(largest(view[0], optimizer.state[leaf][name].reshape(view[0].shape)) for (_, view), leaf in pairs)
