"""Arms of a grid, in families that are alike but for the axes of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optsweep.report.arm_result import ArmResult
from optsweep.tracking.reader import LEARNING_RATE

FIXED_RATE = f"optimizer.{LEARNING_RATE}"  # an axis of the grid, by its key in arm.choices


def families(arms: Sequence[ArmResult], *axes: str) -> dict[str, list[ArmResult]]:
    """Arms that are alike but for some choices, by what tells the families apart ("" where there is one)."""
    keys = sorted({key for arm in arms for key in arm.arm.choices} - set(axes))
    varied = [key for key in keys if len({arm.arm.choices.get(key) for arm in arms}) > 1]
    found: dict[str, list[ArmResult]] = {}
    for arm in arms:
        found.setdefault(" + ".join(part for key in varied if (part := _part(key, arm))), []).append(arm)
    return found


def _part(key: str, arm: ArmResult) -> str:
    value = arm.arm.choices.get(key, "none")
    if "." in key and key not in arm.arm.choices:
        return ""
    if key == "warmup.steps":
        return f"warm-up {value}"
    if "." in key:
        return f"{key.rpartition('.')[2]}={value}"
    word = {"warmup": "warm-up", "weight_decay": "decay", "averaging": "averaging"}.get(key)
    return f"{value if value != 'none' else 'no'} {word}" if word else value


def fixed_rate(arm: ArmResult) -> float | None:
    """The arm's learning rate where the grid gives it."""
    try:
        rate = float(arm.arm.choices[FIXED_RATE])
    except (KeyError, ValueError):
        return None
    return rate if math.isfinite(rate) and rate > 0 else None


def counted(counts: Sequence[int]) -> str:
    """ "5", or "3 to 5"."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
