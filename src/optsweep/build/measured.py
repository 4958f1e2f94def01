"""Learning rates for short runs of small models, which no published table is about: measured here.

Grids over three tables, 50 to 1,600 steps and widths of 16 to 128, and one of a transformer (benchmarks/lr_grid.py, its
losses beside it; docs/searching.md says where they end and miss). The best LR falls about as 1/√(steps · width), a
rule's own constant in front; where that leads at the scale of the published tables is what they say for AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

STEPS, WIDTH = 200, 64
"""The run that the constants are for."""

LEAST_STEPS, LEAST_WIDTH = 50, 16
"""The shortest and the narrowest runs that were measured; shorter ones have their learning rate."""

MOST_STEPS, MOST_WIDTH = 1600, 128
"""The longest and the widest runs that were measured."""

ARCHITECTURES = frozenset({"mlp", "transformer"})
"""What the constants are used for: perceptrons were measured, and of transformers one length and width."""

SOURCE = "measured here (benchmarks/lr_grid.py)"


@dataclass(frozen=True)
class MeasuredLR:
    """The best LR of a run of 200 steps and width 64, and the factor to either side that holds most others."""

    middle: float
    spread: float

    def at(self, num_steps: int, width: int) -> float:
        """The middle for a run of another length and width."""
        return self.middle * math.sqrt(STEPS * WIDTH / (max(num_steps, LEAST_STEPS) * max(width, LEAST_WIDTH)))


MEASURED_LR: Mapping[str, MeasuredLR] = {
    "adam": MeasuredLR(0.04, 10.0),
    "adamw": MeasuredLR(0.04, 10.0),
    "rmsprop": MeasuredLR(0.01, 10.0),
    "momentum": MeasuredLR(0.04, 5.0),
    "nesterov": MeasuredLR(0.04, 5.0),
    "lion": MeasuredLR(1.8e-3, 5.0),
    "soap": MeasuredLR(8e-3, 5.0),
    "muon": MeasuredLR(8e-3, 5.0),  # with scale=match_adam
}
"""By optimizer; the published range of SGD without momentum holds what was measured."""
