"""When a trial has diverged: its validation loss is above a limit, wherever the loss has its zero."""

from __future__ import annotations

import math

SPREADS = 10.0
"""Standard deviations of the samples' first losses that stand for the scale of a loss without a known floor.

Squared errors then may grow 15-fold, cross-entropies of a small random head by 1 to 3.
"""

ROUNDING = 1e-6
"""Losses that differ by this fraction only are equal: the loss shows no scale."""


def limit(factor: float, first: float, best: float, floor: float | None, spread: float) -> float:
    """first + (factor − 1) × scale, with `first` and `best` the validation losses at step 0 and the lowest so far.

    The scale is first − floor, or, where the task names no floor, what is larger of `SPREADS` times `spread`, the
    standard deviation of the samples' losses at step 0, and of what was gained since. Infinite without a scale.
    """
    if floor is not None:
        scale = first - floor
    else:
        scale = max(SPREADS * spread, first - best) if spread > ROUNDING * abs(first) else 0.0
    return first + (factor - 1) * scale if scale > 0 else math.inf
