"""What a reading gives: a sentence, and whether what was expected held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from optsweep.inference.statistics import Interval


class Held(StrEnum):
    """Whether what was expected held here."""

    HELD = "held"
    PART = "held in part"
    OPEN = "not shown"
    FAILED = "did not hold"
    REVERSE = "did not hold; the reverse"


@dataclass(frozen=True)
class Answer:
    """What came out, in one sentence, and whether it is what was expected."""

    sentence: str
    held: Held


def overall(held: Iterable[Held]) -> Held:
    """One word for several: in part as soon as something held and something else didn't."""
    said = set(held)
    if not said:
        return Held.OPEN
    if len(said) == 1:
        return said.pop()
    if said & {Held.HELD, Held.PART}:
        return Held.PART
    return Held.REVERSE if Held.REVERSE in said else Held.FAILED


def below_one(ratio: Interval) -> Held:
    """Whether a ratio that is expected below 1 is, by its interval."""
    if ratio.low is None or ratio.high is None:
        return Held.OPEN
    return Held.HELD if ratio.high < 1 else Held.REVERSE if ratio.low > 1 else Held.OPEN
