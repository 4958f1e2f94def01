"""How many search trials the order of arms takes: what each search would choose after k trials, and who is in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optsweep.inference.statistics import mean_interval
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import (
    INK,
    MUTED,
    FigurePlan,
    blank,
    colour,
    legend,
    legend_height,
    line,
    short,
    weight,
)
from optsweep.report.figures.search import loss_limits
from optsweep.report.ranking import RankingOverTrials, ranking_over_trials
from optsweep.report.wording import listed, number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plans(group: Group) -> list[FigurePlan]:
    """One figure, where several searches of enough trials tell arms apart."""
    found = ranking_over_trials(group)
    return [] if found is None else [_over_trials(group, found)]


def _over_trials(group: Group, found: RankingOverTrials) -> FigurePlan:
    measure = group.baseline.measure
    held, confidence = found.stability, percent(group.level.confidence)

    def draw() -> Figure:
        from matplotlib.ticker import MaxNLocator

        figure, (above, below) = blank(4.0 + legend_height(found.arms), 2, sharex=True, height_ratios=(1.9, 1))
        _draw_losses(above, group, found)
        _draw_order(below, found)
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        below.set_xlabel("search trials")
        legend(figure, found.arms)
        return figure

    ends = [
        f"{arm.label} {number(float(best[:, held.trials // 2 - 1].mean()))}, then {number(float(best[:, -1].mean()))}"
        for arm, best in zip(found.arms, found.behind, strict=True)
    ]
    return FigurePlan(
        "ranking",
        "When the order is stable",
        f"Above: validation {measure} of the setting that a search would choose after so many trials, less that of "
        f"{found.reference.label} at the end of the same search, mean of n = {held.searches} searches; shaded: its "
        f"{confidence} t interval over searches. Below: share of searches in "
        f"which every pair of arms told apart is in order by these {group.baseline.measures} ({confidence} "
        f"Clopper–Pearson interval, n = {held.searches} searches); dotted: share of the "
        f"{'pair' if held.pairs == 1 else f'{held.pairs} pairs'} "
        f"in order. The order is that of the other searches' confirm seeds. {found.sentence}",
        f"Mean validation {measure} of the best setting, less {found.reference.label}'s at the end, by number of "
        f"search trials, at half and all of {held.trials}: "
        f"{listed(ends)}. {found.sentence}",
        draw,
    )


def _draw_losses(axes: Axes, group: Group, found: RankingOverTrials) -> None:
    curves = found.behind.mean(1)
    limits = loss_limits(curves[np.isfinite(curves)].tolist(), also=curves[:, -1].tolist())
    for arm, best in zip(found.arms, found.behind, strict=True):
        at = np.flatnonzero(np.isfinite(best).all(0))  # before, a search has nothing that it could choose
        means = [mean_interval(best[:, trial], group.level.confidence) for trial in at]
        ends = [
            [m.estimate if end is None else end for end in (m.estimate, m.low, m.high)] for m in means
        ]  # of equal losses there is no interval
        middle, low, high = np.clip(np.reshape(ends, (-1, 3)).T, *limits)
        axes.plot(at + 1, middle, color=colour(arm), linestyle=line(arm), drawstyle="steps-mid", **weight(arm))
        axes.fill_between(at + 1, low, high, step="mid", color=colour(arm), alpha=0.12, linewidth=0)
    axes.set_ylim(limits)
    unit = f" ({group.baseline.unit})" if group.baseline.unit else ""
    axes.set_ylabel(f"best validation {group.baseline.measure},\nless {short(found.reference.label, 24)}'s last{unit}")


def _draw_order(axes: Axes, found: RankingOverTrials) -> None:
    held = found.stability
    at = np.arange(1, held.trials + 1)
    shares = [held.share(int(trial)) for trial in at]
    ends = 100 * np.array([(share.estimate, share.low, share.high) for share in shares], dtype=np.float64).T
    axes.fill_between(at, ends[1], ends[2], step="mid", color=MUTED, alpha=0.2, linewidth=0)
    axes.plot(at, ends[0], color=INK, drawstyle="steps-mid")
    if held.pairs > 1:
        axes.plot(at, 100 * np.array(held.share_of_pairs), color=MUTED, linestyle=":", drawstyle="steps-mid")
    axes.set_ylim(-4, 104)
    axes.set_yticks([0, 50, 100])
    axes.set_ylabel("in order, %")
