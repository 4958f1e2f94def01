"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, orthogonalised, for hidden matrices.

    m ← μm + (1−μ)g,  u = μm + (1−μ)g with Nesterov, else m
    direction = scale · NewtonSchulz(u),  whose singular values lie about 1

`scale` is 0.2·√max(m, n) by default (Liu et al. 2025, arXiv 2502.16982), which gives a step the size of Adam's, so that
one learning rate serves both; `original` is √max(1, m/n). Embeddings, the output layer, vectors, stem and depthwise
convolutions take Adam with `aux_lr_factor` times the learning rate; other kernels are O × (I·kh·kw) matrices. Weight
decay goes by the main learning rate everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout, Role, ShapeGroup
from optsweep.optim.matrices import gapless, matrices_of
from optsweep.optim.partition import Partition
from optsweep.optim.rule import EPS, UNIT, Coefficients, Domain, Floats, Rule, State, Steps

Scale = Literal["match_adam", "original"]
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, by its author: the steepest at zero, not quite converging to one."""
NORM_EPS = 1e-7


class Muon(Partition):
    """One buffer for hidden matrices (none without momentum), Adam's two for the rest."""

    floats: ClassVar[Mapping[str, Domain]] = {
        "momentum": Domain(*UNIT, 0.95),
        "aux_lr_factor": Domain(0.0, 1e6, 1.0),
        "aux_beta1": Domain(*UNIT, 0.9),
        "aux_beta2": Domain(*UNIT, 0.95),
        "aux_eps": EPS,
    }
    momentum_floats: ClassVar[frozenset[str]] = frozenset({"momentum", "aux_beta1"})

    def __init__(
        self, nesterov: bool = True, ns_steps: int = 5, scale: Scale = "match_adam", bf16: bool = False
    ) -> None:
        super().__init__({"main": Orthogonalized(nesterov, ns_steps, scale, bf16), "aux": Adam()})

    def label(self, group: ShapeGroup) -> str:
        """`main` for hidden matrices and kernels, `aux` for all else."""
        return "main" if group.role in (Role.HIDDEN, Role.CONV) else "aux"

    def notes(self, layout: Layout) -> list[str]:
        """Which parameters are orthogonalised. Raises ValueError if none are."""
        if all(self.label(group) != "main" for group in layout.groups):
            raise ValueError("optimizer=muon: this model has no hidden matrices to orthogonalise; choose adamw")
        return [f"muon, {line}" for line in super().notes(layout)]


class Orthogonalized(Rule):
    """Muon's rule for matrices; same-shaped ones are one batch."""

    floats: ClassVar[Mapping[str, Domain]] = {"momentum": Domain(*UNIT, 0.95)}
    momentum_floats: ClassVar[frozenset[str]] = frozenset(floats)
    has_momentum = True

    def __init__(self, nesterov: bool, ns_steps: int, scale: Scale, bf16: bool) -> None:
        if scale not in ("match_adam", "original"):
            raise ValueError(f"optimizer.scale must be match_adam or original, not {scale!r}")
        if ns_steps < 1:
            raise ValueError(f"optimizer.ns_steps must be 1 or more, not {ns_steps}")
        self.nesterov = nesterov
        self.ns_steps = ns_steps
        self.scale = scale
        self.bf16 = bf16

    def init(self, params: Tensor, layout: Layout) -> State:
        """m, zero."""
        return {"m": torch.zeros_like(params)} if self.has_momentum else {}

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """1−μ."""
        return {"1-momentum": np.full(len(steps), 1 - hyper["momentum"])} if self.has_momentum else {}

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """Scaled orthogonal factors."""
        source = grads
        if self.has_momentum:
            source = state["m"].lerp_(grads, c["1-momentum"])
            if self.nesterov:
                source = torch.lerp(source, grads, c["1-momentum"])
        direction = torch.empty_like(grads) if gapless(layout) else torch.zeros_like(grads)
        for batch in matrices_of(layout):
            matrices = batch.take(source)
            scale = step_scale(batch.rows, batch.columns, self.scale)
            low = matrices.bfloat16() if self.bf16 else matrices
            if matrices.is_cuda:
                batch.put(direction, _fused(low, self.ns_steps, scale))
            else:
                batch.put(direction, orthogonalized(low, self.ns_steps).to(matrices.dtype).mul_(scale))
        return direction


def step_scale(rows: int, columns: int, scale: Scale) -> float:
    """What an orthogonal matrix is multiplied by: 0.2·√max(m, n), or √max(1, m/n)."""
    return 0.2 * sqrt(max(rows, columns)) if scale == "match_adam" else sqrt(max(1.0, rows / columns))


def orthogonalized(matrices: Tensor, num_steps: int) -> Tensor:
    """Newton–Schulz iteration towards UVᵀ of `[…, m, n]`, singular values to about 0.7 – 1.2.

    X ← aX + (bA + cA²)X with A = XXᵀ, from X = G/‖G‖; zero padding stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = _of_norm_one(x)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def _fused(matrices: Tensor, num_steps: int, scale: float) -> Tensor:
    """`scale · orthogonalized(matrices)` to rounding, sums and scale taken where a GPU takes the products."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = _of_norm_one(matrices.mT if tall else matrices)
    shape, x = x.shape, x.reshape(-1, *x.shape[-2:])
    for last in (step == num_steps for step in range(1, num_steps + 1)):
        by = scale if last else 1.0
        gram = x @ x.mT
        inner = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, inner, x, beta=a * by, alpha=by)
    x = x.view(shape)
    return x.mT if tall else x


def _of_norm_one(matrices: Tensor) -> Tensor:
    normed: Tensor = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(NORM_EPS)
    return normed
