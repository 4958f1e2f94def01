"""Where pages come from: templates of this folder, one style and one script, everything else escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent
_PARTS = {
    "css": ("page.css",),
    "script": ("page.js",),
    "touch_css": ("vendor/uplot.css", "touch.css"),
    "touch_licence": ("vendor/uplot.LICENSE",),
    "live_css": ("live.css",),
    "live_script": ("live.js",),
    "touch_script": ("vendor/uplot.js", "parts.js", "chart.js", "touch.js"),
}


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
    found.filters["sha256"] = _sha256
    for name, files in _PARTS.items():
        found.globals[name] = Markup("\n".join((_FOLDER / file).read_text(encoding="utf-8") for file in files))
    return found


def _sha256(script: str) -> str:
    """By which a page's policy knows its own script and lets no other run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def data(value: Any) -> Markup:
    """JSON as the content of a script element, which no text in it can end."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # of ASCII alone
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
