"""Parameter groups by pattern of name: a factor of the learning rate, and no weight decay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from optsweep.checks import by_name, number, refuse
from optsweep.errors import UserError, nearest

KEYS = ("lr_factor", "weight_decay")

Patterns = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Grouped:
    """What holds for a parameter."""

    lr_factor: float = 1.0
    decays: bool = True  # if its kind does


def checked_groups(groups: Mapping[str, Any] | None, where: str = "task.groups") -> Patterns:
    """Groups as a user gives them: pattern → {lr_factor: a number ≥ 0, weight_decay: 0}. Raises UserError."""
    found = by_name(where, groups or {})
    for pattern, settings in found.items():
        for key, value in by_name(f"{where}.{pattern}", settings).items():
            if key not in KEYS:
                raise UserError(f"{where}.{pattern}: there is no {key}{nearest(key, KEYS)}; give {', '.join(KEYS)}")
            if key == "lr_factor":
                number(f"{where}.{pattern}.lr_factor", value, above=0.0)
            elif value not in (0, 0.0):
                raise refuse(f"{where}.{pattern}.weight_decay", value, "0, or nothing: one λ holds for all others")
    return found


def grouped(names: Collection[str], groups: Patterns, where: str = "task.groups") -> dict[str, Grouped]:
    """The group of each parameter that a pattern fits; later ones count. Raises UserError for one that fits none."""
    found: dict[str, Grouped] = {}
    for pattern, settings in groups.items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            shown = ", ".join(list(names)[:6])
            raise UserError(f"{where}: no trainable parameter is called {pattern!r}; there are {shown}, …")
        for name in fitting:
            group = found.get(name, Grouped())
            group = replace(group, lr_factor=float(settings.get("lr_factor", group.lr_factor)))
            found[name] = replace(group, decays=group.decays and "weight_decay" not in settings)
    return found
