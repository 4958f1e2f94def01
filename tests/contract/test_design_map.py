"""The map in docs/design.md names every module, and none that isn't there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import optsweep

PACKAGE = Path(optsweep.__file__).parent
DESIGN = Path(__file__).resolve().parents[2] / "docs" / "design.md"
NAME = re.compile(r"`([\w/]+(?:\.py|/))`")
WHOLE = ("figures/", "across/", "judged/")
"""Folders of one idea a file: the map has their names alone."""


def _rows() -> Iterator[tuple[str, str]]:
    """(what a row is of, the whole row) of the map's table."""
    table = DESIGN.read_text(encoding="utf-8").split("| layer | what is in it |\n| --- | --- |\n")[1]
    for line in table.split("\n\n")[0].splitlines():
        yield line.split("|")[1], line


def _named() -> set[Path]:
    """What the rows name, within the folder that each row is of."""
    found = set()
    for of, row in _rows():
        folders = [PACKAGE / name for name in NAME.findall(of) if name.endswith("/")] or [PACKAGE]
        inner = [
            folders[0] / name for name in NAME.findall(row) if name.endswith("/") and PACKAGE / name not in folders
        ]
        for name in NAME.findall(row):
            if name.endswith(".py"):
                held = [folder / name for folder in [*folders, *inner] if (folder / name).is_file()]
                found |= set(held or [folders[0] / name])
    return found


def test_every_module_is_on_the_map_and_nothing_else() -> None:
    modules = {
        path
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("__") and "templates" not in path.parts and f"{path.parent.name}/" not in WHOLE
    }
    named = _named()
    assert sorted(map(str, modules - named)) == []
    assert sorted(map(str, named - modules)) == []
