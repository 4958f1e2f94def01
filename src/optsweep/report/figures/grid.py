"""Figures of grids: the modes of weight decay side by side, and the response to a fixed learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optsweep.report.comparison import ArmResult, Group
from optsweep.report.figures.canvas import (
    INK,
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
from optsweep.report.figures.search import loss_limits
from optsweep.report.wording import listed, number, setting
from optsweep.tracking.reader import LEARNING_RATE, WEIGHT_DECAY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIXED_RATE = f"optimizer.{LEARNING_RATE}"  # an axis of the grid, by its key in arm.choices
_SHOWN = 12.0  # times (median − best) above the best that the response shows: too small a rate has a place on it
_APART = 0.017  # of the axis between the marks of two families at one learning rate, so that both are seen
_MODES = ("none", "l2", "decoupled", "independent")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1, 1.4)))


def plans(group: Group) -> list[FigurePlan]:
    """The grid figures that this group has data for."""
    found = [_response(group), _modes(group)]
    return [plan for plan in found if plan is not None]


def families(arms: Sequence[ArmResult], *axes: str) -> dict[str, list[ArmResult]]:
    """Arms that are alike but for some choices, by what tells the families apart ("" where there is one)."""
    keys = sorted({key for arm in arms for key in arm.arm.choices} - set(axes))
    varied = [key for key in keys if len({arm.arm.choices.get(key) for arm in arms}) > 1]
    found: dict[str, list[ArmResult]] = {}
    for arm in arms:
        found.setdefault(" + ".join(part for key in varied if (part := _part(key, arm))), []).append(arm)
    return found


def _part(key: str, arm: ArmResult) -> str:
    value = arm.arm.choices.get(key, "none")
    if "." in key and key not in arm.arm.choices:
        return ""
    if key == "warmup.steps":
        return f"warm-up {value}"
    if "." in key:
        return f"{key.rpartition('.')[2]}={value}"
    word = {"warmup": "warm-up", "weight_decay": "decay", "averaging": "averaging"}.get(key)
    return f"{value if value != 'none' else 'no'} {word}" if word else value


def fixed_rate(arm: ArmResult) -> float | None:
    """The arm's learning rate where the grid gives it."""
    try:
        rate = float(arm.arm.choices[FIXED_RATE])
    except (KeyError, ValueError):
        return None
    return rate if math.isfinite(rate) and rate > 0 else None


def counted(counts: Sequence[int]) -> str:
    """ "5", or "3 to 5"."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


# -- modes of weight decay ---------------------------------------------------------------------------------------------


def _modes(group: Group) -> FigurePlan | None:
    """Test loss of each mode of weight decay, among arms that differ in nothing else."""
    found = {
        title: sorted(arms, key=lambda arm: _MODES.index(_mode(arm)))
        for title, arms in families(group.arms, WEIGHT_DECAY).items()
        if len({_mode(arm) for arm in arms}) > 1 and all(_mode(arm) in _MODES for arm in arms)
    }
    arms = [arm for held in found.values() for arm in held]
    if not any(arm.test for arm in arms):
        return None

    def draw() -> Figure:
        heights = [len(held) for held in found.values()]
        figure, axes = blank(0.75 + 0.3 * sum(heights) + 0.3 * len(found), len(found), 1, height_ratios=heights)
        for ax, (title, held) in zip(axes, found.items(), strict=True):
            limits = _span(held)
            for place, arm in enumerate(held):
                _draw_outcome(ax, arm, place, limits)
            ax.set_yticks(range(len(held)), [_mode_label(arm) for arm in held])
            ax.set_ylim(len(held) - 0.4, -0.6)
            ax.set_xlim(limits)
            ax.locator_params(axis="x", nbins=5)
            ax.set_title(short(title, 60))
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
        axes[-1].set_xlabel(loss_label(group, "test"))
        return figure

    said = [
        f"{title + ': ' if title else ''}" + listed([f"{_mode_label(arm)} {_ended(arm)}" for arm in held])
        for title, held in found.items()
    ]
    counts = counted([len(arm.test_losses) for arm in arms])
    return FigurePlan(
        "decay_modes",
        "Modes of weight decay",
        "Arms that differ in the mode of weight decay only, each at its own chosen λ (a λ means something else in each "
        f"mode). Dots: confirm seeds (n = {counts}); upright: their mean; bar: its 95 % t interval. Cross at the right "
        f"edge: seeds that diverged.{' Each panel has a loss axis of its own.' if len(found) > 1 else ''}",
        f"Test loss by mode of weight decay. {'. '.join(said)}.",
        draw,
    )


def _mode(arm: ArmResult) -> str:
    return arm.arm.choices.get(WEIGHT_DECAY, "none")


def _mode_label(arm: ArmResult) -> str:
    decay = arm.setting(WEIGHT_DECAY)
    return _mode(arm) if not decay else f"{_mode(arm)}, λ = {setting(decay)}"


def _span(arms: Sequence[ArmResult]) -> tuple[float, float]:
    """Limits of a test loss axis: all seeds, and their intervals up to twice the seeds' range beyond them."""
    losses = [loss for arm in arms for loss in arm.test_losses.values()]
    low, high = loss_limits(losses)
    ends = [end for arm in arms if arm.test for end in (arm.test.low, arm.test.high) if end is not None]
    room = 2 * (high - low)
    first, last = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    return first - 0.04 * (last - first), last + 0.04 * (last - first)


def _draw_outcome(axes: Axes, arm: ArmResult, place: float, limits: tuple[float, float]) -> None:
    """An arm's seeds, their mean and its interval, lying."""
    losses = list(arm.test_losses.values())
    axes.plot(losses, [place + 0.18] * len(losses), marker(arm), color=colour(arm), markersize=3.5, alpha=0.7)
    test = arm.test
    if test is not None:
        if test.low is not None and test.high is not None:
            axes.plot([test.low, test.high], [place - 0.12] * 2, color=colour(arm), linewidth=3, solid_capstyle="butt")
        axes.plot(test.estimate, place - 0.12, "|", color=INK, markersize=9, markeredgewidth=1.6)
    if arm.diverged_seeds:
        edge = limits[1] - 0.02 * (limits[1] - limits[0])
        axes.plot(edge, place, "x", color=colour(arm), markersize=6, markeredgewidth=1.6)


# -- response to a fixed learning rate ---------------------------------------------------------------------------------


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
        "Each point is one arm, in its colour: the mean test loss of its confirm seeds "
        f"(n = {counted([len(arm.test_losses) + arm.diverged_seeds for arm in held])}) with its 95 % t interval; lines "
        "join arms that differ in the learning rate only. Too small is slow, too large is unstable: crosses at the top "
        "are arms with no seed left, triangles are worse than the axis shows, hollow points lost some seeds.",
        f"Test loss against learning rate. {'. '.join(said)}.",
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


def _ended(arm: ArmResult) -> str:
    """The mean test loss in words."""
    if arm.test is not None:
        return number(arm.test.estimate)
    return "diverged" if arm.diverged_seeds else "has no result yet"


def _response_in_words(arms: Sequence[ArmResult]) -> str:
    best = min(
        (arm for arm in arms if arm.test), key=lambda arm: arm.test.estimate if arm.test else math.inf, default=None
    )
    if best is None or best.test is None:
        return "no rate has a result"
    lost = [setting(_rate(arm)) for arm in arms if arm.test is None and arm.diverged_seeds]
    text = f"lowest, {number(best.test.estimate)}, at {setting(_rate(best))}"
    return f"{text}; diverged at {listed(lost)}" if lost else text
