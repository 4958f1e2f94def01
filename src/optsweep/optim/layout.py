"""Where each parameter of a model lies in the flat row of its lane.

Same-shaped parameters of the same role are adjacent, so that a rule sees them as one batch `[lanes, count, *shape]`
without a copy; parameters that weight decay applies to come first, so that decay is one slice. Parameters without
elements have no place: there is nothing of them to train.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

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
        """(rows, columns) of each parameter as a matrix, a kernel `[O, I, kh, kw]` as O × (I·kh·kw); None below 2-D.

        Embeddings of positions `[1, T, d]` are T × d: a single row of T·d would get a basis of (T·d)² numbers.
        """
        if len(self.shape) < 2:
            return None
        shape = self.shape
        while len(shape) > 2 and shape[0] == 1 and self.role is not Role.CONV:
            shape = shape[1:]
        return shape[0], prod(shape[1:])

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
    """The row: P elements (`size`), of which the first `decayed` are subject to weight decay.

    Hashed by a few numbers, since rules look up at every step what they have derived from it.
    """

    slots: tuple[Placement, ...]
    groups: tuple[ShapeGroup, ...]
    decayed: int
    size: int
    factors: tuple[float, ...] = ()  # of the learning rate, one per slot; empty: 1 everywhere

    def __hash__(self) -> int:
        return hash((self.size, self.decayed, len(self.slots), len(self.groups)))

    @property
    def num_parameters(self) -> int:
        """Number of parameters, without padding."""
        return sum(slot.numel for slot in self.slots)

    def views(self, row: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(name, view `[K, *shape]`) of every parameter in `row [K, P]`, whatever number of dimensions K stands for."""
        for slot in self.slots:
            yield slot.name, row[..., slot.offset : slot.offset + slot.numel].view(*row.shape[:-1], *slot.shape)

    def factor_row(self, like: Tensor) -> Tensor:
        """The factor of the learning rate of every element, `[P]`, as `like` in device and dtype."""
        row = torch.ones(self.size, dtype=like.dtype)
        for slot, factor in zip(self.slots, self.factors, strict=True):
            row[slot.offset : slot.offset + slot.numel] = factor
        return row.to(like.device)

    @staticmethod
    def build(
        shapes: Mapping[str, tuple[int, ...]],
        roles: Mapping[str, Role],
        *,
        decay_all: bool = False,
        undecayed: Collection[str] = (),
        factors: Mapping[str, float] | None = None,
    ) -> Layout:
        """Lay out parameters by (decayed, role, shape), those without elements left out.

        Decay applies to matrices (two dimensions or more, no embeddings, no magnitudes of a weight norm), or to every
        parameter with `decay_all`, and never to those in `undecayed`. `factors` of the learning rate: 1 if not given.
        """

        def decays(name: str) -> bool:
            if name in undecayed:
                return False
            return decay_all or (len(shapes[name]) >= 2 and roles[name] not in (Role.EMBEDDING, Role.VECTOR))

        keyed: dict[tuple[bool, Role, tuple[int, ...]], list[str]] = {}
        for name, shape in shapes.items():
            if prod(shape):
                keyed.setdefault((not decays(name), roles[name], tuple(shape)), []).append(name)
        slots: list[Placement] = []
        groups: list[ShapeGroup] = []
        offset = decayed = 0
        for (apart, role, shape), names in sorted(keyed.items()):
            groups.append(ShapeGroup(role, shape, offset, tuple(names)))
            for name in names:
                slots.append(Placement(name, shape, role, offset))
                offset += prod(shape)
            offset = -(-offset // ALIGNMENT) * ALIGNMENT
            if not apart:
                decayed = offset
        of_slots = tuple((factors or {}).get(slot.name, 1.0) for slot in slots)
        differing = of_slots if any(factor != 1.0 for factor in of_slots) else ()
        return Layout(tuple(slots), tuple(groups), decayed, offset, differing)


def parameter_roles(module: nn.Module, heads: Iterable[str] = ()) -> dict[str, Role]:
    """Role of every trainable parameter of `module`, by the modules that hold it, however many and under which names.

    Embeddings are the weights of `nn.Embedding` and `nn.EmbeddingBag` and whatever is tied to them. The head is what
    is named in `heads`, or else an adaptive softmax, or else the last `nn.Linear`, or the last convolution where there
    is none. Stem and depthwise convolutions, and tensors of three dimensions or more that are no convolution's (class
    tokens, stacked experts), get the head's role, because orthogonalising rules leave them to their auxiliary rule. A
    parametrised weight is what it would be without; a weight norm's magnitudes are vectors.
    """
    owners = _owners(module)
    head = _head(module, frozenset(heads))
    convolutions = [child for child in module.modules() if isinstance(child, _ConvNd)]
    special = {id(child) for child in convolutions[:1]} | {id(child) for child in convolutions if child.groups > 1}
    magnitudes = _magnitudes(module)
    roles: dict[str, Role] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        modules = owners[id(parameter)]
        if any(isinstance(child, (nn.Embedding, nn.EmbeddingBag)) for child in modules):
            roles[name] = Role.EMBEDDING
        elif parameter.ndim < 2 or id(parameter) in magnitudes:
            roles[name] = Role.VECTOR
        elif any(id(child) in head or id(child) in special for child in modules):
            roles[name] = Role.HEAD
        elif parameter.ndim == 2:
            roles[name] = Role.HIDDEN
        else:
            roles[name] = Role.CONV if any(isinstance(child, _ConvNd) for child in modules) else Role.HEAD
    return roles


def _owners(module: nn.Module) -> dict[int, list[nn.Module]]:
    """The modules that hold each parameter, by the parameter's id; a parametrisation's are its module's."""
    owners: dict[int, list[nn.Module]] = {}
    inside: set[int] = set()
    for child in module.modules():
        if parametrize.is_parametrized(child):
            assert isinstance(child.parametrizations, nn.ModuleDict)
            inside |= {id(part) for part in child.parametrizations.modules()}
            for parameter in child.parametrizations.parameters():
                owners.setdefault(id(parameter), []).append(child)
    for child in module.modules():
        if id(child) not in inside:
            for parameter in child.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(child)
    return owners


def _head(module: nn.Module, names: frozenset[str]) -> set[int]:
    """Ids of the modules that make the output."""
    if names:
        return {id(child) for name, child in module.named_modules(remove_duplicate=False) if name in names}
    adaptive = [child for child in module.modules() if isinstance(child, nn.AdaptiveLogSoftmaxWithLoss)]
    if adaptive:
        return {id(part) for child in adaptive for part in child.modules()}
    linear = [id(child) for child in module.modules() if isinstance(child, nn.Linear)]
    return set((linear or [id(child) for child in module.modules() if isinstance(child, _ConvNd)])[-1:])


def _magnitudes(module: nn.Module) -> set[int]:
    """Ids of the parameters with one side only of those that together make a tensor."""
    lists = [part for part in module.modules() if isinstance(part, parametrize.ParametrizationList)]
    originals = [p for part in lists if not part.is_tensor for p in part.parameters(recurse=False)]
    return {id(parameter) for parameter in originals if parameter.numel() == max(parameter.shape, default=1)}


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
