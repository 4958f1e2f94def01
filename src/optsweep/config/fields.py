"""Dataclasses that know the config: every field says which key it is, as the user types it, and what it may hold.

    lanes: Annotated[int, Key("trainer.lanes", checked(whole))] = 1

is checked however the object is made, in Python or from a composed config, with the same line for the same mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from optsweep.checks import Check, by_name
from optsweep.errors import UserError

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """Where a field stands in the config, and its check."""

    path: str
    check: Check


@dataclass(frozen=True)
class Rest(Key):
    """A field that holds all further keys of a section, which are options of an object of the user's choice."""

    check: Check = by_name


@dataclass(frozen=True)
class Keyed:
    """A frozen dataclass whose fields are `Key`s, or are `Keyed` themselves. Its objects hold allowed values only."""

    def __post_init__(self) -> None:
        for name, key in keys_of(type(self)).items():
            object.__setattr__(self, name, key.check(key.path, getattr(self, name)))
        for name, part in parts_of(type(self)).items():
            if not isinstance(held := getattr(self, name), part):
                raise UserError(f"{name}: {held!r} is not allowed; give a {part.__name__}")

    def fill(self, **values: Any) -> None:
        """Set fields while the object is made: for values that stand for something else, such as auto."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def keys_of(cls: Any) -> Mapping[str, Key]:
    """The key of every field that is one, by the field's name."""
    return _keys_of(cls)


@cache  # evaluating annotations takes longer than all checks
def _keys_of(cls: Any) -> Mapping[str, Key]:
    hints = get_type_hints(cls, include_extras=True)
    notes = {name: get_args(hint)[1] for name, hint in hints.items() if get_origin(hint) is Annotated}
    return {name: note for name, note in notes.items() if isinstance(note, Key)}


def parts_of(cls: Any) -> Mapping[str, type[Keyed]]:
    """The fields that are `Keyed` themselves."""
    return _parts_of(cls)


@cache
def _parts_of(cls: Any) -> Mapping[str, type[Keyed]]:
    hints = get_type_hints(cls)
    parts = {field.name: hints[field.name] for field in fields(cls)}
    return {name: part for name, part in parts.items() if isinstance(part, type) and issubclass(part, Keyed)}


def missing(key: str) -> UserError:
    """The error for a value that has to be given and isn't."""
    return UserError(f"{key}: a value is missing")
