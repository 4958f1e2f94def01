"""Every random number of a trial as a pure function of its seed and of the step.

Before each step the loop seeds the generators that the step may draw from, so dropout, layer drop, noise and
augmentation are the same whether a trial is resumed, which lane it has, and which process trains it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

EVALUATION_SEED = 0x0E7A
RECALIBRATION_SEED = 0x0B57

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of splitmix64 (Steele 2014)."""


def step_seeds(seed: int, first: int, end: int) -> list[int]:
    """Seeds of the generators at steps `first` to `end`, 63 bits each: splitmix64 of the seed, then of the step.

    All bits are mixed: torch's CPU generator looks at the lower 32 only.
    """
    start = _mixed(np.array([seed % 2**64], dtype=np.uint64))
    steps = np.arange(first, end, dtype=np.uint64)
    numbers: list[int] = (_mixed(start + steps * np.uint64(GOLDEN)) >> np.uint64(1)).tolist()
    return numbers


def rank_seed(seed: int, rank: int) -> int:
    """Another seed for each of the ranks that train a trial of this seed together, and none of them that seed."""
    number: int = _mixed(np.array([(seed + (rank + 1) * SECOND) % 2**64], dtype=np.uint64)).item()
    return number


def seed_stream(seed: int, start: int = 0, block: int = 64) -> Iterator[int]:
    """Those of all steps from `start` on, one after the other."""
    for first in count(start, block):
        yield from step_seeds(seed, first, first + block)


@dataclass(frozen=True)
class Generators:
    """The generators that a model and its task draw from: torch's always, Python's and numpy's where they were seen."""

    device: torch.device
    python: bool = False
    numpy: bool = False

    def seeder(self) -> Callable[[int], object]:
        """A function that seeds them, to be called before each step; 2 µs with torch's CPU generator alone."""
        calls: list[Callable[[int], object]] = [torch.default_generator.manual_seed, *_on_device(self.device)]
        calls += [_python] * self.python + [_numpy] * self.numpy
        if len(calls) == 1:
            return calls[0]

        def seed_all(number: int) -> None:
            for call in calls:
                call(number)

        return seed_all

    def everything(self) -> Generators:
        """With Python's and numpy's, whether or not they were seen."""
        return Generators(self.device, python=True, numpy=True)


def seed_construction(seed: int, device: torch.device) -> None:
    """Seed all generators for the construction of a model.

    As torch.manual_seed does, which without CUDA formats a traceback in each call: the deeper the stack, the slower.
    """
    Generators(device).everything().seeder()(seed)


def generator_states(device: torch.device) -> dict[str, Any]:
    """The states of all generators that a loop may draw from, as plain data."""
    kind, key, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is what users' loops draw from
    states = {"torch": torch.get_rng_state(), "python": random.getstate()}
    states["numpy"] = [str(kind), torch.from_numpy(np.asarray(key).astype(np.int64)), *rest]
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["device"] = torch.mps.get_rng_state()
    return states


def restore_generators(device: torch.device, states: Mapping[str, Any]) -> None:
    """Put generators into these states."""
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    kind, key, *rest = states["numpy"]
    np.random.set_state((kind, key.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["device"])


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's output function; products wrap around."""
    z = numbers + np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
    return z ^ (z >> np.uint64(31))


def _on_device(device: torch.device) -> list[Callable[[int], object]]:
    """What seeds the device's own generator, without waiting for the device."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
        return [generator.manual_seed]
    return [torch.mps.manual_seed] if device.type == "mps" else []


def _python(number: int) -> None:
    random.seed(number)


def _numpy(number: int) -> None:
    np.random.seed(number % 2**32)  # noqa: NPY002 - the global generator is what users' models draw from
