"""What a loop of the user's says, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optsweep.train.own.faults import LoopError

Number = Tensor | float
REQUIRED: Any = object()


@dataclass(frozen=True)
class Reported:
    """What a loop says at a rung, or of the test split at its end."""

    step: int
    loss: float
    metrics: Mapping[str, float]


Listener = Callable[[Reported], bool]
"""Hears a report, and says whether the trial ends there."""


def number_of(name: str, value: Number) -> float:
    """A scalar as a float. Raises LoopError."""
    value = value.detach() if isinstance(value, Tensor) else value
    if isinstance(value, Tensor) and value.numel() != 1:
        raise LoopError(f"{name} has shape {list(value.shape)}; give a scalar, such as its mean")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise LoopError(f"{name} is {type(value).__name__}; give a number") from None


def numbers_of(call: str, values: Mapping[str, Number]) -> dict[str, float]:
    """Several scalars as floats. Raises LoopError."""
    return {name: number_of(f"{call}: {name}", value) for name, value in values.items()}
