"""Who gives the batches of a split: those of a trial's steps in training, and the whole split in its evaluation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optsweep.tasks.nest import Nest

Indices = NDArray[np.int64]

KEPT_BYTES, MOST_KEPT = 2**25, 2**12
"""Of permutations that are kept, since a stretch ends amid an epoch that the next one begins with; and how many."""


@dataclass(frozen=True)
class Stretch:
    """Steps `first` to `end` of the trial with this seed."""

    seed: int
    first: int
    end: int


class Data(Protocol):
    """The samples of one split as batches, on a device."""

    @property
    def alone(self) -> str:
        """Why trials that read it can't train in lanes; empty if they can."""

    @property
    def indexed(self) -> Indexed | None:
        """The samples that lie on the device, if they do."""

    def training(self, spans: Sequence[Stretch], batch_size: int, parts: int, device: torch.device) -> Iterator[Nest]:
        """Batches of steps, `parts` of equal size for each: a pure function of the arguments.

        Of several spans, equally long ones, the batches are stacked: their tensors have a dimension of lanes first.
        A batch is drawn when it is asked for, with the generators as they are then; what they drew is left to it.
        """

    def whole(self, batch_size: int, device: torch.device) -> Iterator[tuple[Nest, int]]:
        """All samples once, in equal order: batches of at most `batch_size`, and how many samples each has."""


@dataclass(frozen=True)
class Indexed:
    """Samples that lie on the device and are taken from there by their indices."""

    order: Callable[[int, int, int, int], Indices]  # (seed, first step, steps, batch size) → [steps, batch size]
    chunks: Callable[[int], Sequence[Indices]]  # batch size → indices of the whole split
    gather: Callable[[Tensor], Nest]  # indices [...] → a batch

    @property
    def alone(self) -> str:
        """Nothing is in the way of lanes."""
        return ""

    @property
    def indexed(self) -> Indexed:
        """These."""
        return self

    def indices(self, spans: Sequence[Stretch], batch_size: int) -> Tensor:
        """Those of the samples of steps, `[steps, batch size]`, of several spans `[steps, spans, batch size]`."""
        arrays = [self.order(span.seed, span.first, span.end - span.first, batch_size) for span in spans]
        return torch.from_numpy(np.stack(arrays, 1) if len(arrays) > 1 else arrays[0])

    def training(self, spans: Sequence[Stretch], batch_size: int, parts: int, device: torch.device) -> Iterator[Nest]:
        """As `Data` has it; the indices of all steps are uploaded at once."""
        steps = self.indices(spans, batch_size).to(device).unbind()
        if parts == 1:
            return map(self.gather, steps)
        return (self.gather(part) for step in steps for part in step.chunk(parts, dim=-1))

    def whole(self, batch_size: int, device: torch.device) -> Iterator[tuple[Nest, int]]:
        """As `Data` has it."""
        for chunk in self.chunks(batch_size):
            yield self.gather(torch.from_numpy(chunk).to(device)), len(chunk)


def epochs(size: int, seed: int, first: int, num_steps: int, batch_size: int) -> Indices:
    """Samples of `num_steps` batches from step `first` on, `[num_steps, batch_size]`: pure in its arguments.

    Every epoch is a fresh permutation; a batch may span two, so that none is short and no sample is left out.
    """
    begin, end = first * batch_size, (first + num_steps) * batch_size
    numbers = range(begin // size, -(-end // size))
    kept = _kept_permutations(size)
    parts = [
        (kept(seed, epoch) if epoch in (numbers[0], numbers[-1]) else _philox.permutation(seed, epoch, size))[
            max(begin - epoch * size, 0) : end - epoch * size
        ]
        for epoch in numbers
    ]
    return np.concatenate(parts).reshape(num_steps, batch_size)


def chunks(size: int, batch_size: int) -> list[Indices]:
    """All of `size` samples in equal order, in chunks of at most `batch_size`."""
    indices = np.arange(size)
    return [indices[i : i + batch_size] for i in range(0, size, batch_size)]


class _Philox(threading.local):
    """A generator whose key is set: another one for each permutation takes as long as one of a thousand samples."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=[0, 0])
        self._generator, self._fresh = np.random.Generator(self._bits), self._bits.state

    def permutation(self, seed: int, epoch: int, size: int) -> Indices:
        """What np.random.Generator(np.random.Philox(key=[seed, epoch])) gives first."""
        self._fresh["state"]["key"][:] = seed, epoch
        self._bits.state = self._fresh
        return self._generator.permutation(size)


_philox = _Philox()


@lru_cache(maxsize=16)
def _kept_permutations(size: int) -> Callable[[int, int], Indices]:
    """(seed, epoch) → the epoch's order of so many samples; recent ones are kept."""

    @lru_cache(maxsize=max(64, min(KEPT_BYTES // (8 * size), MOST_KEPT)))
    def permutation(seed: int, epoch: int) -> Indices:
        return _philox.permutation(seed, epoch, size)

    return permutation


def taken(tensor: Tensor, indices: Tensor) -> Tensor:
    """tensor[indices], `indices [...]`; index_select takes half the time of an index of any kind."""
    if indices.dim() == 1:
        return tensor.index_select(0, indices)
    return tensor.index_select(0, indices.flatten()).view((*indices.shape, *tensor.shape[1:]))
