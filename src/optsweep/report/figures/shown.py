"""A figure that a notebook shows, whether pyplot is there or not; apart, because importing matplotlib takes long."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

_DPI = 130


class ShownFigure(Figure):
    """A figure with a picture of itself."""

    def _repr_png_(self) -> bytes:
        """What a notebook shows of it."""
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=_DPI)
        return content.getvalue()
