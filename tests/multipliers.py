"""Multipliers of a schedule's steps, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optsweep.optim.schedule_functions import Floats
from optsweep.optim.schedules import Option, Schedule

STEPS = 100


def multipliers(
    name: str,
    options: Mapping[str, Option] | None = None,
    warmup: str = "none",
    warmup_steps: int = 0,
    num_steps: int = STEPS,
) -> Floats:
    return Schedule(name, options or {}, warmup, warmup_steps).multipliers(num_steps, num_steps)


def golden(name: str, options: Mapping[str, Option], steps: list[int], **kwargs: Any) -> list[float]:
    return [float(value) for value in multipliers(name, options, **kwargs)[steps]]
