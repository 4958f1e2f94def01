"""Batches of map-style Datasets through torch's DataLoader, whose workers live as long as the task."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cloudpickle
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from optsweep.errors import UserError, located
from optsweep.tasks.nest import Nest, moved
from optsweep.tasks.random import apart, seeded, undisturbed

AHEAD = 4
"""Batches that are drawn at once where there are no workers: what is done around their drawing costs less for each."""


@dataclass(frozen=True)
class Request:
    """A batch to fetch: from which Dataset, which samples, and the seed of all of them together or of each."""

    place: int
    indices: Sequence[int]
    seeds: Sequence[int]


@dataclass(frozen=True)
class Failed:
    """What a loader's worker sends instead of a batch."""

    reason: str


class _Batches(Dataset[Any]):
    """Batches by request; runs in a loader's worker, or here where there is none."""

    def __init__(self, datasets: Sequence[Any], collate: Callable[[list[Any]], Nest]) -> None:
        self.datasets, self.collate = datasets, collate

    def __getitem__(self, request: Request) -> Nest:
        dataset, samples = self.datasets[request.place], []
        index = request.indices[0]
        try:
            if len(request.seeds) == 1:
                seeded(request.seeds[0])
                for index in request.indices:
                    samples.append(dataset[index])
            else:
                for index, seed in zip(request.indices, request.seeds, strict=True):
                    seeded(seed)
                    samples.append(dataset[index])
        except Exception as error:
            return Failed(f"sample {index} can't be read: {located(error)}")
        try:
            return self.collate(samples)
        except Exception as error:
            return Failed(f"samples don't fit together in a batch: {located(error)}; give a collate function")

    def __reduce__(self) -> tuple[Any, ...]:
        """By value, as a script or a notebook needs it where workers aren't forked."""
        return _restored, (cloudpickle.dumps((self.datasets, self.collate)),)


def _restored(content: bytes) -> _Batches:
    return _Batches(*cloudpickle.loads(content))


class _Plan:
    """A sampler that is told what to sample."""

    def __init__(self) -> None:
        self.requests: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)


class Loader:
    """One DataLoader over several Datasets; `workers` processes fetch ahead, 0: this one fetches, on a CPU by itself.

    One series of batches is read at a time: another one ends it.
    """

    def __init__(
        self, datasets: Sequence[Any], collate: Callable[[list[Any]], Nest] | None = None, workers: int = 0
    ) -> None:
        self.datasets, self.collate, self.workers = datasets, collate or default_collate, workers
        self._plan = _Plan()
        self._loader: DataLoader[Any] | None = None

    def batches(self, requests: Iterator[Request], device: torch.device) -> Iterator[Nest]:
        """The batches, in order. Raises UserError, in one line, for a sample that can't be read."""
        with undisturbed():
            batches = self._fetched(requests, device)
        while True:
            with apart():  # without workers, samples are drawn here
                ready = list(islice(batches, 1 if self.workers else AHEAD))
            if not ready:
                return
            for batch in ready:
                if isinstance(batch, Failed):
                    raise UserError(f"task: {batch.reason}")
                yield moved(batch, device)

    def _fetched(self, requests: Iterator[Request], device: torch.device) -> Iterator[Nest]:
        """The batches, or what went wrong."""
        if not self.workers and device.type == "cpu":  # a DataLoader would do the same in more time
            return map(_Batches(self.datasets, self.collate).__getitem__, requests)
        self._plan.requests = requests
        return iter(self._opened(device))

    def _opened(self, device: torch.device) -> DataLoader[Any]:
        if self._loader is None:
            self._loader = DataLoader(
                _Batches(self.datasets, self.collate),
                batch_size=None,
                sampler=self._plan,
                collate_fn=_as_it_is,
                num_workers=self.workers,
                multiprocessing_context="fork" if self.workers and sys.platform == "linux" else None,
                persistent_workers=self.workers > 0,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),
            )
        return self._loader

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loader": None, "_plan": _Plan()}


def _as_it_is(batch: Nest) -> Nest:
    return batch
