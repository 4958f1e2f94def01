"""Random numbers of a training run as a pure function of the seed and of their place in the run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random import mtrand
from numpy.typing import NDArray


def draws(seed: int, first: int, count: int, high: int) -> NDArray[np.int64]:
    """Numbers `first` to `first + count` of the seed's stream, uniform in [0, high), `high` < 2³².

    Philox (Salmon 2011) is a function of a counter, four numbers at each, so no number depends on those before it; the
    upper 32 bits times `high` are uniform to within high / 2³² (Lemire 2019, without his rejection).
    """
    raw = np.random.Philox(key=seed, counter=first // 4).random_raw(first % 4 + count)[first % 4 :]
    return ((raw >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(np.int64)


def sample_seeds(seed: int, first: int, count: int) -> list[int]:
    """Seeds of generators, 63 bits each: numbers `first` to `first + count` of a stream of the seed's, not `draws`'."""
    raw = np.random.Philox(key=[seed % 2**64, 1], counter=first // 4).random_raw(first % 4 + count)[first % 4 :]
    numbers: list[int] = (raw >> np.uint64(1)).tolist()
    return numbers


def seeded(number: int) -> None:
    """Seed the generators of this process that a sample may draw from: torch's on the CPU, Python's, numpy's."""
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - the global generator is what users' transforms draw from


@contextmanager
def undisturbed() -> Iterator[None]:
    """These generators are afterwards as they were."""
    ours, python = torch.get_rng_state(), random.getstate()
    legacy = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(ours)
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


_NUMPY_S = np.random.MT19937()
"""The generator that numpy's functions draw from inside `apart`."""


@contextmanager
def apart() -> Iterator[None]:
    """As `undisturbed` in a sixth of the time, for what seeds these generators before it draws.

    numpy draws from another generator inside, so that its own needn't be copied, which takes longest. Of a pair of
    normal numbers, the one that it keeps for later is lost.
    """
    ours, python, numpy_s = torch.get_rng_state(), random.getstate(), mtrand.get_bit_generator()
    mtrand.set_bit_generator(_NUMPY_S)
    try:
        yield
    finally:
        torch.set_rng_state(ours)
        random.setstate(python)
        mtrand.set_bit_generator(numpy_s)
