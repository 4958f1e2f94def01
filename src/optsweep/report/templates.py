"""Where pages come from: templates of this folder, one style and one script, everything else escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent


def environment(*folders: Path) -> Environment:
    """Templates of these folders, and the base and the macros that all pages share."""
    found = Environment(
        loader=FileSystemLoader([*folders, _FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["svg"] = Markup  # our own
    for name, file in (("css", "page.css"), ("script", "page.js")):
        found.globals[name] = Markup((_FOLDER / file).read_text(encoding="utf-8"))
    return found
