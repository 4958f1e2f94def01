"""The reading of learning rates: how wide the basin of good ones is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gallery_readings.answers import Answer, Held
from gallery_readings.arms import (
    Choices,
    Results,
    arm_of,
    groups_at,
    label,
    where,
)
from optsweep.report.arm_result import BASIN_TOLERANCE
from optsweep.report.wording import fixed, number, plural, setting


def wider_basin(results: Results, wider: Choices, narrower: Choices, at: Choices | None = None) -> list[Answer]:
    """The LR basin of `wider` is wider by more than two distances of the tried points. One answer per group."""
    found = []
    for group in groups_at(results, at):
        arms = [arm_of(group, choices) for choices in (wider, narrower)]
        place = where(group, results)
        if any(arm["lr_basin"] is None for arm in arms):
            found.append(Answer(f"{place}No basin can be read: too few search trials ended.", Held.OPEN))
            continue
        apart = max(_distance(arm) for arm in arms)
        (one, other), (first, second) = arms, (arm["lr_basin"] for arm in arms)
        more = first["decades"] - second["decades"]
        cut, other_cut = (basin["cut_low"] or basin["cut_high"] for basin in (first, second))
        held = Held.OPEN
        if more > 2 * apart and not other_cut:
            held = Held.HELD
        elif -more > 2 * apart and not cut:
            held = Held.REVERSE
        found.append(
            Answer(
                f"{place}Within {number(100 * BASIN_TOLERANCE)} % of the best validation loss lie {_basin(group, one)} "
                f"and {_basin(group, other)}. The tried LRs lie {number(apart, 2)} decades apart; a difference counts "
                "from twice that on.",
                held,
            )
        )
    return found


def _basin(group: Mapping[str, Any], arm: Mapping[str, Any]) -> str:
    held, counts = arm["lr_basin"], arm["trials"]["search"]
    wide = "≥ " if held["cut_low"] or held["cut_high"] else ""
    lost = f"; {counts['diverged']} of {plural(sum(counts.values()), 'trial')} diverged"
    return (
        f"{wide}{fixed(held['decades'], 2)} decades of {label(group, arm)} ({setting(held['low'])} to "
        f"{setting(held['high'])}{lost})"
    )


def _distance(arm: Mapping[str, Any]) -> float:
    """Decades between neighbours, if the search trials were spread evenly."""
    chosen = arm["chosen"] or {}
    low, high = chosen.get("searched", {}).get("lr") or (arm["space"]["lr"]["low"], arm["space"]["lr"]["high"])
    return math.log10(float(high) / float(low)) / max(int(sum(arm["trials"]["search"].values())), 1)
