"""`search.space`: the ranges and the lists of values that a user gives for searched keys.

A key is one of the config, with its dots (`search.space.task.dropout={low: 0, high: 0.5}`), or the short name of a
float hyperparameter (`search.space.lr.low=1e-4`). A list holds values to choose from. A range of a key whose present
value is a whole number holds whole numbers; `log` is false unless it is given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optsweep.config.section import Section
from optsweep.errors import UserError

LARGEST = 1e18
"""Ends of ranges are of this size at most, and of its inverse at least: beyond them it is a slip of the pen."""

_RANGE = ("low", "high", "log")


@dataclass(frozen=True)
class RangeConfig:
    """A search range given by the user."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class ChoicesConfig:
    """Values to choose from, given by the user."""

    values: tuple[float | int | str | bool | None, ...]


SpaceConfig = Mapping[str, RangeConfig | ChoicesConfig]


def read_space(section: Section) -> SpaceConfig:
    """What is given under `search.space`, by dotted key; a range without ends is none.

    Entries that were made in Python are checked as if they had been read.
    """
    return {key: entry for name, value in section.rest().items() for key, entry in _entries(name, value)}


def opened(overrides: Sequence[str]) -> list[str]:
    """Hydra overrides that may name any key under `search.space`, `task` and `optimizer`, which are open: `++` adds it.

    Whether a task or a rule has an option is known by its class. `GROUP.CHOICE.KEY` is for one choice of a group. The
    name of an arm needs no quotes, for all the = that are in it.
    """
    return [_opened(override) for override in overrides]


_OPEN = re.compile(r"(search\.space|task|optimizer|(schedule|warmup|weight_decay|averaging)\.\w+)\.")


def _opened(override: str) -> str:
    if _OPEN.match(override):
        return f"++{override}"
    key, _, name = override.partition("=")
    if key == "sweep.baseline" and "=" in name and not name.startswith(("'", '"')):
        return f"{key}='{name}'" if "'" not in name else override
    return override


def _entries(key: str, value: Any) -> Iterator[tuple[str, RangeConfig | ChoicesConfig]]:
    """The entries of a node and of those below it."""
    if isinstance(value, RangeConfig):
        value = vars(value)
    if isinstance(value, ChoicesConfig):
        value = value.values
    if value is None:
        return
    if isinstance(value, (list, tuple)):
        yield key, _choices(key, value)
        return
    if not isinstance(value, Mapping):
        raise UserError(f"search.space.{key}: {value!r} is not allowed; give a list, or low and high")
    own = {str(name): item for name, item in value.items() if name in _RANGE and not _nested(item)}
    if own.get("low") is not None or own.get("high") is not None:
        yield key, _range(key, own)
    for name, item in value.items():
        if name not in own:
            yield from _entries(f"{key}.{name}", item)


def _nested(item: object) -> bool:
    return isinstance(item, (list, tuple, Mapping))


def _range(key: str, given: Mapping[str, Any]) -> RangeConfig:
    for end in ("low", "high"):
        value = given.get(end)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"search.space.{key}.{end}: {value!r} is not allowed; give a number")
        if abs(value) > LARGEST or 0 < abs(value) < 1 / LARGEST:
            raise UserError(
                f"search.space.{key}.{end}: {value!r} is not allowed; give 0, or a number of size {1 / LARGEST:g} to "
                f"{LARGEST:g}"
            )
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"search.space.{key}.log: {log!r} is not allowed; give true or false")
    found = RangeConfig(given["low"], given["high"], log)
    if found.low >= found.high:
        raise UserError(f"search.space.{key}: low={found.low:g} is not below high={found.high:g}")
    if log and found.low <= 0:
        raise UserError(f"search.space.{key}.low: {found.low:g} is not > 0, which a log scale needs")
    return found


def _choices(key: str, values: list[Any] | tuple[Any, ...]) -> ChoicesConfig:
    if not values:
        raise UserError(f"search.space.{key}: the list is empty; give the values to choose from")
    for place, value in enumerate(values):
        plain = value is None or isinstance(value, (bool, int, float, str))
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise UserError(f"search.space.{key}: {value!r} is no value; give numbers, words, true, false or null")
        if value in values[:place]:
            raise UserError(f"search.space.{key}: {value!r} is given twice")
    if len({_kind(value) for value in values if value is not None}) > 1:
        raise UserError(
            f"search.space.{key}: {list(values)!r} mixes kinds; give numbers, or words, or true and false, and null"
        )
    return ChoicesConfig(tuple(values))


def _kind(value: object) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)
