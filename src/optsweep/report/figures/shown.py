"""A figure that a notebook shows, whether pyplot is there or not; apart, because importing matplotlib takes long."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from optsweep.report.wording import MINUS

_DPI = 130


class TickNumbers(ScalarFormatter):
    """matplotlib's numbers, but with a power of ten each: one for all stands above the axis, where a title is."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of a tick."""
        if not self._with_powers:
            return super().__call__(x, pos)
        mantissa, _, power = f"{x:.5g}".partition("e")
        return (f"{mantissa}e{int(power)}" if power else mantissa).replace("-", MINUS)

    def get_offset(self) -> str:
        """What stands above the axis."""
        return "" if self._with_powers else super().get_offset()

    @property
    def _with_powers(self) -> bool:
        return self.orderOfMagnitude != 0 and self.offset == 0


class ShownFigure(Figure):
    """A figure with a picture of itself."""

    def _repr_png_(self) -> bytes:
        """What a notebook shows of it."""
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=_DPI)
        return content.getvalue()
