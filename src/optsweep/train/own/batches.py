"""Batches of a user's loader, epoch after epoch, drawn as a function of (seed, number of the batch)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from optsweep.tasks.base import digest_of
from optsweep.tasks.nest import Nest, count_of, moved, tensors_of
from optsweep.train.own.faults import LoopError
from optsweep.train.randomness import Generators, seed_stream, step_seeds

LOOKED_AT = 4
"""Batches by which it is seen whether an order is a function of the seed."""

EPOCH_SEED = 0x0E90
"""Added to a trial's seed for generators that a loader has of its own, which are seeded once an epoch."""


@dataclass(frozen=True)
class Place:
    """Where a series of batches stands."""

    epoch: int = 0
    seeds: int = 0  # that were used before the epoch
    taken: int = 0  # batches of the epoch


def endless(
    loader: Iterable[Any], seed: int, device: torch.device, place: Place | None = None
) -> Iterator[tuple[Place, Nest]]:
    """Batches on `device`, and where each leaves off; before each is fetched all generators are seeded, so what a
    sampler draws is too. From `place` on: the batches of its epoch before are drawn again, and dropped.
    """
    begin = place or Place()
    seeder, numbers, used = Generators(device).everything().seeder(), seed_stream(seed, begin.seeds), begin.seeds
    own = generators_of(loader)
    for epoch in count(begin.epoch):
        for generator in own:
            generator.manual_seed(step_seeds(seed + EPOCH_SEED, epoch, epoch + 1)[0])
        number = next(numbers)
        seeder(number)
        batches, taken = iter(loader), 0
        while True:
            seeder(number)
            try:
                batch = next(batches)
            except StopIteration:
                break
            taken += 1
            if epoch > begin.epoch or taken > begin.taken:
                yield Place(epoch, used, taken), moved(batch, device)
            number = next(numbers)
        used += taken + 1
        if not taken:
            again = "begins no second time; give a DataLoader or a list" if epoch else "has no batch"
            raise LoopError(f"trial.batches(loader): {type(loader).__name__} {again}")


def generators_of(loader: object) -> Sequence[torch.Generator]:
    """The generators of torch that a loader and its sampler draw from, beside the global one."""
    if not isinstance(loader, DataLoader):
        return []
    holders = (loader, loader.sampler, loader.batch_sampler)
    own = (vars(holder).get("generator") for holder in holders if holder is not None)
    return list({id(found): found for found in own if isinstance(found, torch.Generator)}.values())


@contextmanager
def generators_kept(loader: object) -> Iterator[None]:
    """Put back those generators."""
    before = [(generator, generator.get_state()) for generator in generators_of(loader)]
    try:
        yield
    finally:
        for generator, state in before:
            generator.set_state(state)


def begins_again(loader: Iterable[Any]) -> bool:
    """Whether batches can be drawn from the beginning while others are drawn; a generator's can't."""
    if isinstance(loader, DataLoader):
        return not (loader.persistent_workers and loader.num_workers)
    return not isinstance(loader, Iterator)


def refuse_unseeded(loader: Iterable[Any], device: torch.device) -> None:
    """Raise LoopError if a loader, begun twice with the same seed, gives other samples."""
    if not begins_again(loader):
        return
    orders = []
    for _ in range(2):
        Generators(device).everything().seeder()(0)
        for generator in generators_of(loader):
            generator.manual_seed(0)
        orders.append(_beginning(loader))
    if orders[0] != orders[1]:
        raise LoopError(
            "trial.batches(loader): its order isn't seeded, for begun twice with one seed it gives other samples; "
            "let the sampler draw from torch's, numpy's or Python's global generator, which are seeded here"
        )


def _beginning(loader: Iterable[Any]) -> object:
    """The first samples, by their indices where there are some: nothing is read then."""
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        sampler: Iterable[Any] = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        return list(islice(iter(sampler), LOOKED_AT))
    return [digest(batch) for batch in islice(iter(loader), 1)]


@dataclass(frozen=True)
class Seen:
    """What a first batch says of the data."""

    digest: str
    batch_size: int | None
    samples: int | None  # of an epoch


def seen(loader: Iterable[Any], batch: Nest) -> Seen:
    """Of a loader and its first batch."""
    try:
        size: int | None = count_of(batch)
    except ValueError:
        size = None
    samples = None
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        samples = len(loader.dataset)  # type: ignore[arg-type]
    elif isinstance(loader, (list, tuple)) and size is not None:
        samples = size * len(loader)
    return Seen(digest(batch), size, samples)


def seen_at_first(loader: DataLoader[Any], device: torch.device) -> Seen | None:
    """Of a loader that others begin: its first batch is put together here. None: its samples have no numbers."""
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    Generators(device).everything().seeder()(0)
    numbers = next(iter(loader.batch_sampler), [])
    return seen(loader, loader.collate_fn([loader.dataset[number] for number in numbers])) if numbers else None


def digest(batch: Nest) -> str:
    """Hash of the tensors of a batch."""
    tensors = (t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() for t in tensors_of(batch))
    return digest_of(*tensors)
