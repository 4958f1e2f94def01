"""SOAP (Vyas et al. 2024, arXiv 2409.11321): Adam in the eigenbasis of Shampoo's preconditioner.

For the gradient G of an m × n matrix, with A_L an average of GGᵀ, A_R one of GᵀG and Q_L, Q_R their eigenbases:

    G' = Q_Lᵀ G Q_R                    rotated
    m, v, direction' = Adam(G')        elementwise, the averages live in the rotated space
    direction = Q_L direction' Q_Rᵀ    rotated back
    A_L ← βA_L + (1−β)GGᵀ,  A_R ← βA_R + (1−β)GᵀG
    every `refresh` steps: Q ← QR((A + δ·mean(diag A)·I)·Q), columns by descending octave of the estimated eigenvalue;
                           m is re-projected, v permuted along

Vectors take Adam, kernels are O × (I·kh·kw) matrices, embeddings of positions `[1, T, d]` T × d ones; a side longer
than `max_size` is not rotated.

Where this departs from the authors' code, and why. They start from the eigenvectors of the first gradient's GGᵀ, whose
null space is arbitrary: a relative change of 1e-16 in one gradient changed the weights by 1e-1 after 200 steps of a
small network. The identity start with damping δ has no such freedom (3e-15), needs no skipped first step, and is Adam
until the first refresh. They sort columns by the eigenvalues as they are; where two of these are equal but for the last
bit, as of equal input features, that bit would choose the basis, so here columns change places between octaves only. QR
runs in float64, because it magnifies rounding by 1/δ. `start="eigh"` with `damping=0` is the published form: the first
step initialises and updates nothing, decay included, columns are sorted exactly, and ε is added to the uncorrected √v.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout, ShapeGroup
from optsweep.optim.matrices import Matrices, padded
from optsweep.optim.rule import EPS, UNIT, Coefficient, Coefficients, Domain, Floats, State, Steps, per_matrix

Side = Literal["left", "right"]


class SOAP(Adam):
    """Same-shaped matrices are one batch; 2m² + 2n² + 2mn numbers of state per m × n matrix (mn less without momentum).

    Here m and n are rounded up to multiples of 4 in 2m² + 2n². Lanes have to start at multiples of `refresh`.
    """

    floats: ClassVar[Mapping[str, Domain]] = {
        "beta1": Domain(*UNIT, 0.95),
        "beta2": Domain(*UNIT, 0.95),
        "shampoo_beta": Domain(*UNIT, 0.95),
        "eps": EPS,
        "damping": Domain(0.0, 1.0, 1e-2),
    }
    has_momentum = True

    def __init__(self, refresh: int = 10, max_size: int = 10000, start: Literal["identity", "eigh"] = "identity"):
        if refresh < 1:
            raise ValueError(f"optimizer.refresh must be 1 or more steps, not {refresh}")
        if start not in ("identity", "eigh"):
            raise ValueError(f"optimizer.start must be identity or eigh, not {start!r}")
        self.period = refresh
        self.max_size = max_size
        self.start = start

    def notes(self, layout: Layout) -> list[str]:
        """The sides that are too long to rotate."""
        return [
            f"soap: {size} is over optimizer.max_size={self.max_size}; that side of {', '.join(group.names)} keeps I"
            for group in layout.groups
            for size in group.matrix_shape or ()
            if size > self.max_size
        ]

    def init(self, params: Tensor, layout: Layout) -> State:
        """Adam's averages, and per batch of matrices and side the statistics A and the basis Q, float32 at least."""
        state = super().init(params, layout)
        dtype = torch.promote_types(params.dtype, torch.float32)
        for block in _blocks(layout, self.max_size):
            for side, size in block.sides.items():
                shape = (params.shape[0], block.group.count, padded(size), padded(size))
                state[block.key("A", side)] = torch.zeros(shape, dtype=dtype, device=params.device)
                eye = torch.eye(padded(size), dtype=dtype, device=params.device)
                state[block.key("Q", side)] = eye.expand(shape).clone()
        return state

    def pieces(self, state: State, layout: Layout) -> dict[str, State]:
        """A row's parts, and of each batch the matrix's own statistics and bases."""
        blocks = _blocks(layout, self.max_size)
        keys = {(block, kind, side): block.key(kind, side) for block in blocks for side in block.sides for kind in "AQ"}
        batches = set(keys.values())
        result = super().pieces({key: tensor for key, tensor in state.items() if key not in batches}, layout)
        for (block, kind, side), key in keys.items():
            for name, matrix in zip(block.group.names, state[key][0], strict=True):
                result[name][f"{kind}_{side}"] = matrix
        return result

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """Adam's, 1−β of the statistics, and δ."""
        c = super().coefficients(hyper, steps if self.start == "identity" else np.maximum(steps - 1, 0))
        c["1-shampoo_beta"] = np.full(len(steps), 1 - hyper["shampoo_beta"])
        c["damping"] = np.full(len(steps), hyper["damping"])
        if self.start == "eigh":
            first = self.idle(steps)
            c["first"] = first.astype(np.float64)
            c["eps"] = np.where(first, np.inf, c["root_scale"] * hyper["eps"])  # so the direction is zero
            for name in ("1-beta1", "1-beta2"):
                c[name] = np.where(first, 0.0, c[name])
        return c

    def kind(self, tick: int) -> Hashable | None:
        """With a refresh, or without."""
        return tick % self.period == 0

    def idle(self, steps: Steps) -> NDArray[np.bool_]:
        """The first step of the published form, which only initialises."""
        first: NDArray[np.bool_] = steps == 0
        return first if self.start == "eigh" else np.zeros_like(first)

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """Adam's direction of the rotated gradient, rotated back."""
        blocks = _blocks(layout, self.max_size)
        for block in blocks:
            matrices = block.take(grads)
            for side in block.sides:
                product = matrices @ matrices.mT if side == "left" else matrices.mT @ matrices
                state[block.key("A", side)].lerp_(product, per_matrix(c["1-shampoo_beta"]))
            block.put(grads, block.rotate(matrices, state))
        direction = super().update(grads, state, params, c, tick, layout)
        for block in blocks:
            block.put(direction, block.rotate_back(block.take(direction), state))
        if tick % self.period == 0:
            for block in blocks:
                self._refresh(block, state, c)
        return direction

    def _refresh(self, block: _Block, state: State, c: Coefficients) -> None:
        """New bases; the averages follow them."""
        plain = block.rotate_back(block.take(state["m"]), state) if self.has_momentum else None
        v = block.group.matrices(state["v"])
        for side, size in block.sides.items():
            basis, statistics = state[block.key("Q", side)], state[block.key("A", side)]
            damping, exact = per_matrix(c["damping"]), self.start == "eigh"
            fresh, order = refreshed(basis, statistics, damping, size, exact=exact)
            if self.start == "eigh":
                first = torch.as_tensor(per_matrix(c["first"]), device=basis.device) > 0
                if first.any():
                    fresh = torch.where(first, eigenbasis(statistics, size), fresh)
            basis.copy_(fresh)
            if side == "left":
                v.copy_(v.take_along_dim(order.unsqueeze(-1), -2))
            else:
                v.copy_(v.take_along_dim(order.unsqueeze(-2), -1))
        if plain is not None:
            block.put(state["m"], block.rotate(plain, state))


