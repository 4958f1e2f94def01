"""Lines for whoever watches a command. What a terminal or a file can't show is no traceback at the first dash."""

from __future__ import annotations

import io
import sys
from contextlib import suppress


def replace_what_cannot_be_shown() -> None:
    """By question marks, on stdout and stderr, where they are text streams with an encoding of their own."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def complain(line: str) -> None:
    """Say something beside what a command prints."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"optsweep: {line}\n")
        sys.stderr.flush()
