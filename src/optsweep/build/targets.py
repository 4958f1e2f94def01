"""Dotted paths of the config become classes and objects here, with one line for what can't be."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from optsweep.build.sources import in_words
from optsweep.checks import of_type
from optsweep.errors import UserError, nearest


def resolve(target: str, key: str) -> Any:
    """The object that a dotted path names. Raises UserError."""
    module_name, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}: {target!r} can't be imported ({error})") from None
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is run
        raise UserError(f"{key}: {target!r} can't be imported ({in_words(error)})") from None


def construct(cls: Any, static: Mapping[str, Any], group: str) -> Any:
    """An object of a class with its static options. Raises UserError that names the key."""
    parameters = _parameters(cls)
    known = list(parameters)
    for key in static:
        if key not in known:
            allowed = [*cls.floats, *known]
            raise UserError(
                f"{group}.{key}: {cls.__name__} has no such option{nearest(key, allowed)}; {listed(allowed)}"
            )
    static = {key: of_type(f"{group}.{key}", value, parameters[key].annotation) for key, value in static.items()}
    try:
        return cls(**static)
    except (ValueError, TypeError) as error:
        text = str(error).splitlines()[0]
        raise UserError(text if text.startswith(group) else f"{group}: {text}") from None


def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    """A constructor's parameters, annotations as objects where all their names are known."""
    try:
        return inspect.signature(cls, eval_str=True).parameters
    except NameError:
        return inspect.signature(cls).parameters


def listed(names: Sequence[str]) -> str:
    """The names there are, for an error message."""
    return "known: " + ", ".join(dict.fromkeys(names)) if names else "it has none"
