"""Checks of a task's own options; each error is one line that names the key as the user types it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optsweep.errors import UserError, nearest


def whole(key: str, value: object, *, low: int = 1) -> int:
    """`value` as a whole number ≥ `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise UserError(f"task.{key}: {value!r} is not allowed; give a whole number ≥ {low}")
    return value


def optional_whole(key: str, value: object, *, low: int = 1) -> int | None:
    """As `whole`, or None."""
    return None if value is None else whole(key, value, low=low)


def number(key: str, value: object, *, least: float = -math.inf) -> float:
    """`value` as a finite number ≥ `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        bound = f" ≥ {least:g}" if least > -math.inf else ""
        raise UserError(f"task.{key}: {value!r} is not allowed; give a number{bound}")
    return float(value)


def flag(key: str, value: object) -> bool:
    """`value` as true or false."""
    if not isinstance(value, bool):
        raise UserError(f"task.{key}: {value!r} is not allowed; give true or false")
    return value


def choice(key: str, value: object, choices: tuple[str, ...]) -> str:
    """`value` as one of `choices`."""
    if value not in choices:
        hint = nearest(str(value), choices)
        raise UserError(f"task.{key}: {value!r} is not allowed; give one of {', '.join(choices)}{hint}")
    return str(value)


def optional_number(key: str, value: object, *, least: float = -math.inf) -> float | None:
    """As `number`, or None."""
    return None if value is None else number(key, value, least=least)


def wholes(key: str, value: object) -> tuple[int, ...]:
    """`value` as a list of whole numbers ≥ 1, not an empty one."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise UserError(f"task.{key}: {value!r} is not allowed; give a list of whole numbers, such as [16,32]")
    return tuple(whole(key, item) for item in value)
