"""Frozen dataclasses to JSON and back, by the types of their fields.

A field may be added to a dataclass at any time if it has a default: what is missing in an older file takes it, and what
an older reader doesn't know it ignores. JSON has no inf and nan, so these are the strings "inf", "-inf" and "nan".
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_NOT_FINITE = ("inf", "-inf", "nan")


class UnreadableError(ValueError):
    """A JSON value is not what its field's type says; the message names the field."""


def to_json(value: Any) -> Any:
    """A value of a schema as JSON has it: dataclasses and mappings as objects, tuples and arrays as lists."""
    if is_dataclass(value):
        return {field.name: to_json(value.__dict__[field.name]) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(held) for key, held in value.items()}
    if isinstance(value, np.ndarray):
        return [to_json(held) for held in value.tolist()]
    if isinstance(value, tuple | list):
        return [to_json(held) for held in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def plain(value: Any) -> Any:
    """As it comes back from JSON, so that it can be compared with what was stored; what JSON hasn't is its text."""
    return json.loads(json.dumps(value, default=str))


def from_json(kind: type[T], value: Any) -> T:
    """An instance of the dataclass `kind`. Raises UnreadableError."""
    return cast(T, _decoded(kind, value, kind.__name__))


ARRAYS = np.ndarray, get_origin(NDArray[np.float64])
"""What arrays are annotated with: from some version on, numpy's alias is no other name of the class."""


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _decoded(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), value, where)
    if origin is Literal and value in get_args(kind):
        return value
    if origin is tuple and isinstance(value, list):
        return _tuple(get_args(kind), value, where)
    if origin in ARRAYS and isinstance(value, list):
        dtype = get_args(kind)[-1]
        (item,) = get_args(dtype) or (dtype,)
        decoded = [_decoded(int if issubclass(item, np.integer) else float, held, where) for held in value]
        return np.array(decoded, dtype=item)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        held_kind = get_args(kind)[1]
        return {key: _decoded(held_kind, held, f"{where}.{key}") for key, held in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(kind, value, where)
    if origin is None:
        return _scalar(kind, value, where)
    raise UnreadableError(f"{where} is {value!r:.60}, not {kind}")


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first of a union's types that fits."""
    for kind in kinds:
        try:
            return _decoded(kind, value, where)
        except UnreadableError:
            continue
    raise UnreadableError(f"{where} is {value!r:.60}, which is none of {kinds}")


def _tuple(kinds: tuple[Any, ...], values: list[Any], where: str) -> tuple[Any, ...]:
    of = kinds[:1] * len(values) if kinds[-1] is Ellipsis else kinds
    if len(of) != len(values):
        raise UnreadableError(f"{where} has {len(values)} items, not {len(of)}")
    return tuple(_decoded(kind, value, where) for kind, value in zip(of, values, strict=True))


def _dataclass(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    hints, given = _hints(kind), {}
    for field in fields(kind):
        if field.name in value:
            given[field.name] = _decoded(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UnreadableError(f"{where}.{field.name} is missing")
    return kind(**given)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    fits: bool
    if kind is float:
        fits = value in _NOT_FINITE if isinstance(value, str) else _is_number(value, int | float)
        value = float(value) if fits else value
    elif kind is int:
        fits = _is_number(value, int)
    elif isinstance(kind, type) and issubclass(kind, StrEnum):
        fits = value in set(kind)
        value = kind(value) if fits else value
    else:
        fits = isinstance(value, kind)
    if not fits:
        raise UnreadableError(f"{where} is {value!r:.60}, not {kind}")
    return value


def _is_number(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
