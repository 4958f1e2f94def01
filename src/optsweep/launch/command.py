"""The command line of a call, as a report shows it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from optsweep.errors import without_secrets


def command_line(arguments: Sequence[str]) -> str:
    """The command that repeats a call with these arguments, without passwords: it goes into the report."""
    return without_secrets(shlex.join(["optsweep", *arguments]))
