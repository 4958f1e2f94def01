"""A grid of arms as it was asked for: two choices crossed, the result in each cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import INK, PAPER, FigurePlan, blank, loss_label, short
from optsweep.report.figures.grid import families
from optsweep.report.figures.runs import runs
from optsweep.report.figures.search import loss_limits
from optsweep.report.wording import decimals, fixed, listed, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEWEST = 4  # arms that make a grid
_FILLED = 0.6  # share of its cells
_MOST_PANELS = 6
_LONGEST = 16  # letters of a value below a column


@dataclass(frozen=True)
class _Panel:
    """Arms that are alike but for the two choices, by row and column."""

    title: str
    arms: Mapping[tuple[str, str], ArmResult]


@dataclass(frozen=True)
class _Grid:
    """Two choices, and their values, those of the lowest losses first."""

    axes: tuple[str, str]  # rows, columns
    rows: Sequence[str]
    columns: Sequence[str]
    panels: Sequence[_Panel]

    def table(self, panel: _Panel) -> NDArray[np.float64]:
        """Mean test losses; NaN where there is none."""
        return np.array([[_loss(panel.arms.get((row, column))) for column in self.columns] for row in self.rows])


def plans(group: Group) -> list[FigurePlan]:
    """A heat map of the two choices that most arms are crossed in, if any are."""
    found = [grid for pair in itertools.combinations(_choices(group), 2) if (grid := _grid(group, *pair)) is not None]
    if not found:
        return []
    return [_plan(group, max(found, key=lambda grid: (-len(grid.panels), len(grid.rows) * len(grid.columns))))]


def _choices(group: Group) -> list[str]:
    """What the arms differ in, optimizer and schedule first."""
    keys = sorted({key for arm in group.arms for key in arm.arm.choices})
    varied = [key for key in keys if len({_value(arm, key) for arm in group.arms}) > 1]
    return sorted(varied, key=lambda key: (key not in ("optimizer", "schedule"), key))


def _grid(group: Group, first: str, second: str) -> _Grid | None:
    arms = [arm for arm in group.by_result if arm.test is not None]
    if len(arms) < _FEWEST:
        return None
    panels = [
        _Panel(title, {(_value(arm, first), _value(arm, second)): arm for arm in held})
        for title, held in families(arms, first, second).items()
    ]
    rows, columns = (list(dict.fromkeys(_value(arm, key) for arm in arms)) for key in (first, second))  # best first
    cells = len(panels) * len(rows) * len(columns)
    if min(len(rows), len(columns)) < 2 or len(panels) > _MOST_PANELS or len(arms) < _FILLED * cells:
        return None
    if len(rows) < len(columns):
        turned = [_Panel(p.title, {(column, row): arm for (row, column), arm in p.arms.items()}) for p in panels]
        return _Grid((second, first), columns, rows, turned)
    return _Grid((first, second), rows, columns, panels)


def _plan(group: Group, grid: _Grid) -> FigurePlan:
    rows, columns = (key.rpartition(".")[2].replace("_", " ") for key in grid.axes)
    tables = [grid.table(panel) for panel in grid.panels]
    limits = loss_limits([float(loss) for table in tables for loss in table.ravel() if math.isfinite(loss)])
    lost = [arm.label for arm in group.by_result if arm.test is not None and arm.diverged_seeds]

    def draw() -> Figure:
        height = 1.1 + (0.45 + 0.34 * len(grid.rows)) * len(tables)
        figure, axes = blank(height, len(tables), 1)
        for ax, panel, table in zip(axes, grid.panels, tables, strict=True):
            mesh = _draw(ax, group, grid, panel, table, limits)
            ax.set_ylabel(short(rows))
        axes[-1].set_xlabel(short(columns))
        bar = figure.colorbar(mesh, ax=axes, shrink=0.9, aspect=max(28, 14 * len(tables)), pad=0.02, extend="max")
        bar.set_label(loss_label(group, "test"))
        bar.outline.set_visible(False)
        return figure

    best = group.by_result[0]
    return FigurePlan(
        "grid",
        f"Test {group.baseline.measure} by {rows} and {columns}",
        f"Each cell is the mean test {group.baseline.measure} of an arm over its confirm seeds; darker is lower. Rows "
        "and columns are in the order of their lowest. Ringed: the lowest of all; dashed: the baseline. "
        f"n = {runs([list(arm.test_losses) for arm in group.by_result if arm.test_losses])} per arm."
        + (f" In italics, diverged on some seeds: {listed(lost)}." if lost else ""),
        f"Mean test {group.baseline.measure} by {rows} and {columns}; the lowest, {number(_loss(best))}, is that of "
        f"{best.label}.",
        draw,
    )


def _draw(
    axes: Axes, group: Group, grid: _Grid, panel: _Panel, table: NDArray[np.float64], limits: tuple[float, float]
) -> Any:
    look: Any = {"cmap": "cividis", "vmin": limits[0], "vmax": limits[1], "edgecolors": PAPER, "linewidth": 1}
    mesh = axes.pcolormesh(np.ma.masked_invalid(table), **look)
    places = _places(table)
    for (row, column), arm in panel.arms.items():
        x, y, loss = grid.columns.index(column), grid.rows.index(row), _loss(arm)
        # the cell's own colour doesn't follow the page's theme, so neither may the ink on it
        ink = "#ffffff" if loss < limits[0] + 0.55 * (limits[1] - limits[0]) else "#000000"
        text = fixed(loss, places) if abs(loss) < 1e4 else number(loss, 3)
        slant = "italic" if arm.diverged_seeds else "normal"
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=ink, fontsize=7, fontstyle=slant)
        if arm is group.by_result[0]:
            _ring(axes, x, y, "-")
        if arm is group.baseline and group.comparisons:
            _ring(axes, x, y, (0, (3, 2)))
    axes.set_title(short(panel.title, 60))
    axes.set_xticks(np.arange(len(grid.columns)) + 0.5, [short(column, _LONGEST) for column in grid.columns])
    if len(grid.columns) * max(map(len, grid.columns)) > 52:
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_yticks(np.arange(len(grid.rows)) + 0.5, [short(row, 22) for row in grid.rows])
    axes.set_ylim(len(grid.rows), 0)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return mesh


def _ring(axes: Axes, x: int, y: int, style: Any) -> None:
    around = ([x, x + 1, x + 1, x, x], [y, y, y + 1, y + 1, y])
    for ink, width, of in ((INK, 3.6, "-"), (PAPER, 1.2, style)):  # seen on dark cells and on light ones
        axes.plot(*around, color=ink, linewidth=width, linestyle=of, clip_on=False, zorder=5)


def _places(table: NDArray[np.float64]) -> int:
    """Decimals of four digits of the lowest."""
    finite = np.sort(np.abs(table[np.isfinite(table)]))
    return min(decimals(None, float(finite[0])), 5) if len(finite) else 0


def _loss(arm: ArmResult | None) -> float:
    return math.nan if arm is None or arm.test is None else arm.test.estimate


def _value(arm: ArmResult, key: str) -> str:
    return arm.arm.choices.get(key, "none")
