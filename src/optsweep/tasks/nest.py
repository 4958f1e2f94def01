"""Nests of tensors: what a batch, or what a model returns, may be made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

Nest = Any
"""A tensor, a packed sequence, or a tuple, list, mapping or dataclass of nests; anything else in it is left alone."""


def mapped(function: Callable[[Tensor], Any], nest: Nest) -> Nest:
    """The same nest with `function` of every tensor; of a packed sequence, whose lengths stay on the host, of its data.

    What is neither a tensor nor holds some (a string, a number, None) stays as it is.
    """
    if isinstance(nest, Tensor):
        return function(nest)
    kind = type(nest)
    if kind is tuple or kind is list:
        return kind([mapped(function, part) for part in nest])
    if isinstance(nest, PackedSequence):
        data, lengths, order, back = nest
        orders = [None if index is None else function(index) for index in (order, back)]
        return PackedSequence(function(data), lengths, *orders)
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        values = {field.name: mapped(function, vars(nest)[field.name]) for field in dataclasses.fields(nest)}
        return dataclasses.replace(nest, **values)
    if isinstance(nest, Mapping):
        items = {key: mapped(function, value) for key, value in nest.items()}
        return items if kind is dict else kind(items)
    if isinstance(nest, (tuple, list)):  # a named tuple
        return kind(*[mapped(function, part) for part in nest])
    return nest


def tensors_of(nest: Nest) -> list[Tensor]:
    """All tensors of a nest, in order."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(keep, nest)
    return found


def moved(nest: Nest, device: torch.device) -> Nest:
    """The nest with its tensors on a device; from pinned memory without waiting."""
    return mapped(lambda tensor: tensor.to(device, non_blocking=True), nest)


def cast(nest: Nest, dtype: torch.dtype) -> Nest:
    """The nest with its floating-point tensors in `dtype`."""
    return mapped(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, nest)


def joined(nests: Sequence[Nest]) -> Nest:
    """Nests of batches as one: tensors one behind the other, numbers in a row. Raises ValueError if they don't fit."""
    columns = list(zip(*map(tensors_of, nests), strict=True))
    for column in columns:
        if len({tensor.shape[1:] for tensor in column}) > 1 or len({tensor.ndim for tensor in column}) > 1:
            shapes = " and ".join(str(list(tensor.shape)) for tensor in column[:2])
            raise ValueError(f"tensors of two batches differ in shape ({shapes})")
    whole = iter([torch.stack(column) if column[0].ndim == 0 else torch.cat(column) for column in columns])
    return mapped(lambda _: next(whole), nests[0])


def count_of(batch: Nest) -> int:
    """Number of samples of a batch: the first dimension of its first tensor, or of a packed sequence.

    Raises ValueError if there is none.
    """
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, (tuple, list)) and batch:
        return count_of(batch[0])
    if isinstance(batch, Tensor) and batch.ndim:
        return len(batch)
    raise ValueError(f"a batch begins with {type(batch).__name__}, which says nothing of its number of samples")
