"""Which source files are the user's own, and their digests.

A user's module is one that is neither part of Python, nor installed in its site-packages, nor of this product. What it
imports of the user's own belongs to it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from optsweep.errors import is_own


def source_digests(objects: Iterable[Any]) -> dict[str, str]:
    """Digests of the files that classes and functions come from, by path as an import has it ('mine/model.py').

    Base classes count, and so do modules that these files import, as far as they are the user's own.
    """
    own = [cls for found in objects for cls in (found.__mro__ if isinstance(found, type) else (found,))]
    modules = [_module(found) for found in own if _module(found) != "__main__"]
    digests = {f"{_name(found)}": _of_text(found) for found in own if _module(found) == "__main__"}
    seen: set[str] = set()
    while modules:
        name = modules.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _own_file(name)
        if file is not None:
            content = file.read_bytes()
            digests[_as_imported(name, file)] = hashlib.sha256(content).hexdigest()[:16]
            modules += _imports(content, name, is_package=file.name == "__init__.py")
    return dict(sorted(digests.items()))


def _module(found: Any) -> str:
    """The module of a class or a function; that of an object's class otherwise."""
    return str(found.__module__ if isinstance(found, type) or inspect.isroutine(found) else type(found).__module__)


def _name(found: Any) -> str:
    return str(found.__qualname__ if isinstance(found, type) or inspect.isroutine(found) else type(found).__qualname__)


def _of_text(found: Any) -> str:
    """Digest of the text of what a script or a notebook defines, whose other lines may change; else of its code."""
    try:
        content = inspect.getsource(
            found if isinstance(found, type) or inspect.isroutine(found) else type(found)
        ).encode()
    except (OSError, TypeError):
        content = found.__code__.co_code if inspect.isfunction(found) else b""
    return hashlib.sha256(content).hexdigest()[:16]


def _own_file(module: str) -> Path | None:
    """The source file of a user's module; None for any other."""
    loaded = sys.modules.get(module)
    file = vars(loaded).get("__file__") if loaded is not None else _found(module)
    if file is None or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    return path if is_own(path) and path.is_file() else None


def _found(module: str) -> str | None:
    """Where a module that is not loaded lies; None if it is nowhere."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec is not None else None


def _as_imported(module: str, file: Path) -> str:
    if module == "__main__":
        return file.name
    return module.replace(".", "/") + ("/__init__.py" if file.name == "__init__.py" else ".py")


def _imports(content: bytes, module: str, *, is_package: bool) -> Iterator[str]:
    """Names of the modules, and perhaps of what is in them, that a source imports anywhere."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            except ImportError:
                continue
            yield from _with_parents(base or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(module: str) -> Iterator[str]:
    """A module and the packages that it lies in, whose files run too."""
    parts = module.split(".")
    yield from (".".join(parts[: n + 1]) for n in range(len(parts)) if module)
