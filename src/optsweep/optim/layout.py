"""Where each parameter of a model lies in the flat row of its lane.

Same-shaped parameters of the same role are adjacent, so that a rule sees them as one batch `[lanes, count, *shape]`
without a copy; parameters that weight decay applies to come first, so that decay is one slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

import torch
from torch import Tensor, nn

ALIGNMENT = 16
"""Elements; a group starts at a multiple of this, so that matrix kernels see aligned memory (64 bytes in float32)."""


class Role(StrEnum):
    """What a parameter does in its model; rules that treat matrices apart choose by it."""

    HIDDEN = "hidden"
    CONV = "conv"
    EMBEDDING = "embedding"
    HEAD = "head"
    VECTOR = "vector"


@dataclass(frozen=True)
class Placement:
    """One parameter's place in the row."""

    name: str
    shape: tuple[int, ...]
    role: Role
    offset: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class ShapeGroup:
    """Adjacent parameters of one shape and one role."""

    role: Role
    shape: tuple[int, ...]
    offset: int
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of parameters in the group."""
        return len(self.names)

    @property
    def end(self) -> int:
        """First element behind the group."""
        return self.offset + self.count * prod(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int] | None:
        """(rows, columns) of each parameter as a matrix, a kernel `[O, I, kh, kw]` as O × (I·kh·kw); None below 2-D."""
        if len(self.shape) < 2:
            return None
        return self.shape[0], prod(self.shape[1:])

    def view(self, row: Tensor) -> Tensor:
        """Parameters of the group in `row [K, P]` as `[K, count, *shape]`, without a copy."""
        return row[:, self.offset : self.end].view(row.shape[0], self.count, *self.shape)

    def matrices(self, row: Tensor) -> Tensor:
        """As `view`, each parameter as its matrix: `[K, count, rows, columns]`."""
        if self.matrix_shape is None:
            raise ValueError(f"parameters of shape {self.shape} are no matrices")
        return row[:, self.offset : self.end].view(row.shape[0], self.count, *self.matrix_shape)


@dataclass(frozen=True)
class Layout:
    """The row: P elements (`size`), of which the first `decayed` are subject to weight decay."""

    slots: tuple[Placement, ...]
    groups: tuple[ShapeGroup, ...]
    decayed: int
    size: int

    @property
    def num_parameters(self) -> int:
        """Number of parameters, without padding."""
        return sum(slot.numel for slot in self.slots)

    def views(self, row: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(name, view `[K, *shape]`) of every parameter in `row [K, P]`."""
        lanes = row.shape[0]
        for slot in self.slots:
            yield slot.name, row[:, slot.offset : slot.offset + slot.numel].view(lanes, *slot.shape)

    @staticmethod
    def build(shapes: Mapping[str, tuple[int, ...]], roles: Mapping[str, Role], *, decay_all: bool = False) -> Layout:
        """Lay out parameters by (decayed, role, shape).

        Decay applies to matrices (two dimensions or more, no embeddings), or to every parameter with `decay_all`.
        """

        def decays(name: str) -> bool:
            return decay_all or (len(shapes[name]) >= 2 and roles[name] is not Role.EMBEDDING)

        keyed: dict[tuple[bool, Role, tuple[int, ...]], list[str]] = {}
        for name in shapes:
            keyed.setdefault((not decays(name), roles[name], tuple(shapes[name])), []).append(name)
        slots: list[Placement] = []
        groups: list[ShapeGroup] = []
        offset = decayed = 0
        for (undecayed, role, shape), names in sorted(keyed.items()):
            groups.append(ShapeGroup(role, shape, offset, tuple(names)))
            for name in names:
                slots.append(Placement(name, shape, role, offset))
                offset += prod(shape)
            offset = -(-offset // ALIGNMENT) * ALIGNMENT
            if not undecayed:
                decayed = offset
        return Layout(tuple(slots), tuple(groups), decayed, offset)


def parameter_roles(module: nn.Module, heads: Iterable[str] = ()) -> dict[str, Role]:
    """Role of every trainable parameter of `module`.

    Embeddings are the weights of `nn.Embedding` and whatever is tied to them; the head is the last `nn.Linear` (or the
    modules named in `heads`); depthwise and stem convolutions count as `VECTOR`-like and get the head's role, because
    orthogonalising rules leave them to their auxiliary rule.
    """
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for module_name, child in module.named_modules():
        for parameter in child.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((module_name, child))
    linear = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    head_names = set(heads) or set(linear[-1:])
    convolutions = [child for child in module.modules() if isinstance(child, (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    roles: dict[str, Role] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        names = {owner for owner, _ in owners[id(parameter)]}
        modules = [child for _, child in owners[id(parameter)]]
        if any(isinstance(child, nn.Embedding) for child in modules):
            roles[name] = Role.EMBEDDING
        elif parameter.ndim < 2:
            roles[name] = Role.VECTOR
        elif names & head_names or any(c is convolutions[0] or c.groups > 1 for c in modules if c in convolutions):
            roles[name] = Role.HEAD
        elif parameter.ndim > 2:
            roles[name] = Role.CONV
        else:
            roles[name] = Role.HIDDEN
    return roles


def layout_of(
    module: nn.Module, *, decay_all: bool = False, unused: frozenset[str] = frozenset(), heads: Iterable[str] = ()
) -> Layout:
    """Layout of a module's trainable parameters, each tied one once, those named in `unused` left out."""
    roles = {name: role for name, role in parameter_roles(module, heads).items() if name not in unused}
    if not roles:
        raise ValueError(f"{type(module).__name__} has no trainable parameter")
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters() if name in roles}
    return Layout.build(shapes, roles, decay_all=decay_all)


def flatten(layout: Layout, tensors: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One row `[1, P]` from named tensors; padding is zero."""
    row = torch.zeros(1, layout.size, dtype=dtype, device=device)
    with torch.no_grad():
        for name, view in layout.views(row):
            view.copy_(tensors[name].unsqueeze(0))
    return row
