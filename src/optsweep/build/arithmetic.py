"""Suggestions, published ranges, and the arithmetic that leads from one to the other, with its text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Suggestion:
    """A suggested value within a range, with its source and the arithmetic that led to it."""

    key: str
    low: float
    high: float
    value: float
    source: str
    arithmetic: str
    note: str = ""
    """What the user should know, in a line."""


@dataclass(frozen=True)
class Published:
    """A range as its source states it, and the default that goes with it, if there is one."""

    low: float
    high: float
    source: str
    value: float | None = None
    value_source: str = ""  # whose value it is, in a few words


@dataclass(frozen=True)
class Spread:
    """What the ends of a range are widened by, and that in words."""

    low: float = 1.0
    high: float = 1.0
    terms: str = ""

    def times(self, low: float, high: float, why: str) -> Spread:
        """Widened further."""
        terms = f"{self.terms} × {short(low)} – {short(high)} ({why})"
        return Spread(self.low * low, self.high * high, terms)


def scaled(
    key: str,
    published: Published,
    factors: Sequence[tuple[float, str]],
    spread: Spread = Spread(),
) -> Suggestion:
    """A published range times `factors`, its ends widened by `spread`."""
    factor = math.prod(value for value, _ in factors)
    low, high = rounded(published.low * spread.low * factor), rounded(published.high * spread.high * factor)
    terms = f"{short(published.low)} – {short(published.high)}{spread.terms}"
    source = published.source
    if factors or spread.terms:
        terms = product(terms, factors, f"{short(low)} – {short(high)}")
    if published.value is None:
        value = rounded(math.sqrt(low * high))
        chosen = f"{short(value)}, the geometric middle"
    else:
        value = rounded(published.value * factor)
        chosen = product(f"{short(published.value)} ({published.value_source})", factors, short(value))
    return Suggestion(key, low, high, value, source, f"{terms}; value {chosen}")


def product(first: str, factors: Sequence[tuple[float, str]], result: str) -> str:
    """'first × 0.1 (why) × … = result', or `first` alone."""
    if not factors and " × " not in first:
        return first
    return " × ".join([first, *(f"{short(value)} ({why})" for value, why in factors)]) + f" = {result}"


def rounded(value: float) -> float:
    """Twelve significant digits: 0.01, not 0.010000000000000002."""
    return float(f"{value:.12g}")


def short(value: float) -> str:
    """Three significant digits, small and large ones as 1e-4."""
    if value and not 1e-3 < abs(value) < 1e4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}"


def percent(fraction: float) -> str:
    """As 5 %, in three significant digits."""
    return f"{100 * fraction:.3g} %"
