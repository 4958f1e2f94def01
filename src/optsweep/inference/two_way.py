"""A difference over seeds and over test samples at once: what other seeds, and other samples, would change.

Every seed (or search) is tested on the same samples, so the cells of differences are crossed: a seed may be lucky on
all samples, a sample may suit an arm with all seeds, and the rest is their interplay. The variance of the mean is the
sum of both components (Owen 2007, "The pigeonhole bootstrap", section 3), by mean squares; the degrees of freedom are
Satterthwaite's (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from optsweep.inference import statistics
from optsweep.inference.statistics import CONFIDENCE, PairedT

Array = NDArray[np.float64]

MIN_BLOCKS = 5
"""Fewer groups of samples say too little about samples."""


def two_way(
    differences: Sequence[float], cells: Array | None, confidence: float = CONFIDENCE, *, scale: float = 0.0
) -> PairedT:
    """The mean of `differences`, candidate − baseline, one per seed, with its interval and p value.

    `cells [seeds, blocks]` are the same by blocks of about as many samples each. The interval is never narrower than
    that of the seeds alone, nor p smaller: test samples that resemble each other would make it too narrow. Without
    cells, with fewer than 5 blocks, or without variance over seeds, it is that of the seeds.
    """
    seeds = statistics.paired_t(differences, confidence, scale=scale)
    if cells is None or cells.shape[1] < MIN_BLOCKS or seeds.p is None or seeds.low is None or seeds.high is None:
        return seeds
    error, freedom = _error(cells)
    if error == 0:  # what differs lies outside of the blocks
        return seeds
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    low, high = min(seeds.mean - half, seeds.low), max(seeds.mean + half, seeds.high)
    p = max(float(2 * special.stdtr(freedom, -abs(seeds.mean) / error)), seeds.p)
    return PairedT(seeds.mean, low, high, p, seeds.n, False)


def _error(table: Array) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom; a negative component of the samples counts as none."""
    rows, columns = table.shape
    by_seed, by_block = table.mean(1), table.mean(0)
    rest = table - by_seed[:, None] - by_block[None, :] + table.mean()
    square_seeds = columns * by_seed.var(ddof=1)
    square_blocks = rows * by_block.var(ddof=1)
    square_rest = (rest**2).sum() / ((rows - 1) * (columns - 1))
    terms = [(square_seeds, rows - 1)]
    if square_blocks > square_rest:
        terms += [(square_blocks, columns - 1), (-square_rest, (rows - 1) * (columns - 1))]
    total = sum(square for square, _ in terms)
    freedom = total**2 / sum(square**2 / df for square, df in terms) if total else 1.0
    return math.sqrt(total / (rows * columns)), float(freedom)
