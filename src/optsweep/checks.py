"""Checks of single values; each error is one line that names the key as the user types it and says what is allowed.

A check is a function of (key, value) that returns the value, or raises UserError. Numbers of numpy come back as plain
ones. The same checks serve the config's dataclasses, a task's options and a rule's static options.
"""

from __future__ import annotations

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from optsweep.errors import UserError, nearest

Check = Callable[[str, object], Any]

MOST_SHOWN = 80
"""Characters of a value that an error's line has."""

LARGEST = 10**15
"""Whole numbers are of this size at most: beyond it is a slip of the pen, or more than any machine holds."""


def plain(value: object) -> object:
    """A number or a truth value of numpy as Python's own; everything else as it is."""
    if "numpy" in sys.modules:  # else there is none of its numbers; the command line starts without it
        import numpy as np

        if isinstance(value, np.bool_):
            return bool(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def refuse(key: str, value: object, allowed: str) -> UserError:
    """The error for a bad value."""
    return UserError(f"{key}: {shown(value)} is not allowed; give {allowed}")


def shown(value: object) -> str:
    """A value in an error's line, short, whatever was given."""
    try:
        said = repr(plain(value))
    except ValueError:  # an int of thousands of digits
        said = "a number of thousands of digits"
    return said if len(said) <= MOST_SHOWN else f"{said[:MOST_SHOWN]}…"


def whole(key: str, value: object, *, low: int | None = 1, most: int = LARGEST, also: str = "") -> int:
    """A whole number ≥ `low` and ≤ `most`; `also` is what else the error says is allowed."""
    value = plain(value)
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or (low is not None and value < low):  # type: ignore[operator]
        raise refuse(key, value, "a whole number" + ("" if low is None else f" ≥ {low}") + also)
    if not -LARGEST <= value <= most:  # type: ignore[operator]
        raise refuse(key, value, "a whole number" + ("" if low is None else f" ≥ {low} and") + f" ≤ {most}{also}")
    return value  # type: ignore[return-value]


def number(
    key: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    also: str = "",
) -> float:
    """A finite number, > `above`, ≥ `least`, ≤ `most` and < `below`; `also` as in `whole`."""
    value = plain(value)
    bounds = [f"> {above:g}"] * (above > -math.inf) + [f"≥ {least:g}"] * (least > -math.inf)
    bounds += [f"≤ {most:g}"] * (most < math.inf) + [f"< {below:g}"] * (below < math.inf)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not (above < float(value) < below and least <= float(value) <= most):  # type: ignore[arg-type]
        raise refuse(key, value, " ".join(["a number", " and ".join(bounds)]).strip() + also)
    return float(value)  # type: ignore[arg-type]


def length(key: str, value: object, *, also: str = "") -> float:
    """A stretch of a run: a whole number of steps, or, with a decimal point and up to 1.0, a fraction of the run.

    So 1 is one step and 1.0 the whole run; `also` as in `whole`.
    """
    value = plain(value)
    if isinstance(value, float) and 0 < value <= 1:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= LARGEST or value % 1 != 0:
        raise refuse(key, value, f"a whole number of steps ≥ 1, or a fraction of the run > 0.0 and ≤ 1.0{also}")
    return int(value)


def in_steps(value: float, total: int) -> float:
    """A length in steps of a run of `total`, at least one; not rounded, so four quarters of a run are the run."""
    return max(1.0, value * total) if isinstance(value, float) and value <= 1 else float(value)


def lengths(key: str, value: object) -> tuple[float, ...]:
    """A list of lengths as `length` has them, not an empty one."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise refuse(key, value, "a list of steps or of fractions of the run, such as [0.5,0.75]")
    return tuple(length(key, item) for item in value)


def flag(key: str, value: object, *, also: str = "") -> bool:
    """True or false."""
    value = plain(value)
    if not isinstance(value, bool):
        raise refuse(key, value, f"true or false{also}")
    return value


def text(key: str, value: object, *, also: str = "") -> str:
    """A string."""
    if not isinstance(value, str):
        raise refuse(key, value, f"a string{also}")
    return str(value)


def choice(key: str, value: object, choices: Sequence[str], *, also: str = "") -> str:
    """One of `choices`; null is "none" where there is one."""
    if value is None and "none" in choices:
        return "none"
    if not isinstance(value, str) or value not in choices:
        raise refuse(key, value, f"one of {', '.join(choices)}{also}{nearest(str(value), choices)}")
    return str(value)


def wholes(key: str, value: object) -> tuple[int, ...]:
    """A list of whole numbers ≥ 1, not an empty one."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise refuse(key, value, "a list of whole numbers, such as [16,32]")
    return tuple(whole(key, item) for item in value)


def by_name(key: str, value: object) -> Mapping[str, Any]:
    """Options by name."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise refuse(key, value, "options by name")
    return {str(name): plain(option) for name, option in value.items()}


def checked(check: Callable[..., Any], **bounds: Any) -> Check:
    """A check with its bounds: `checked(whole, low=2)`."""
    return lambda key, value: check(key, value, **bounds)


def optional(check: Callable[..., Any], **bounds: Any) -> Check:
    """As `checked`, or null."""

    def passed(key: str, value: object) -> Any:
        return None if value is None else check(key, value, **bounds, also=", or null")

    return passed


def either(word: str, check: Callable[..., Any], **bounds: Any) -> Check:
    """As `checked`, or a word, which is returned as it is."""

    def passed(key: str, value: object) -> Any:
        is_word = isinstance(value, str) and value == word
        return word if is_word else check(key, value, **bounds, also=f", or {word}")

    return passed


def of_type(key: str, value: object, annotation: object) -> Any:
    """A value as a constructor's annotation has it: bool, int, float, str, Literal of strings, each or None.

    A value of any other annotation is returned unseen.
    """
    also, kinds = "", (annotation,)
    if get_origin(annotation) in (Union, UnionType):
        kinds = tuple(kind for kind in get_args(annotation) if kind is not NoneType)
        if len(kinds) < len(get_args(annotation)):
            if value is None:
                return None
            also = ", or null"
    if len(kinds) > 1:
        return plain(value)
    (kind,) = kinds
    if get_origin(kind) is Literal and all(isinstance(word, str) for word in get_args(kind)):
        return choice(key, value, get_args(kind), also=also)
    simple: Mapping[object, Check] = {
        bool: checked(flag, also=also),
        int: checked(whole, low=None, also=also),
        float: checked(number, also=also),
        str: checked(text, also=also),
    }
    return simple[kind](key, value) if kind in simple else plain(value)


def as_declared(key: str, value: object, parameter: inspect.Parameter) -> Any:
    """A value as a parameter has it: as its annotation says, and where that leaves it open, as its default is.

    A tuple of numbers is given as a list of as many. A value of a default that says nothing, such as None, is returned
    unseen.
    """
    value, default = of_type(key, value, parameter.annotation), plain(parameter.default)
    if value is None and (default is None or NoneType in get_args(parameter.annotation)):
        return value
    if isinstance(default, bool):
        return flag(key, value)
    if isinstance(default, (int, float)):
        return number(key, value)
    if isinstance(default, str):
        return text(key, value)
    if isinstance(default, tuple) and default and all(isinstance(item, (int, float)) for item in default):
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(default):
            raise refuse(key, value, f"a list of {len(default)} numbers, such as {list(default)}")
        for item in value:
            number(key, item)
    return value


def signature_of(cls: Any) -> Mapping[str, inspect.Parameter]:
    """A constructor's parameters, annotations as objects where all their names are known."""
    try:
        return inspect.signature(cls, eval_str=True).parameters
    except (NameError, TypeError, AttributeError):
        return inspect.signature(cls).parameters
