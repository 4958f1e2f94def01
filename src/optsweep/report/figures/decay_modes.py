"""The modes of weight decay side by side, where a grid varies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import INK, FigurePlan, blank, colour, loss_label, marker, short
from optsweep.report.figures.grid import families
from optsweep.report.figures.runs import runs
from optsweep.report.figures.search import loss_limits
from optsweep.report.wording import listed, number, setting
from optsweep.tracking.reader import WEIGHT_DECAY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODES = ("none", "l2", "decoupled", "independent")  # in the order of the figure


def plans(group: Group) -> list[FigurePlan]:
    """The modes in one figure, if arms differ in nothing else."""
    plan = _modes(group)
    return [] if plan is None else [plan]


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
    counts = runs([list(arm.test_losses) for arm in arms])
    return FigurePlan(
        "decay_modes",
        "Modes of weight decay",
        "Arms that differ in the mode of weight decay only, each at its own chosen λ (a λ means something else in each "
        f"mode). Dots: confirm seeds (n = {counts}); upright: their mean; bar: its 95 % t interval. Cross at the right "
        f"edge: seeds that diverged.{' Each panel has an axis of its own.' if len(found) > 1 else ''}",
        f"Test {group.baseline.measure} by mode of weight decay. {'. '.join(said)}.",
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


def _ended(arm: ArmResult) -> str:
    """The mean test loss in words."""
    if arm.test is not None:
        return number(arm.test.estimate)
    return "diverged" if arm.diverged_seeds else "has no result yet"
