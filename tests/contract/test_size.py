"""The product's own measures: short files, short functions, one name for one class."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import pytest

from drive import CONF

SOURCES = sorted((CONF.parent / "src").rglob("*.py"))
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {str(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def nodes(trees: dict[str, ast.Module]) -> Iterator[tuple[str, ast.AST]]:
    return ((path, node) for path, tree in trees.items() for node in ast.walk(tree))


def test_no_file_is_longer_than_400_lines() -> None:
    assert len(SOURCES) > 100
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: n for path, n in lengths.items() if n > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_longer_than_60_lines(trees: dict[str, ast.Module]) -> None:
    lengths = {
        (path, node.name, node.lineno): (node.end_lineno or 0) - node.lineno + 1
        for path, node in nodes(trees)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {where: n for where, n in lengths.items() if n > MOST_LINES_OF_A_FUNCTION} == {}


def test_no_two_classes_have_one_name(trees: dict[str, ast.Module]) -> None:
    names = Counter(node.name for _, node in nodes(trees) if isinstance(node, ast.ClassDef))
    assert [name for name, n in names.items() if n > 1] == []
