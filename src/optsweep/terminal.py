"""Whatever a terminal or a file can't show becomes a question mark, and no traceback at the first dash."""

from __future__ import annotations

import io
import sys


def replace_what_cannot_be_shown() -> None:
    """Of stdout and stderr, where they are text streams with an encoding of their own."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
