"""What `optsweep doctor` finds, a line each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """Of what was looked at."""

    OK = "ok"
    WARN = "warn"  # worth knowing; a sweep runs
    FAIL = "fail"  # something that a sweep needs


@dataclass(frozen=True)
class Diagnosis:
    """A line: what was looked at and what was found."""

    health: Health
    what: str
    found: str