class _Block(Matrices):
    """A batch of same-shaped matrices and the sides on which it is rotated."""

    def __init__(self, index: int, group: ShapeGroup, max_size: int) -> None:
        super().__init__(group)
        self.index = index
        sizes: dict[Side, int] = {"left": self.rows, "right": self.columns}
        # A basis of one dimension is a sign, which Adam doesn't see.
        self.sides = {side: size for side, size in sizes.items() if 1 < size <= max_size}

    def key(self, kind: str, side: Side) -> str:
        """Name of a state tensor."""
        return f"{kind}_{side}_{self.index}"

    def rotate(self, matrices: Tensor, state: State) -> Tensor:
        """Q_Lᵀ G Q_R."""
        if "left" in self.sides:
            matrices = state[self.key("Q", "left")].mT @ matrices
        return matrices @ state[self.key("Q", "right")] if "right" in self.sides else matrices

    def rotate_back(self, matrices: Tensor, state: State) -> Tensor:
        """Q_L G Q_Rᵀ."""
        if "left" in self.sides:
            matrices = state[self.key("Q", "left")] @ matrices
        return matrices @ state[self.key("Q", "right")].mT if "right" in self.sides else matrices


@lru_cache
def _blocks(layout: Layout, max_size: int) -> tuple[_Block, ...]:
    """The batches of matrices that are rotated on a side."""
    numbered = [(index, group) for index, group in enumerate(layout.groups) if group.matrix_shape is not None]
    blocks = (_Block(index, group, max_size) for index, group in numbered)
    return tuple(block for block in blocks if block.sides)


