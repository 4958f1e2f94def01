"""Contestants in turn, round by round: A, B, B, A, A, B …, and the ratio of each round.

Absolute times on a shared or throttled machine say little; two measurements taken within the same second share its
weather. So a figure here is the median of the rounds' ratios, with its quartiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import torch

Round = Callable[[], float]
"""Runs one round and returns its seconds (or any other number whose ratio is asked for)."""


class SkippedError(Exception):
    """A benchmark can't run here; the message says why."""


@dataclass(frozen=True)
class Figure:
    """One line of a table."""

    what: str
    ours: str  # what was measured, and what it is held against, with their medians
    against: str
    value: float
    low: float  # quartiles
    high: float
    rounds: int
    expected: str
    target: float | None = None
    unit: str = "×"
    at_least: bool = False  # whether the target is a lower bound

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True)
class Ratio:
    """Ours ÷ theirs: median and quartiles over rounds, and the medians of both in seconds."""

    value: float
    low: float
    high: float
    rounds: int
    ours: float
    theirs: float

    def figure(self, what: str, against: str, *, steps: int, expected: str, target: float | None) -> Figure:
        """As a line of a table, with both in milliseconds a step; a round was so many `steps`."""
        return Figure(
            what=what,
            ours=f"{1000 * self.ours / steps:.3f} ms/step",
            against=f"{against}: {1000 * self.theirs / steps:.3f} ms/step",
            value=self.value,
            low=self.low,
            high=self.high,
            rounds=self.rounds,
            expected=expected,
            target=target,
        )


def compare(ours: Round, others: Mapping[str, Round], *, rounds: int, warmup: int = 2) -> dict[str, Ratio]:
    """Ratios of `ours` to each of the others; the order turns around every round."""
    samples = in_turn([ours, *others.values()], rounds=rounds, warmup=warmup)
    result = {}
    for name, theirs in zip(others, samples[1:], strict=True):
        ratios = [a / b for a, b in zip(samples[0], theirs, strict=True)]
        low, middle, high = spread(ratios)
        result[name] = Ratio(middle, low, high, rounds, median(samples[0]), median(theirs))
    return result


def in_turn(contestants: Sequence[Round], *, rounds: int, warmup: int = 2) -> list[list[float]]:
    """The seconds of each contestant, round by round; the order turns around every round."""
    samples: list[list[float]] = [[] for _ in contestants]
    for i in range(warmup + rounds):
        places = range(len(contestants)) if i % 2 else reversed(range(len(contestants)))
        for k in places:
            seconds = contestants[k]()
            if i >= warmup:
                samples[k].append(seconds)
    return samples


def spread(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def clock(device: torch.device) -> float:
    """Seconds, once the device has done its work.

    On a CPU those that this process has computed, so that what other programs take from it doesn't count. There is one
    thread, and nothing that a round computes waits for anything; what does wait is timed with `wall`.
    """
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, by `clock`."""
    begin = clock(device)
    call()
    return clock(device) - begin


def wall(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call on the wall's clock, waiting for the disk and for other processes included."""
    clock(device)
    begin = time.perf_counter()
    call()
    clock(device)
    return time.perf_counter() - begin
