"""What a split may be made of: arrays on the device, a Dataset through torch's DataLoader, or a stream of batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from optsweep.errors import UserError, located
from optsweep.tasks.data import Data, Indexed, Indices, Stretch, chunks, epochs, taken
from optsweep.tasks.loading import Loader, Request
from optsweep.tasks.nest import Nest, count_of, mapped, moved, tensors_of
from optsweep.tasks.random import apart, sample_seeds, seeded, undisturbed

DIGESTED = 64
"""Samples of a Dataset that stand for all of them in its digest."""

EVALUATION = 0x0E7A
"""Seed of what samples draw in evaluation."""

KEPT_STREAMS = 4


class Part(Data, Protocol):
    """The data of a split."""

    @property
    def size(self) -> int:
        """Number of samples."""

    def to(self, device: torch.device) -> None:
        """Move what is kept on the device."""

    def content(self) -> Iterator[bytes]:
        """What a digest is made of."""


class Divisible(Part, Protocol):
    """Data that can be divided."""

    def only(self, rows: Indices) -> Divisible:
        """These samples of it."""

    def labels(self) -> NDArray[np.int64] | None:
        """The class of each sample, where there are such: every part then gets its share of each."""


class Arrays:
    """A nest of tensors with one row per sample, all of them on the device."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.indexed = Indexed(
            lambda seed, first, steps, batch: epochs(self.size, seed, first, steps, batch),
            lambda batch: chunks(self.size, batch),
            lambda indices: mapped(lambda tensor: taken(tensor, indices), self.nest),
        )
        self.alone, self.training, self.whole = "", self.indexed.training, self.indexed.whole

    @property
    def size(self) -> int:
        """Rows."""
        return len(tensors_of(self.nest)[0])

    def to(self, device: torch.device) -> None:
        """Move all tensors."""
        self.nest = moved(self.nest, device)

    def content(self) -> Iterator[bytes]:
        """Every tensor."""
        return (_bytes(tensor) for tensor in tensors_of(self.nest))

    def only(self, rows: Indices) -> Arrays:
        """These rows."""
        return Arrays(mapped(lambda tensor: tensor[torch.from_numpy(rows)], self.nest))

    def labels(self) -> NDArray[np.int64] | None:
        """The last tensor, if it holds a whole number for each sample."""
        last = tensors_of(self.nest)[-1]
        if last.ndim != 1 or last.is_floating_point():
            return None
        found: NDArray[np.int64] = last.cpu().numpy()
        return found if len(np.unique(found)) < len(found) / 4 else None

    def __getstate__(self) -> dict[str, Any]:
        return {"nest": self.nest}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        Arrays.__init__(self, state["nest"])


class Items:
    """Some samples of a map-style Dataset, batched by torch's DataLoader.

    What a sample draws at random in training (augmentation) is a function of the trial's seed, the step and its place
    in the batch; in evaluation, of its index. So nothing depends on the number of loader workers.
    """

    alone = "its samples come from a Dataset"
    indexed = None

    def __init__(self, loader: Loader, place: int, rows: Indices) -> None:
        self.loader, self.place, self.rows = loader, place, rows

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def training(self, spans: Sequence[Stretch], batch_size: int, parts: int, device: torch.device) -> Iterator[Nest]:
        """As `Data` has it, for one trial."""
        (span,) = spans
        steps = epochs(self.size, span.seed, span.first, span.end - span.first, batch_size)
        batches = self.rows[steps].reshape(len(steps) * parts, -1)
        seeds = sample_seeds(span.seed, span.first * parts, len(batches))
        requests = (Request(self.place, batch.tolist(), (seed,)) for batch, seed in zip(batches, seeds, strict=True))
        return self.loader.batches(requests, device)

    def whole(self, batch_size: int, device: torch.device) -> Iterator[tuple[Nest, int]]:
        """As `Data` has it."""
        seeds = sample_seeds(EVALUATION, 0, self.size)
        parts = chunks(self.size, batch_size)
        requests = (Request(self.place, self.rows[part].tolist(), tuple(seeds[i] for i in part)) for part in parts)
        return zip(self.loader.batches(requests, device), map(len, parts), strict=True)

    def to(self, device: torch.device) -> None:
        """Nothing: batches are moved one by one."""

    def content(self) -> Iterator[bytes]:
        """The number of samples, and some of them."""
        yield repr((self.size, self.rows.tolist())).encode()
        shown = np.unique(np.linspace(0, self.size - 1, min(DIGESTED, self.size)).round().astype(np.int64))
        for index in shown if self.size else ():
            request = Request(self.place, [int(self.rows[index])], (int(index),))
            for batch in self.loader.batches(iter([request]), torch.device("cpu")):
                yield from map(_bytes, tensors_of(batch))

    def only(self, rows: Indices) -> Items:
        """These samples."""
        return Items(self.loader, self.place, self.rows[rows])

    def labels(self) -> NDArray[np.int64] | None:
        """Nobody knows them without reading everything."""
        return None


