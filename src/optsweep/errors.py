"""The one exception that a user is meant to read: a single line that names the key, what is wrong, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in what the user gave; printed as one line, exit code 2, before any training."""


class SweepFailedError(Exception):
    """Every trial of a sweep crashed; printed as one line, exit code 1, when its report is written."""

    def __init__(self, sweep: str, reason: str) -> None:
        super().__init__(
            f"sweep.name={sweep}: every trial crashed, the first one with {reason}; mend it and give the same command "
            f"again (crashed trials of unchanged code: optsweep retry {sweep})"
        )


def without_secrets(text: str) -> str:
    """The text with the passwords of its addresses starred out."""
    return re.sub(r"(://[^/\s:@]*):[^@/\s]+@", r"\1:***@", text)


def nearest(word: str, candidates: Iterable[str]) -> str:
    """' (did you mean …?)' with the closest candidate, or nothing."""
    close = get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
