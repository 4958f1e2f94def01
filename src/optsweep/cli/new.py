"""The verb `new`: writes a project that works as it is, to begin one's own with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from optsweep.cli.parser import Parser
from optsweep.errors import UserError

KINDS = {
    "pieces": "a model, data and a loss, trained by optsweep's loop",
    "loop": "a training loop of your own",
    "huggingface": "a model of transformers, trained by its Trainer",
}
NAME = "{{name}}"
"""Stands in the templates for the project's name."""


def new(arguments: Sequence[str]) -> None:
    """Write a project, and say what to do with it."""
    parser = Parser("optsweep new", description="Write a project of your own to start from, which runs as it is.")
    parser.add_argument("folder", type=Path, metavar="NAME", help="a folder that isn't there yet")
    kinds = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    parser.add_argument("--kind", choices=list(KINDS), default="pieces", help=f"{kinds} (default: pieces)")
    options = parser.parse_args(arguments)
    written = write_project(options.folder, options.kind)
    print(
        f"{options.folder} has {', '.join(written)}; to begin:\n\n  cd {options.folder}\n  optsweep check task=mine\n"
    )


def write_project(folder: Path, kind: str) -> list[str]:
    """Write the project of a kind; returns its files. Raises UserError before anything is written."""
    if not re.fullmatch(r"\w[\w.-]*", folder.name, re.ASCII):
        raise UserError(f"NAME: {folder.name!r} is not allowed; give letters, digits and . _ - (a folder)")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: it is there already and not an empty folder; give another name")
    contents = {
        path: file.read_text(encoding="utf-8").replace(NAME, folder.name)
        for path, file in _files(files("optsweep") / "templates" / kind)
    }
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    return sorted(contents)


def _files(folder: Traversable, above: str = "") -> Iterator[tuple[str, Traversable]]:
    """The files of a template with their paths in it."""
    for found in folder.iterdir():
        if found.name == "__pycache__":
            continue
        if found.is_dir():
            yield from _files(found, f"{above}{found.name}/")
        else:
            yield f"{above}{found.name}", found