class Stream:
    """Batches as a function of the user's makes them, called anew for every epoch.

    `make` gets those of `seed`, `epoch` and `batch_size` that its parameters name. What it and its batches draw from
    torch's, Python's and numpy's generators in this process is a function of the trial's seed, the epoch and the step.
    """

    alone = "its batches come from a stream"
    indexed = None

    def __init__(self, key: str, make: Callable[..., Iterable[Nest]], samples: int | None) -> None:
        self.key, self.make, self.samples = key, make, samples
        self._wanted = tuple(name for name in inspect.signature(make).parameters if name in _STREAM_ARGUMENTS)
        self._open: dict[int, tuple[int, Iterator[Nest]]] = {}  # seed → step that comes next, and what gives it

    @cached_property
    def size(self) -> int:
        """Number of samples of an epoch: as was said, or counted."""
        return sum(count for _, count in self.whole(64, torch.device("cpu"))) if self.samples is None else self.samples

    def training(self, spans: Sequence[Stretch], batch_size: int, parts: int, device: torch.device) -> Iterator[Nest]:
        """As `Data` has it, for one trial; steps are taken in their order, so one that begins later skips."""
        (span,) = spans
        first, end = span.first * parts, span.end * parts
        step, batches = self._open.pop(span.seed, (0, None))
        if batches is None or step != first:
            step, batches = 0, self._endless(span.seed, batch_size // parts)
        for _ in range(step, first):
            next(batches)
        for step in range(first, end):
            batch = next(batches)
            if (found := count_of(batch)) != batch_size // parts:
                raise UserError(
                    f"task.{self.key}: a batch has {found} samples, not task.batch_size / trainer.accumulate = "
                    f"{batch_size // parts}; take batch_size as a parameter, and leave out a shorter last batch "
                    f"(drop_last=True)"
                )
            if step == end - 1:
                self._open[span.seed] = (end, batches)
                while len(self._open) > KEPT_STREAMS:
                    self._open.pop(next(iter(self._open)))
            yield moved(batch, device)

    def whole(self, batch_size: int, device: torch.device) -> Iterator[tuple[Nest, int]]:
        """As `Data` has it: the first epoch of seed 0."""
        batches = self._epoch(EVALUATION, 0, batch_size)
        return ((moved(batch, device), count_of(batch)) for batch in batches)

    def to(self, device: torch.device) -> None:
        """Nothing: batches are moved one by one."""

    def content(self) -> Iterator[bytes]:
        """The first batches."""
        for batch in islice(self._epoch(EVALUATION, 0, 1), 4):
            yield from map(_bytes, tensors_of(batch))

    def _endless(self, seed: int, batch_size: int) -> Iterator[Nest]:
        """The batches of all epochs."""
        epoch = 0
        while True:
            empty = True
            for batch in self._epoch(seed, epoch, batch_size):
                empty = False
                yield batch
            if empty:
                raise UserError(f"task.{self.key}: epoch {epoch} has no batch")
            epoch += 1

    def _epoch(self, seed: int, epoch: int, batch_size: int) -> Iterator[Nest]:
        """The batches of an epoch."""
        known = {"seed": seed, "epoch": epoch, "batch_size": batch_size}
        seeds = sample_seeds(seed, epoch << 32, 1)
        try:
            with undisturbed():
                seeded(seeds[0])
                batches = iter(self.make(**{name: known[name] for name in self._wanted}))
            for step in range(1, 1 << 32):
                with apart():
                    seeded(sample_seeds(seed, (epoch << 32) + step, 1)[0])
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"task.{self.key}: the stream fails: {located(error)}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}


_STREAM_ARGUMENTS = ("seed", "epoch", "batch_size")


def parts_of(
    given: Mapping[str, Any], *, collate: Callable[[list[Any]], Nest] | None, workers: int, samples: int | None
) -> dict[str, Part]:
    """The data of the splits that are given, by name; Datasets share one loader."""
    datasets = {key: value for key, value in given.items() if _kind(key, value) is Items}
    loader = Loader([*datasets.values()], collate, workers)
    found: dict[str, Part] = {}
    for key, value in given.items():
        kind = _kind(key, value)
        if kind is Arrays:
            found[key] = Arrays(_tensors(key, value))
        elif kind is Stream:
            if key == "train" and samples is None:
                raise UserError(
                    "task.samples: train is a stream, so nobody knows how many samples it has; give samples=N, the "
                    "training samples of an epoch, on which the suggested ranges depend"
                )
            found[key] = Stream(key, value, samples if key == "train" else None)
        else:
            found[key] = Items(loader, list(datasets).index(key), np.arange(_length(key, value)))
        if found[key].size == 0:
            raise UserError(f"task.{key}: it is empty; give samples")
    return found


def not_numbers(parts: Mapping[str, Part]) -> Iterator[str]:
    """What the user should know of arrays that hold NaN; it may be meant, where loss and model leave it out."""
    for key, part in parts.items():
        if not isinstance(part, Arrays):
            continue
        floats = (t for t in tensors_of(part.nest) if t.is_floating_point() and t.dtype.itemsize > 1)  # no float8
        suspects = [tensor for tensor in floats if tensor.sum().isnan()]  # without a copy of what is well
        if rows := sorted({row for tensor in suspects for row in tensor.isnan().nonzero()[:, 0].tolist()}):
            yield (
                f"task.{key}: NaN in {len(rows):,} of {part.size:,} samples, the first in row {rows[0]}; a trial that "
                f"meets it diverges, whatever its optimizer, unless model and loss leave it out"
            )


def _kind(key: str, value: Any) -> type[Arrays] | type[Items] | type[Stream]:
    """What kind of data a value is. Raises UserError for none."""
    if isinstance(value, (Tensor, np.ndarray)) or (isinstance(value, (tuple, dict)) and value):
        return Arrays
    if isinstance(value, DataLoader):
        raise _order_of_its_own(key, value)
    if isinstance(value, IterableDataset):
        raise UserError(
            f"task.{key}: an IterableDataset has no samples to choose from; give a function of the seed that returns "
            f"its DataLoader: {key}=lambda seed, batch_size: DataLoader(…)"
        )
    if inspect.isroutine(value):
        return Stream
    if callable(type(value).__dict__.get("__call__")) and not _indexable(value):
        return Stream
    if isinstance(value, list) and 1 < len(value) < 4 and all(map(_is_array, value)):
        raise UserError(
            f"task.{key}: a list is one of samples, and this one has {len(value)}; give arrays as a tuple: (x, y)"
        )
    if _indexable(value):
        return Items
    raise UserError(
        f"task.{key}: {type(value).__name__} is no data; give arrays or tensors ((x, y) or a dict of them), a Dataset, "
        f"or a function that returns a DataLoader"
    )


def _is_array(value: Any) -> bool:
    """Whether it is an array, or holds some."""
    return isinstance(value, (Tensor, np.ndarray, Mapping, tuple))


def _indexable(value: Any) -> bool:
    """Whether it has a length and samples by index, as a map-style Dataset has."""
    return all(any(name in vars(cls) for cls in type(value).__mro__) for name in ("__len__", "__getitem__"))


def _order_of_its_own(key: str, loader: DataLoader[Any]) -> UserError:
    """Why a DataLoader isn't taken as it is: nobody has seeded its order."""
    if isinstance(loader.dataset, IterableDataset) or type(loader.sampler) not in (RandomSampler, SequentialSampler):
        return UserError(
            f"task.{key}: this DataLoader has an order of its own, which nobody has seeded; give a function that makes "
            f"it: {key}=lambda seed, batch_size: DataLoader(…, generator=torch.Generator().manual_seed(seed))"
        )
    return UserError(
        f"task.{key}: a DataLoader shuffles as nobody has seeded; give its Dataset ({key}=loader.dataset, with "
        f"batch_size=, collate= and workers= as it has them)"
    )


def _from_numpy(rows: NDArray[Any]) -> Tensor:
    """Raises TypeError for what is no number."""
    if rows.dtype.kind in "OSU":
        raise TypeError(f"but of {rows.dtype}; classes are 0, 1, 2 …")
    return torch.as_tensor(rows if rows.flags.writeable else rows.copy())  # torch warns of what it can't write to


def _tensors(key: str, nest: Nest) -> Nest:
    """A nest of arrays as tensors with equally many rows. Raises UserError."""
    tensors: Nest
    if isinstance(nest, tuple) or (isinstance(nest, list) and any(map(_is_array, nest))):
        tensors = tuple(_tensors(key, part) for part in nest)
    elif isinstance(nest, Mapping):
        tensors = {name: _tensors(key, part) for name, part in nest.items()}
    else:
        try:
            tensors = (nest if isinstance(nest, Tensor) else _from_numpy(np.asarray(nest))).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"task.{key}: {type(nest).__name__} is no array of numbers ({error})") from None
        if not tensors.ndim:
            raise UserError(f"task.{key}: a single number is no data; give arrays with a row for each sample")
    lengths = {len(tensor) for tensor in tensors_of(tensors)}
    if len(lengths) > 1:
        found = " and ".join(map(str, sorted(lengths)))
        raise UserError(f"task.{key}: its arrays have {found} rows; give each a row for every sample")
    return tensors


def _length(key: str, value: Any) -> int:
    try:
        return len(value)
    except TypeError:
        raise UserError(f"task.{key}: its Dataset has no length; give it __len__") from None


def _bytes(tensor: Tensor) -> bytes:
    return (
        repr((str(tensor.dtype), tuple(tensor.shape))).encode()
        + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    )
