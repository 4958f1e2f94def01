"""Which source files are the user's own, and their digests.

A user's module is one that is neither part of Python, nor installed in its site-packages, nor of this product. What it
imports of the user's own belongs to it.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

_PRODUCT = Path(__file__).resolve().parents[1]
_INSTALLED = tuple(
    Path(path).resolve()
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_PACKAGES = frozenset({"site-packages", "dist-packages"})


def source_digests(objects: Iterable[Any]) -> dict[str, str]:
    """Digests of the files that classes and functions come from, by path as an import has it ('mine/model.py').

    Base classes count, and so do modules that these files import, as far as they are the user's own.
    """
    modules = [cls.__module__ for found in objects for cls in (found.__mro__ if isinstance(found, type) else (found,))]
    digests: dict[str, str] = {}
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


def _own_file(module: str) -> Path | None:
    """The source file of a user's module; None for any other."""
    loaded = sys.modules.get(module)
    file = vars(loaded).get("__file__") if loaded is not None else _found(module)
    if file is None or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    return path if _is_own(path) else None


def _is_own(path: Path) -> bool:
    foreign = path.is_relative_to(_PRODUCT) or not _PACKAGES.isdisjoint(path.parts)
    return not foreign and not any(path.is_relative_to(folder) for folder in _INSTALLED) and path.is_file()


def in_words(error: BaseException) -> str:
    """What an error says in one line, with the place where it left the user's own code: 'ValueError: no (mine.py:7)'.

    One that none of the user's code had a part in names where it was raised.
    """
    said = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(Path(frame.filename).resolve())]
    place = next(iter((own or frames)[-1:]), None)
    return said if place is None else f"{said} ({_shown(place.filename)}:{place.lineno})"


def _shown(file: str) -> str:
    """A file as seen from the working folder."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


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
