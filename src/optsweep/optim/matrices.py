"""Same-shaped matrices of a layout as one batch, as rules that multiply matrices see them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from optsweep.optim.layout import Layout, ShapeGroup

MULTIPLE = 4
"""Sides are padded to multiples of this, so that every matrix of a batch starts at a multiple of 64 bytes.

Matrix kernels choose their order of summation by alignment, so an odd-sized matrix would change its last bits whenever
its lane moves to another place, that is when a neighbour is dropped.
"""


def padded(size: int) -> int:
    """`size` rounded up to a multiple of `MULTIPLE`."""
    return -(-size // MULTIPLE) * MULTIPLE


class Matrices:
    """The parameters of a group as `[K, count, rows, columns]`, kernels `[O, I, kh, kw]` as O × (I·kh·kw)."""

    def __init__(self, group: ShapeGroup) -> None:
        if group.matrix_shape is None:
            raise ValueError(f"parameters of shape {group.shape} are no matrices")
        self.group = group
        self.rows, self.columns = group.matrix_shape

    def take(self, row: Tensor) -> Tensor:
        """The matrices in `row [K, P]`, padded with zeros, in float32 at least; a view where it can be."""
        matrices = self.group.matrices(row)
        matrices = matrices.to(torch.promote_types(row.dtype, torch.float32))
        padding = (0, padded(self.columns) - self.columns, 0, padded(self.rows) - self.rows)
        return pad(matrices, padding) if any(padding) else matrices

    def put(self, row: Tensor, matrices: Tensor) -> None:
        """Write padded matrices to their place in `row`."""
        self.group.matrices(row).copy_(matrices[..., : self.rows, : self.columns])


@lru_cache
def matrices_of(layout: Layout) -> tuple[Matrices, ...]:
    """The batches of matrices of a layout that has nothing else. Raises ValueError for vectors."""
    return tuple(Matrices(group) for group in layout.groups)


@lru_cache
def gapless(layout: Layout) -> bool:
    """Whether parameters fill the row."""
    return sum(slot.numel for slot in layout.slots) == layout.size
