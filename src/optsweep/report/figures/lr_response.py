"""The response to a fixed learning rate, where it is an axis of the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import (
    MUTED,
    FigurePlan,
    blank,
    colour,
    legend_columns,
    log_ticks,
    loss_label,
    marker,
    short,
)
from optsweep.report.figures.grid import FIXED_RATE, families, fixed_rate
from optsweep.report.figures.runs import runs
from optsweep.report.figures.search import loss_limits
from optsweep.report.wording import listed, number, setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 12.0  # times (median − best) above the best that the response shows: too small a rate has a place on it
_APART = 0.017  # of the axis between the marks of two families at one learning rate, so that both are seen
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1, 1.4)))


def plans(group: Group) -> list[FigurePlan]:
    """The response in one figure, if a family of arms has rates enough."""
    plan = _response(group)
    return [] if plan is None else [plan]


def _response(group: Group) -> FigurePlan | None:
    """Final test loss against a learning rate that is an axis of the grid: what too large and too small ones do."""
    found = {
        title: sorted((arm for arm in arms if fixed_rate(arm) is not None), key=_rate)
        for title, arms in families(group.arms, FIXED_RATE).items()
    }
    found = {title: arms for title, arms in found.items() if len({_rate(arm) for arm in arms}) > 2}
    held = [arm for arms in found.values() for arm in arms if arm.test_losses or arm.diverged_seeds]
    losses = [arm.test.estimate for arm in held if arm.test]
    if not losses:
        return None
    low, high = loss_limits(losses, _SHOWN)
    limits = low, high + 0.12 * (high - low)

    span = max(_rate(arm) for arm in held) / min(_rate(arm) for arm in held)
    columns = legend_columns([short(title) for title in found])

    def draw() -> Figure:
        figure, (axes,) = blank(3.2 + 0.165 * (math.ceil(len(found) / columns) - 1))
        for place, (title, arms) in enumerate(found.items()):
            aside = span ** (_APART * (place - (len(found) - 1) / 2))
            points = [(_rate(arm) * aside, arm.test.estimate) for arm in arms if arm.test and arm.test.estimate <= high]
            look = _LINES[place % len(_LINES)]
            axes.plot(*np.reshape(points, (-1, 2)).T, color=MUTED, linestyle=look, linewidth=1.3, label=short(title))
            for arm in arms:
                _draw_rate(axes, arm, _rate(arm) * aside, (low, high), limits[1])
        axes.set_xscale("log")
        axes.set_ylim(limits)
        log_ticks(axes.xaxis)
        axes.set_xlabel("learning rate (log scale)")
        axes.set_ylabel(loss_label(group, "test"))
        if len(found) > 1:
            figure.legend(loc="outside upper left", ncols=columns, borderaxespad=0.2)
        return figure

    said = [f"{title + ': ' if title else ''}{_response_in_words(arms)}" for title, arms in found.items()]
    return FigurePlan(
        "lr_response",
        "Response to the learning rate",
        f"Each point is one arm, in its colour: the mean test {group.baseline.measure} of its confirm seeds "
        f"(n = {runs([list(arm.confirm) for arm in held])}) with its 95 % t interval; lines "
        "join arms that differ in the learning rate only. Too small is slow, too large is unstable: crosses at the top "
        "are arms with no seed left, triangles are worse than the axis shows, hollow points lost some seeds.",
        f"Test {group.baseline.measure} against learning rate. {'. '.join(said)}.",
        draw,
    )


def _rate(arm: ArmResult) -> float:
    rate = fixed_rate(arm)
    assert rate is not None
    return rate


def _draw_rate(axes: Axes, arm: ArmResult, rate: float, limits: tuple[float, float], top: float) -> None:
    """One arm: mean and interval, or a mark at the top where it has no place."""
    test = arm.test
    edge = top - 0.04 * (top - limits[0])
    if test is None:
        if arm.diverged_seeds:
            axes.plot(rate, edge, "x", color=colour(arm), markersize=6, markeredgewidth=1.6)
        return
    fill = "none" if arm.diverged_seeds else colour(arm)
    look: dict[str, Any] = {"color": colour(arm), "markerfacecolor": fill}
    if test.estimate > limits[1]:
        axes.plot(rate, edge, "^", **look)
        return
    if test.low is not None and test.high is not None:
        axes.plot([rate, rate], [test.low, min(test.high, edge)], color=colour(arm), linewidth=2)
    axes.plot(rate, test.estimate, marker(arm), markersize=6, zorder=3, **look)


def _response_in_words(arms: Sequence[ArmResult]) -> str:
    best = min(
        (arm for arm in arms if arm.test), key=lambda arm: arm.test.estimate if arm.test else math.inf, default=None
    )
    if best is None or best.test is None:
        return "no rate has a result"
    lost = [setting(_rate(arm)) for arm in arms if arm.test is None and arm.diverged_seeds]
    text = f"lowest, {number(best.test.estimate)}, at {setting(_rate(best))}"
    return f"{text}; diverged at {listed(lost)}" if lost else text
