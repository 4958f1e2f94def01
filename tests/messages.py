"""The texts that the code can say: every string of it, with … where something is filled in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import optsweep

GAP = "…"


def messages() -> frozenset[str]:
    """Of all modules, adjacent strings as one."""
    return frozenset(text for path in Path(optsweep.__file__).parent.rglob("*.py") for text in _of(path))


def said(line: str, known: frozenset[str]) -> bool:
    """Whether a line, with … for what is filled in, is the beginning of one of them."""
    parts = [part.strip() for part in line.split(GAP) if part.strip()]
    return any(_in_order(parts, text) for text in known)


def _in_order(parts: list[str], text: str) -> bool:
    at = 0
    for place, part in enumerate(parts):
        found = text.find(part, at)
        if found < 0 or (place == 0 and GAP not in text[:found] and found > 0):
            return False
        at = found + len(part)
    return True


def _of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(_piece(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _piece(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else GAP
