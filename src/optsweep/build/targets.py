"""Dotted paths of the config become classes and objects here, with one line for what can't be."""

from __future__ import annotations

import importlib
import io
import sys
from collections import ChainMap
from collections.abc import Mapping, Sequence
from types import CodeType, ModuleType
from typing import Any, ClassVar

import cloudpickle

from optsweep.checks import of_type, signature_of
from optsweep.errors import UserError, first_line, nearest


def pickled(found: Any, key: str) -> bytes:
    """An object of the user's for another process: what is of their script or notebook by value, the rest by its path.

    Raises UserError for what can't be pickled.
    """
    content = io.BytesIO()
    try:
        _Pickler(content).dump(found)
    except Exception as error:
        reason = first_line(error)
        raise UserError(
            f"{key}: it can't be given to worker processes ({reason}); build it in a function of a module, "
            f"and name that: {key}._target_=module.function"
        ) from None
    return content.getvalue()


_REDUCED = cloudpickle.Pickler.dispatch_table


def _code(code: CodeType) -> tuple[Any, tuple[Any, ...]]:
    """A function's code with the name of its file, which an error is told with; cloudpickle leaves it out."""
    make, parts = _REDUCED[CodeType](code)[:2]
    return make, tuple(code.co_filename if part == "<dynamic-code>" else part for part in parts)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps names of files, and takes modules of a class of their own by name, as it does all others.

    It looks for submodules in what a function names, so `torch` and an attribute `classes` make it think of
    `torch.classes`, which can't be pickled.
    """

    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _code}, _REDUCED)

    def reducer_override(self, obj: Any) -> Any:
        """How to reduce it."""
        if isinstance(obj, ModuleType) and type(obj) is not ModuleType and sys.modules.get(obj.__name__) is obj:
            return importlib.import_module, (obj.__name__,)
        return super().reducer_override(obj)


def unpickled(content: bytes) -> Any:
    """An object that was given to this process."""
    return cloudpickle.loads(content)


def construct(cls: Any, static: Mapping[str, Any], group: str) -> Any:
    """An object of a class with its static options. Raises UserError that names the key."""
    parameters = signature_of(cls)
    known = list(parameters)
    for key in static:
        if key not in known:
            allowed = [*(["lr"] if group == "optimizer" else []), *cls.floats, *known]
            raise UserError(
                f"{group}.{key}: {cls.__name__} has no such option{nearest(key, allowed)}; {listed(allowed)}"
            )
    static = {key: of_type(f"{group}.{key}", value, parameters[key].annotation) for key, value in static.items()}
    try:
        return cls(**static)
    except (ValueError, TypeError) as error:
        text = first_line(error)
        raise UserError(text if text.startswith(group) else f"{group}: {text}") from None


def listed(names: Sequence[str]) -> str:
    """The names there are, for an error message."""
    return "known: " + ", ".join(dict.fromkeys(names)) if names else "it has none"
