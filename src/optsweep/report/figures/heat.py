"""Heat maps over the grid: loss by learning rate and one other axis, such as the length of warm-up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import (
    INK,
    PAPER,
    FigurePlan,
    blank,
    log_ticks,
    loss_label,
    shared_labels,
    short,
    slug,
)
from optsweep.report.figures.grid import FIXED_RATE, counted, families, fixed_rate
from optsweep.report.figures.search import last_loss, loss_limits
from optsweep.report.wording import decimals, fixed, number, setting
from optsweep.tracking.names import Status
from optsweep.tracking.reader import LEARNING_RATE
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BINS = 8  # columns of learning rate; more would leave cells without a number in them, and without a trial
_ENDED = (Status.FINISHED, Status.DIVERGED)  # a pruned trial's loss is of a shorter run


def plans(group: Group) -> list[FigurePlan]:
    """One heat map per axis of the grid that this group has data for."""
    found = [_heat(group, axis) for axis in row_axes(group)]
    return [plan for plan in found if plan is not None]


@dataclass(frozen=True)
class _Cells:
    """Loss by row and column, NaN where nothing ran to its end, infinity where half or more diverged."""

    title: str
    loss: NDArray[np.float64]


def row_axes(group: Group) -> list[str]:
    """Choices, the learning rate apart, that arms which are otherwise alike differ in and that a loss may depend on.

    Every key that the multirun swept over, and the kind of warm-up; of the task's only the batch size, because losses
    of different tasks have no common scale.
    """
    keys = sorted({key for arm in group.arms for key in arm.arm.choices if "." in key} - {FIXED_RATE})
    keys = [key for key in keys if not key.startswith("task.") or key == "task.batch_size"]
    return [key for key in ["warmup", *keys] if len({arm.arm.choices.get(key, "none") for arm in group.arms}) > 1]


def _heat(group: Group, axis: str) -> FigurePlan | None:
    """Rows: values of a grid axis; columns: learning rates, of the grid or of the search. One panel per family."""
    gridded = _gridded(group.arms)
    found = families(group.arms, axis, FIXED_RATE) if gridded else families(group.arms, axis)
    found = {title: arms for title, arms in found.items() if len({_row(arm, axis) for arm in arms}) > 1}
    rates = sorted({rate for arms in found.values() for arm in arms for rate, _ in _points(arm, gridded)})
    if len(rates) < 2:
        return None
    rows = _sorted_values({_row(arm, axis) for arms in found.values() for arm in arms})
    edges = _between(rates) if gridded else _bins(rates, max(len(_points(a, False)) for f in found.values() for a in f))
    panels = [_Cells(title, _table(arms, axis, rows, edges, gridded)) for title, arms in found.items()]
    losses = [float(loss) for cells in panels for loss in cells.loss.ravel() if np.isfinite(loss)]
    if not losses:
        return None
    limits = loss_limits(losses)
    word = _axis_word(axis)

    def draw() -> Figure:
        figure, axes = blank(1.0 + (0.35 + 0.32 * len(rows)) * len(panels), len(panels), 1, sharex=True)
        for ax, cells in zip(axes, panels, strict=True):
            mesh = _draw_cells(ax, cells, edges, limits)
            ax.set_title(short(cells.title, 60))
            ax.set_yticks(np.arange(len(rows)) + 0.5, [_row_label(axis, row) for row in rows])
            ax.tick_params(labelbottom=True)
            if gridded:
                ax.set_xticks(rates, [setting(rate) for rate in rates])
                ax.minorticks_off()
            else:
                log_ticks(ax.xaxis)
        shared_labels(figure, "learning rate (log scale)", short(word))
        bar = figure.colorbar(mesh, ax=axes, shrink=0.9, aspect=max(28, 14 * len(panels)), pad=0.02, extend="max")
        bar.set_label(loss_label(group, "validation"))
        bar.outline.set_visible(False)
        return figure

    best = [_best_in_words(cells, rows, edges, rates if gridded else None, word) for cells in panels]
    n = counted([len(_points(arm, gridded)) for arms in found.values() for arm in arms])
    of = f"confirm trials (n = {n})" if gridded else f"search trials in its range of rates ({n} per row)"
    return FigurePlan(
        f"heat_{slug(axis.rpartition('.')[2] if axis != 'warmup.steps' else axis)}",
        f"Learning rate and {word}",
        f"Each cell is the final validation {group.baseline.measure}, the median of the {of}; darker is lower. "
        "Ringed: the lowest. Crosses: half or more diverged. Empty: no trial ran to its end there.",
        f"Validation {group.baseline.measure} by learning rate and {word}. {' '.join(best)}",
        draw,
    )


def _gridded(arms: Sequence[ArmResult]) -> bool:
    return len({rate for arm in arms if (rate := fixed_rate(arm)) is not None}) > 1


def _row(arm: ArmResult, axis: str) -> str:
    return arm.arm.choices.get(axis, "none")


def _points(arm: ArmResult, gridded: bool) -> list[tuple[float, float]]:
    """(learning rate, final validation loss) of the trials that a heat map counts."""
    trials = [trial for trial in arm.arm.of(Phase.CONFIRM if gridded else Phase.SEARCH) if trial.status in _ENDED]
    placed = [(fixed_rate(arm) if gridded else trial.number(LEARNING_RATE), last_loss(trial)) for trial in trials]
    return [(rate, loss) for rate, loss in placed if rate is not None and rate > 0]


def _between(rates: Sequence[float]) -> list[float]:
    """Edges of columns around rates: halfway, in logarithms, and as far outside the first and the last."""
    logs = np.log(np.asarray(rates))
    middles = (logs[1:] + logs[:-1]) / 2
    return [float(e) for e in np.exp([2 * logs[0] - middles[0], *middles, 2 * logs[-1] - middles[-1]])]


def _bins(rates: Sequence[float], trials: int) -> list[float]:
    """Edges of equal columns in logarithms: about two trials a column, so that few cells are empty."""
    columns = min(max(trials // 2, 3), _MOST_BINS)
    edges = np.geomspace(rates[0] / 1.01, rates[-1] * 1.01, columns + 1)
    return [float(edge) for edge in edges]


def _table(
    arms: Sequence[ArmResult], axis: str, rows: Sequence[str], edges: Sequence[float], gridded: bool
) -> NDArray[np.float64]:
    table = np.full((len(rows), len(edges) - 1), math.nan)
    held: dict[tuple[int, int], list[float]] = {}
    for arm in arms:
        for rate, loss in _points(arm, gridded):
            held.setdefault((rows.index(_row(arm, axis)), int(np.searchsorted(edges, rate)) - 1), []).append(loss)
    for place, losses in held.items():
        table[place] = np.median(losses)
    return table


def _draw_cells(axes: Axes, cells: _Cells, edges: Sequence[float], limits: tuple[float, float]) -> Any:
    axes.set_xscale("log")
    shown = np.ma.masked_invalid(cells.loss)
    rows, columns = cells.loss.shape
    mesh = axes.pcolormesh(
        edges, np.arange(rows + 1), shown, cmap="cividis", vmin=limits[0], vmax=limits[1], edgecolors=PAPER, linewidth=1
    )
    low, high = limits
    finite = np.abs(cells.loss[np.isfinite(cells.loss)])
    places = min(decimals(None, float(finite.min())) - 1, 5) if len(finite) else 0  # three digits of the lowest
    for row in range(rows):
        for column in range(columns):
            loss, x = cells.loss[row, column], math.sqrt(edges[column] * edges[column + 1])
            if math.isinf(loss):
                axes.plot(x, row + 0.5, "x", color=INK, markersize=6, markeredgewidth=1.5)
            elif math.isfinite(loss):
                text = fixed(float(loss), places) if abs(loss) < 1e3 else number(float(loss), 3)
                # the cell's own colour doesn't follow the page's theme, so neither may the ink on it
                ink = "#ffffff" if loss < low + 0.55 * (high - low) else "#000000"
                axes.text(x, row + 0.5, text, ha="center", va="center", color=ink, fontsize=7)
    if np.isfinite(cells.loss).any():
        row, column = _best(cells)
        around = [edges[column], edges[column + 1], edges[column + 1], edges[column], edges[column]]
        for ink, width in ((INK, 3.6), (PAPER, 1.2)):  # seen on dark cells and on light ones, in both themes
            axes.plot(around, [row, row, row + 1, row + 1, row], color=ink, linewidth=width, clip_on=False, zorder=5)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(rows, 0)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return mesh


def _best(cells: _Cells) -> tuple[int, int]:
    row, column = np.unravel_index(np.nanargmin(cells.loss), cells.loss.shape)
    return int(row), int(column)


def _best_in_words(
    cells: _Cells, rows: Sequence[str], edges: Sequence[float], rates: Sequence[float] | None, word: str
) -> str:
    of = f"{cells.title}: " if cells.title else ""
    if not np.isfinite(cells.loss).any():
        return f"{of}all diverged."
    row, column = _best(cells)
    at = setting(rates[column]) if rates else f"{setting(edges[column])} to {setting(edges[column + 1])}"
    return f"{of}lowest, {number(float(cells.loss[row, column]))}, at {word} {rows[row]} and learning rate {at}."


def _axis_word(axis: str) -> str:
    """A grid axis in a sentence."""
    group, _, key = axis.rpartition(".")
    words = {"warmup.steps": "warm-up length", "warmup": "warm-up", "task.batch_size": "batch size"}
    return words.get(axis) or (f"{group}'s {key}" if group in ("schedule", "averaging") else key)


def _row_label(axis: str, row: str) -> str:
    """A row's value with its unit, where it has one."""
    if axis == "warmup.steps" and row.replace(".", "", 1).isdigit():
        return f"{100 * float(row):g} %" if float(row) < 1 else f"{row} steps"
    return short(row, 22)


def _sorted_values(values: set[str]) -> list[str]:
    """Numbers by size, then words by name."""

    def key(value: str) -> tuple[bool, float, str]:
        try:
            return False, float(value), value
        except ValueError:
            return True, 0.0, value

    return sorted(values, key=key)
