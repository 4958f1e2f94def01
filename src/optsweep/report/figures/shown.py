"""A figure that a notebook shows, pyplot or not, and the numbers on its axes; apart: importing matplotlib is slow."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from optsweep.report.wording import MINUS

_DPI = 130
_DIGITS = 5  # of a tick with a power of ten
_PLAIN = (1e-4, 1e6)  # largest ticks that matplotlib writes without one


class TickNumbers(ScalarFormatter):
    """matplotlib's numbers, but with a power of ten each: one for all stands above the axis, where a title is."""

    _with_powers = False

    def set_locs(self, locs: Any) -> None:
        """Know all ticks of an axis."""
        super().set_locs(locs)
        largest = max((abs(float(tick)) for tick in locs), default=0.0)
        known = len({f"{tick:.{_DIGITS}g}" for tick in locs}) == len(locs)
        self._with_powers = known and largest > 0 and not _PLAIN[0] <= largest < _PLAIN[1]

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of a tick."""
        if not self._with_powers:
            return super().__call__(x, pos)
        mantissa, _, power = f"{x:.{_DIGITS}g}".partition("e")
        return (f"{mantissa}e{int(power)}" if power else mantissa).replace("-", MINUS)

    def get_offset(self) -> str:
        """What stands above the axis."""
        return "" if self._with_powers else super().get_offset()


class ShownFigure(Figure):
    """A figure with a picture of itself."""

    def _repr_png_(self) -> bytes:
        """What a notebook shows of it."""
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=_DPI)
        return content.getvalue()
