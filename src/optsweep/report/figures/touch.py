"""Curves as numbers, for the page: what a pointer reads off, switches, and zooms into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_POINTS = 240
_DIGITS = 5  # of a value; three of the half of an interval

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """An arm's curve on the shared axis; None where it has no value."""

    arm: str  # its name
    values: Values
    half: Values = ()  # of the interval; empty where there is none
    n: str = ""  # "8 seeds"
    loose: bool = False  # the axes aren't made for it


@dataclass(frozen=True)
class Touch:
    """The curves of a figure."""

    x: Sequence[float]
    x_label: str
    y_label: str
    lines: Sequence[Line]
    unit: str = ""  # of x, behind a number: "s"; of a step it is none
    log: bool = False  # what y begins as
    floor: float = 0.0  # where a logarithmic axis may end, though curves go on below it
    marks: Mapping[str, float] = field(default_factory=dict)  # what is worth a dotted line, by its name
    whole: bool = False  # the first steep part has its place on the axis too

    def as_json(self, places: Mapping[str, int]) -> dict[str, Any]:
        """As the page's script takes it, with arms by their places in its list."""
        return {
            "x": [_rounded(value, 7) for value in self.x],
            "xLabel": self.x_label,
            "yLabel": self.y_label,
            "unit": self.unit,
            "log": self.log,
            "floor": _rounded(self.floor, _DIGITS),
            "whole": self.whole,
            "marks": [[name, value] for name, value in self.marks.items() if math.isfinite(value)],
            "lines": [
                {
                    "arm": places[line.arm],
                    "y": [_rounded(value, _DIGITS) for value in line.values],
                    "half": [_rounded(value, 3) for value in line.half],
                    "n": line.n,
                    "loose": line.loose,
                }
                for line in self.lines
            ],
        }


@dataclass(frozen=True)
class Sampled:
    """A curve at its own places, with the half of its interval where it has one."""

    x: NDArray[np.float64]
    values: NDArray[np.float64]
    half: NDArray[np.float64] | None
    n: str
    loose: bool = False


def shared(curves: Mapping[str, Sampled]) -> tuple[list[float], list[Line]]:
    """Curves by arm on one axis: where all have values, else so many places; between its own an arm's lie on its line.

    Places are as dense as the curves are: logarithmic ones of a schedule stay so.
    """
    places = np.unique(np.concatenate([points.x for points in curves.values()]))
    if len(places) > _MOST_POINTS:  # those nearest to every so-manieth, the ends included
        places = places[np.unique(np.linspace(0, len(places) - 1, _MOST_POINTS).round().astype(int))]
    return places.tolist(), [Line(arm, *_at(places, points), points.n, points.loose) for arm, points in curves.items()]


def _at(places: NDArray[np.float64], points: Sampled) -> tuple[Values, Values]:
    within = (places >= points.x[0]) & (places <= points.x[-1])

    def of(values: NDArray[np.float64]) -> Values:
        found = np.interp(places, points.x, values)
        return [float(value) if inside else None for value, inside in zip(found, within, strict=True)]

    return of(points.values), () if points.half is None else of(points.half)


def _rounded(value: float | None, digits: int) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
