"""What a trial's worker says of it, in order, as lines of JSON: it begins, has points of curves and files, and ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MetricPoint = tuple[str, float, int, int]
"""Key, value, milliseconds since 1970, step: the same again is the same point."""


@dataclass(frozen=True)
class Opened:
    """A trial begins. Always the first record."""

    id: str  # of the trial in the studies
    name: str  # of its run
    arm: str
    phase: str
    slot: int
    repeat: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    time: int  # milliseconds since 1970
    again: bool = False  # an earlier attempt at the slot was cut off
    resume: str = ""  # ids of the attempts whose run goes on, the last one first

    @property
    def place(self) -> tuple[str, str, int, int]:
        """What it is an attempt at."""
        return self.arm, self.phase, self.repeat, self.slot


@dataclass(frozen=True)
class Points:
    """Points of its curves."""

    points: tuple[MetricPoint, ...]


@dataclass(frozen=True)
class TextFile:
    """A text file that it leaves."""

    name: str
    text: str


@dataclass(frozen=True)
class Ended:
    """It ended; the last one counts."""

    tags: Mapping[str, str]
    params: Mapping[str, str]
    failed: bool
    time: int


Record = Opened | Points | TextFile | Ended

_KINDS: Mapping[str, type[Record]] = {kind.__name__: kind for kind in (Opened, Points, TextFile, Ended)}


def to_line(record: Record) -> bytes:
    """With its end of line, by which a line that was cut off is known."""
    content = {field.name: record.__dict__[field.name] for field in fields(record)}
    return json.dumps({type(record).__name__: content}).encode() + b"\n"


def from_line(line: bytes) -> Record | None:
    """None for a line that is none of these: it was cut off, or the file is damaged."""
    try:
        ((name, content),) = json.loads(line).items()
        return _made(_KINDS[name], content)
    except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
        return None


def _made(kind: type[Record], content: Mapping[str, Any]) -> Record:
    if kind is Points:
        points = content["points"]
        return Points(tuple((str(key), float(value), int(time), int(step)) for key, value, time, step in points))
    return kind(**content)
