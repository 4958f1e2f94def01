"""The verb `docs`: the pages of the guide, which come with the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from optsweep.cli.parser import Parser
from optsweep.errors import UserError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]


def docs(arguments: Sequence[str]) -> None:
    """List the pages, or print one."""
    parser = Parser("optsweep docs", description="The pages of the guide, or one of them.")
    parser.add_argument("page", nargs="?", metavar="PAGE", help="one to print; its name without .md will do")
    options = parser.parse_args(arguments)
    known = pages()
    if options.page is None:
        width = max(map(len, known), default=0)
        print(f"{folder()} has, for a Markdown reader or `optsweep docs PAGE`:")
        for name, path in known.items():
            print(f"  {name:<{width}}  {title(path)}")
        return
    name = options.page.removesuffix("/README.md").rpartition("/")[2].removesuffix(".md")
    if name not in known:
        raise UserError(f"PAGE: there is no {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    sys.stdout.write(known[name].read_text(encoding="utf-8"))


def pages() -> dict[str, Path]:
    """By their names; one in a folder of its own, beside the files that it is about, has the folder's."""
    found = {path.stem: path for path in folder().glob("*.md")}
    found |= {path.parent.name: path for path in folder().glob("deploy/README.md")}
    return dict(sorted(found.items()))


def folder() -> Path:
    """Where the pages are: in the package, or beside the source of one that is installed from there."""
    inside = _PACKAGE / "docs"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "docs"


def title(page: Path) -> str:
    """Its first heading."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")
