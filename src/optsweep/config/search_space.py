"""`search.space`: the ranges that a user gives for searched keys."""

from __future__ import annotations

from dataclasses import dataclass

from optsweep.config.section import Section
from optsweep.errors import UserError


@dataclass(frozen=True)
class RangeConfig:
    """A search range given by the user."""

    low: float
    high: float
    log: bool


def read_space(section: Section) -> dict[str, RangeConfig]:
    """The ranges that have a low and a high end, by hyperparameter."""
    space: dict[str, RangeConfig] = {}
    for key, value in section.rest().items():
        if value is None:
            continue
        entry = Section(value, f"search.space.{key}")
        if entry._data.get("low") is None and entry._data.get("high") is None:
            continue
        space[key] = RangeConfig(entry.number("low"), entry.number("high"), entry.boolean("log"))
        if space[key].low >= space[key].high:
            raise UserError(f"search.space.{key}: low={space[key].low:g} is not below high={space[key].high:g}")
        if space[key].log and space[key].low <= 0:
            raise UserError(f"search.space.{key}.low: {space[key].low:g} is not > 0, which a log scale needs")
        entry.close()
    return space
