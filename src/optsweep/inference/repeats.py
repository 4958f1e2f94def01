"""`sweep.repeats`: whole searches, each with its own points, training seeds and confirm seeds.

A setting that another search would not have chosen makes all seeds of an arm better or worse together, so the seeds of
one search are no independent values for "is this optimizer better, tuning included": the searches are.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

SEEDS_PER_REPEAT = 1_000_000
"""Seed indices that a repeat has for itself in each phase: those of different repeats are never the same."""


def seed_index(repeat: int, seed: int) -> int:
    """The index in a phase of a repeat's own `seed`; of the first repeat it is the same number."""
    return repeat * SEEDS_PER_REPEAT + seed


def repeat_of(index: int) -> int:
    """Which repeat a seed index belongs to."""
    return index // SEEDS_PER_REPEAT


def repeats_of(values: Mapping[int, float]) -> dict[int, list[float]]:
    """Values by seed index, as a list per repeat."""
    found: dict[int, list[float]] = {}
    for index, value in sorted(values.items()):
        found.setdefault(repeat_of(index), []).append(value)
    return found


def independent(values: Mapping[int, float]) -> dict[int, float]:
    """The values that a test may take as independent: means by repeat where there are several, else those by seed."""
    found = repeats_of(values)
    return {repeat: fmean(held) for repeat, held in found.items()} if len(found) > 1 else dict(values)
