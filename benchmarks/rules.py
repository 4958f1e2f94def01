"""One optimizer step, without forward and backward pass, against the same optimizer of other libraries.

All sides get the same gradients, freshly written before every step and outside the clock. A round is one refresh period
of SOAP, so the figure includes its share of refreshes. Ours runs as in the loop: coefficients of all steps computed
beforehand, one lane.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import Any

import numpy as np
import torch
from benchmarks.side_by_side import Figure, Round, clock, compare
from torch import Tensor, nn

from optsweep.optim.adam import Adam
from optsweep.optim.adaptive import AdaDelta, AdaGrad, RMSprop
from optsweep.optim.iterate import Past
from optsweep.optim.lamb import LAMB
from optsweep.optim.layout import Layout, Role
from optsweep.optim.lion import Lion
from optsweep.optim.muon import Muon
from optsweep.optim.rule import Rule
from optsweep.optim.sgd import SGD, Momentum, Nesterov
from optsweep.optim.soap import SOAP
from optsweep.optim.update import Decay, Update

STEPS = 10
"""Per round: one refresh period of SOAP on every side."""

LR = 1e-3

Build = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Any]]
"""(hidden matrices, all other parameters) → optimizers to step one after the other."""


@dataclass(frozen=True)
class Contest:
    """A rule and who it is held against, by name."""

    name: str
    rule: Rule
    others: Mapping[str, Build]
    target: float | None
    expected: str
    decay: Decay = Decay.NONE


def contests(device: torch.device) -> list[Contest]:
    """Every rule with the opponents that are installed."""
    soap = {
        "precondition_frequency": STEPS,
        "weight_decay": 0.0,
    }
    adam = {"betas": (0.9, 0.999), "eps": 1e-8}
    result = [
        Contest(
            "soap",
            SOAP(refresh=STEPS),
            {
                **_of("pytorch_optimizer", "SOAP", betas=(0.95, 0.95), max_precondition_dim=10000, **soap),
                **_of(
                    "heavyball",
                    "SOAP",
                    betas=(0.95, 0.95),
                    max_precond_dim=10000,
                    merge_dims=False,
                    use_precond_schedule=False,
                    **soap,
                ),
            },
            1.0,
            "0.7",
        ),
        Contest("lamb", LAMB(), _of("pytorch_optimizer", "Lamb", max_grad_norm=0.0, **adam), 1.0, "0.5"),
        Contest("lion", Lion(), _of("pytorch_optimizer", "Lion"), 1.0, "0.5"),
        *_muons(device),
    ]
    optim = torch.optim
    elementwise: list[tuple[str, Rule, Any, dict[str, Any], Decay]] = [
        ("sgd", SGD(), optim.SGD, {}, Decay.NONE),
        ("momentum", Momentum(), optim.SGD, {"momentum": 0.9}, Decay.NONE),
        ("nesterov", Nesterov(), optim.SGD, {"momentum": 0.9, "nesterov": True}, Decay.NONE),
        ("adagrad", AdaGrad(), optim.Adagrad, {}, Decay.NONE),
        ("rmsprop", RMSprop(), optim.RMSprop, {}, Decay.NONE),
        ("adadelta", AdaDelta(), optim.Adadelta, {}, Decay.NONE),
        ("adam", Adam(), optim.Adam, adam, Decay.NONE),
        ("adamw", Adam(), optim.AdamW, {**adam, "weight_decay": 0.01}, Decay.DECOUPLED),
    ]
    for name, rule, cls, options, decay in elementwise:
        others = {f"torch.optim.{cls.__name__}(foreach=True)": _builder(cls, foreach=True, **options)}
        if name == "adamw":
            others["torch.optim.AdamW(fused=True)"] = _builder(cls, fused=True, **options)
        result.append(Contest(name, rule, others, 1.1, "0.3 – 0.9", decay))
    return result


def _muons(device: torch.device) -> list[Contest]:
    """Opponents iterate in bf16, faster on a GPU only: there ours does so too, and as by default, in float32."""
    others = {**_muon_pytorch_optimizer(), **_muon_torch(), **_muon_heavyball()}
    if device.type != "cuda":
        return [Contest("muon", Muon(), others, 1.0, "0.8")]
    alike = Contest("muon, optimizer.bf16=true,", Muon(bf16=True), others, 1.0, "0.8")
    return [alike, Contest("muon, in float32,", Muon(), others, None, "5")]


def run(device: torch.device) -> Iterator[Figure]:
    """All rules at the shapes of charlm: 135k parameters, 12 hidden matrices of width 64."""
    from benchmarks.trials import arm, built

    program = built(arm("charlm"), device).program
    yield from contest(program.layout, device, rounds=60)


def contest(layout: Layout, device: torch.device, rounds: int) -> Iterator[Figure]:
    """Figures of all contests over the parameters of a layout."""
    for entry in contests(device):
        theirs: dict[str, Round] = {}
        for name, build in entry.others.items():
            try:
                theirs[name] = their_round(build, layout, device)
                theirs[name]()
            except Exception as error:  # an opponent that can't run here is no reason to have no table
                print(f"  {entry.name}: {name} left out: {type(error).__name__}: {str(error).splitlines()[0]}")
                theirs.pop(name, None)
        ratios = compare(our_round(entry, layout, device), theirs, rounds=rounds, warmup=5)
        for name, ratio in ratios.items():
            target = None if "fused" in name else entry.target
            yield ratio.figure(f"{entry.name} step", name, steps=STEPS, expected=entry.expected, target=target)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def our_round(entry: Contest, layout: Layout, device: torch.device) -> Round:
    """`STEPS` steps of a rule over one row, as the training loop calls it."""
    update = Update(entry.rule, layout, decay=entry.decay)
    grads, bank = torch.empty(1, layout.size, device=device), gradients(layout, device)
    params = torch.zeros(1, layout.size, device=device)
    for _, view in layout.views(params):
        view.copy_(torch.randn(view.shape, device=device) * 0.1)
    state = update.init(params)
    floats = {name: domain.default for name, domain in update.floats.items()}
    hyper = {"lr": LR, "weight_decay": 0.01, **floats}
    ticks = count()

    def round_() -> float:
        seconds = 0.0
        first = next(ticks) * STEPS
        table = update.coefficients(hyper, np.ones(STEPS), Past().after(np.ones(first)))
        for i in range(STEPS):
            c = {name: float(values[i]) for name, values in table.items()}
            grads.copy_(bank[i % len(bank)])
            begin = clock(device)
            update.step(params, grads, state, c, first + i)
            seconds += clock(device) - begin
        return seconds

    return round_


def their_round(build: Build, layout: Layout, device: torch.device) -> Round:
    """`STEPS` steps of optimizers over ordinary parameters of the same shapes."""
    bank = [[grad[0] for _, grad in layout.views(row)] for row in gradients(layout, device)]
    leaves = [nn.Parameter(torch.randn(grad.shape, device=device) * 0.1) for grad in bank[0]]
    for leaf in leaves:
        leaf.grad = torch.empty_like(leaf)
    kinds = [slot.role in (Role.HIDDEN, Role.CONV) for slot in layout.slots]
    hidden = [leaf for leaf, matrix in zip(leaves, kinds, strict=True) if matrix]
    rest = [leaf for leaf, matrix in zip(leaves, kinds, strict=True) if not matrix]
    optimizers = build(hidden, rest)

    def round_() -> float:
        seconds = 0.0
        for i in range(STEPS):
            for leaf, grad in zip(leaves, bank[i % len(bank)], strict=True):
                if leaf.grad is None:
                    leaf.grad = torch.empty_like(leaf)
                leaf.grad.copy_(grad)
            begin = clock(device)
            for optimizer in optimizers:
                optimizer.step()
            seconds += clock(device) - begin
        return seconds

    return round_


def gradients(layout: Layout, device: torch.device, number: int = 2) -> list[Tensor]:
    """Random rows, zero in the padding, the same for every side."""
    generator = torch.Generator(device).manual_seed(0)
    rows = [torch.zeros(1, layout.size, device=device) for _ in range(number)]
    for row in rows:
        for _, view in layout.views(row):
            view.copy_(torch.randn(view.shape, device=device, generator=generator))
    return rows


# -- opponents -----------------------------------------------------------------------------------------------------


def library(name: str) -> ModuleType | None:
    """A library if it is installed and imports; HeavyBall compiled on a GPU only: on a CPU it takes minutes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except Exception as error:
        if name not in _missing:
            print(f"  {name} left out: {type(error).__name__}: {str(error).splitlines()[0]}")
        _missing.add(name)
        return None
    if name == "heavyball":
        module.utils.compile_mode = "default" if torch.cuda.is_available() else None
        logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    return module