def refreshed(
    basis: Tensor, statistics: Tensor, damping: Coefficient, size: int, *, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """One step of orthogonal iteration, QR((A + δ·mean(diag A)·I)·Q), for matrices `[…, n, n]`.

    Only the first `size` rows and columns matter; the others are padding, where A is zero and Q is I. Returns the new
    basis, and `order [..., size]`, the old columns by descending estimated eigenvalue, if `exact`, or by its power of
    two. A matrix that is not finite counts as I: QR of a batch must not fail for one lane's divergence.
    """
    wide = torch.float64 if basis.device.type != "mps" else basis.dtype  # MPS has none
    old, average = basis.to(wide), statistics.to(wide)
    mean = average.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / size
    product = average @ old + mean * damping * old
    rank = (old * product).sum(-2)
    if not exact:  # in units of the mean, so that 1 and δ, where eigenvalues gather, are not at an octave's edge
        rank = (rank / mean.squeeze(-1)).clamp_min(torch.finfo(wide).tiny).log2().round()
    rank[..., size:] = -torch.inf  # padding stays where it is
    order = rank.argsort(dim=-1, descending=True, stable=True)
    product = product.take_along_dim(order.unsqueeze(-2), -1)
    product = _finite(product)
    batched = product.device.type == "cuda" and not exact
    fresh = orthonormal(product, old) if batched else torch.linalg.qr(product)[0]
    return fresh.to(basis.dtype), order[..., :size]


def orthonormal(matrices: Tensor, otherwise: Tensor) -> Tensor:
    """Q of QR decompositions with positive diagonals of R, in a few batched calls; of a singular one, `otherwise`.

    By shifted Cholesky factors of XᵀX, three times (Fukaya 2020, arXiv 1809.11085): to rounding, up to condition
    numbers of 1e12 in float64. On a GPU torch's QR takes the matrices of a batch one after the other.
    """
    n, x = matrices.shape[-1], matrices
    failed = torch.zeros(matrices.shape[:-2], dtype=torch.bool, device=matrices.device)
    eps = torch.finfo(matrices.dtype).eps
    for shift in (11 * (2 * n * n + n) * eps, 0.0, 0.0):
        gram = x.mT @ x
        if shift:
            trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
            gram.diagonal(dim1=-2, dim2=-1).add_(shift * trace.unsqueeze(-1))
        factor, info = torch.linalg.cholesky_ex(gram, upper=True)
        failed |= info != 0
        x = torch.linalg.solve_triangular(factor, x, upper=True, left=False)
    return torch.where(failed[..., None, None], otherwise, x)


def eigenbasis(statistics: Tensor, size: int) -> Tensor:
    """Eigenvectors by descending eigenvalue, padded as in `refreshed`. Waits for the device (LAPACK's error code).

    As the authors' code, it tries again in float64 where LAPACK doesn't converge.
    """
    basis = torch.eye(statistics.shape[-1], dtype=statistics.dtype, device=statistics.device)
    basis = basis.expand(statistics.shape).clone()
    matrices = _finite(statistics[..., :size, :size])
    try:
        vectors = torch.linalg.eigh(matrices)[1]
    except RuntimeError:  # LAPACK did not converge
        vectors = torch.linalg.eigh(matrices.double())[1]
    basis[..., :size, :size] = vectors.flip(-1)
    return basis


def _finite(matrices: Tensor) -> Tensor:
    """Matrices with every one that is not finite replaced by I."""
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return torch.where(matrices.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), matrices, eye)
