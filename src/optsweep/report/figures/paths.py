"""Paths on two-dimensional surfaces: how each optimizer gets down, over the surface's contour lines.

The report reads MLflow only; the one exception is the formula of the surface, which comes from the task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import (
    INK,
    MUTED,
    FigurePlan,
    blank,
    colour,
    labels,
    legend,
    legend_height,
    line,
    marker,
    shared_labels,
)
from optsweep.report.wording import listed, number, plural
from optsweep.tracking.names import Status
from optsweep.tracking.reader import TrialRecord
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from optsweep.tasks.landscapes import Surface

Floats = NDArray[np.float64]
_MOST_TOGETHER = 5  # paths in one panel; more would hide each other
_MOST_BESIDE = 8  # panels of a figure that another may stand beside
_MOST_DOTS = 120  # steps of a path that are marked one by one
_DECADES = 3  # of height below the highest point of the picture that get contour lines, two a decade


@dataclass(frozen=True)
class _Path:
    """The first confirm seed's path, cut where it leaves the surface's surroundings."""

    arm: ArmResult
    points: Floats  # [steps + 1, 2]
    lost: str  # "leaves the surface" or "diverges", or nothing


Box = tuple[float, float, float, float]
"""x from, to, y from, to."""


def plans(group: Group) -> list[FigurePlan]:
    """The paths of a group on one surface, if its trials recorded them."""
    recorded = [(arm, trial) for arm in group.arms for trial in arm.arm.of(Phase.CONFIRM) if trial.path is not None]
    names = {arm.arm.surface for arm, _ in recorded}
    if len(names) != 1:
        return []
    from optsweep.tasks.landscapes import SURFACES  # torch: only where there is a path to draw

    surface = SURFACES.get(names.pop())
    if surface is None:
        return []
    paths = [_cut(arm, trial, surface.bounds) for arm, trial in recorded]
    return [_paths(paths, surface, _view(paths, surface))]


def _cut(arm: ArmResult, trial: TrialRecord, bounds: Box) -> _Path:
    """Up to the first point that is more than the bounds' own width outside of them, that point included."""
    assert trial.path is not None
    points, (x0, x1, y0, y1) = trial.path, bounds
    low, high = np.array([2 * x0 - x1, 2 * y0 - y1]), np.array([2 * x1 - x0, 2 * y1 - y0])
    outside = np.flatnonzero(~(np.isfinite(points) & (points >= low) & (points <= high)).all(1))
    if len(outside) == 0:
        return _Path(arm, points, "diverges" if trial.status is Status.DIVERGED else "")
    end = int(outside[0]) + bool(np.isfinite(points[outside[0]]).all())
    return _Path(arm, np.clip(points[:end], 1e3 * low, 1e3 * high), "leaves the surface")


def _view(paths: list[_Path], surface: Surface) -> Box:
    """The part of the surface that holds the paths and the minimum, never beyond its bounds."""
    points = np.concatenate([*(path.points for path in paths), [surface.minimum]])
    box = []
    for axis, (low, high) in enumerate((surface.bounds[:2], surface.bounds[2:])):
        held = points[(points[:, axis] >= low) & (points[:, axis] <= high), axis]
        room = 0.08 * (high - low)
        box += [max(float(held.min()) - room, low), min(float(held.max()) + room, high)]
    return box[0], box[1], box[2], box[3]


