"""How many lines of an example are there for optsweep's sake."""

from __future__ import annotations

import ast
import re


def spoken_lines(text: str) -> set[int]:
    """Numbers of the lines that speak of optsweep or of a trial, with the rest of their statements."""
    lines = text.splitlines()
    found: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and not _is_text(node):
            spoken = range(node.lineno, _end(node) + 1)
            if re.search(r"\b(optsweep|trial)\b", "\n".join(lines[spoken.start - 1 : spoken.stop - 1])):
                found |= {*spoken}
    return found


def _end(node: ast.stmt) -> int:
    """Last line of a statement; of one that has a body, the line before that."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try)):
        return max(node.lineno, node.body[0].lineno - 1)
    return node.end_lineno or node.lineno


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