_missing: set[str] = set()


def _builder(cls: Any, **options: Any) -> Build:
    return lambda hidden, rest: [cls([*hidden, *rest], lr=LR, **options)]


def _of(name: str, cls: str, **options: Any) -> dict[str, Build]:
    module = library(name)
    return {f"{name}.{cls}": _builder(getattr(module, cls), **options)} if module else {}


def _muon_pytorch_optimizer() -> dict[str, Build]:
    module = library("pytorch_optimizer")
    if module is None:
        return {}

    def build(hidden: Sequence[Tensor], rest: Sequence[Tensor]) -> Sequence[Any]:
        groups = [{"params": list(hidden), "use_muon": True}, {"params": list(rest), "use_muon": False}]
        return [module.Muon(groups, lr=LR, use_adjusted_lr=True)]

    return {"pytorch_optimizer.Muon": build}


def _muon_torch() -> dict[str, Build]:
    def build(hidden: Sequence[Tensor], rest: Sequence[Tensor]) -> Sequence[Any]:
        muon = torch.optim.Muon(list(hidden), lr=LR, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.Adam(list(rest), lr=LR, betas=(0.9, 0.95), foreach=True)]

    return {"torch.optim.Muon (bf16) + Adam(foreach=True)": build}


def _muon_heavyball() -> dict[str, Build]:
    module = library("heavyball")
    if module is None:
        return {}

    def build(hidden: Sequence[Tensor], rest: Sequence[Tensor]) -> Sequence[Any]:
        return [module.Muon(list(hidden), lr=LR), module.AdamW(list(rest), lr=LR, betas=(0.9, 0.95))]

    return {"heavyball.Muon + AdamW": build}