def _paths(paths: list[_Path], surface: Surface, view: Box) -> FigurePlan:
    together = len(paths) <= _MOST_TOGETHER
    columns = 1 if together else 2
    rows = 1 if together else math.ceil(len(paths) / columns)
    steps = sorted({len(path.points) - 1 for path in paths if not path.lost})

    def draw() -> Figure:
        ratio = min(max((view[3] - view[2]) / (view[1] - view[0]), 0.5), 0.85)
        arms = [path.arm for path in paths]
        height = 0.9 + legend_height(arms) + 4.2 * ratio if together else 0.5 + rows * (0.3 + 2.1 * ratio)
        figure, axes = blank(height, rows, columns, sharex=True, sharey=True)
        heights = _heights(surface, view, 201 if together else 91)
        for ax in axes:
            _draw_surface(ax, surface, view, heights)
        for place, (path, title) in enumerate(zip(paths, labels(arms, 30), strict=True)):
            ax = axes[0 if together else place]
            _draw_path(ax, path, view)
            if not together:
                ax.set_title(title)
                ax.tick_params(labelbottom=True)
                ax.locator_params(nbins=4)
        for ax in axes[1 if together else len(paths) :]:
            ax.set_visible(False)
        shared_labels(figure, "x", "y")
        if together:
            legend(figure, arms)
        return figure

    span = f"The first {steps[0] + 1} points" if len(steps) == 1 else "The points"
    ends = [f"{path.arm.label} {_end_in_words(path, surface)}" for path in paths]
    start, minimum = (
        f"({number(float(x), 2)}, {number(float(y), 2)})" for x, y in (paths[0].points[0], surface.minimum)
    )
    return FigurePlan(
        "paths",
        f"Paths on the surface: {paths[0].arm.arm.surface}",
        f"{span} at which gradients were taken; the first confirm seed (n = 1) of each arm's chosen setting. "
        "Ring: the start; filled mark: the last; star: the minimum; cross: the last point of a path that left the "
        "picture or diverged. Contour lines: the height, each 3.2 times that of the next one down.",
        f"Paths from {start} to the minimum at {minimum}, of {plural(len(paths), 'arm')}: {listed(ends)}.",
        draw,
        wide=len(paths) > _MOST_BESIDE,
    )


def _end_in_words(path: _Path, surface: Surface) -> str:
    if path.lost:
        return f"{path.lost} after {plural(len(path.points) - 1, 'step')}"
    away = float(np.hypot(*(path.points[-1] - np.array(surface.minimum))))
    return f"ends {number(away, 3)} away from it"


def _heights(surface: Surface, view: Box, size: int) -> tuple[Floats, Floats, Floats]:
    import torch

    x, y = np.meshgrid(np.linspace(view[0], view[1], size), np.linspace(view[2], view[3], size))
    return x, y, surface.value(torch.from_numpy(x), torch.from_numpy(y)).numpy()


def _draw_surface(axes: Axes, surface: Surface, view: Box, heights: tuple[Floats, Floats, Floats]) -> None:
    top = math.log10(float(heights[2].max()))
    levels = np.logspace(top - _DECADES, top, 2 * _DECADES, endpoint=False)
    axes.contour(*heights, levels=levels, colors=MUTED, linewidths=0.6, alpha=0.55)
    axes.plot(*surface.minimum, "*", color=INK, markersize=9, zorder=4)
    axes.grid(visible=False)
    axes.set_xlim(view[:2])
    axes.set_ylim(view[2:])


def _draw_path(axes: Axes, path: _Path, view: Box) -> None:
    x, y = path.points.T
    look: Any = {"color": colour(path.arm), "zorder": 3}
    axes.plot(x, y, linestyle=line(path.arm), linewidth=1.3, **look)
    axes.plot(x[:_MOST_DOTS], y[:_MOST_DOTS], ".", markersize=2.6, **look)
    axes.plot(x[0], y[0], "o", color=INK, markerfacecolor="none", markersize=7, markeredgewidth=1.3, zorder=5)
    held = (x >= view[0]) & (x <= view[1]) & (y >= view[2]) & (y <= view[3])
    if held[-1] and not path.lost:
        axes.plot(x[-1], y[-1], marker(path.arm), color=colour(path.arm), markeredgecolor=INK, markersize=6.5, zorder=5)
    elif held.any():
        last = int(np.flatnonzero(held)[-1])
        axes.plot(x[last], y[last], "x", color=colour(path.arm), markersize=7, markeredgewidth=1.8, zorder=5)
