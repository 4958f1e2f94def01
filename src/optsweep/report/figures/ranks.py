"""Ranks by mean test loss with their intervals: of the arms of one group, or over several tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optsweep.inference.looks import Level
from optsweep.inference.statistics import Interval
from optsweep.report.across.arms import final_losses
from optsweep.report.across.tasks import OverTasks, mean_ranks, rank_table
from optsweep.report.arm_result import ArmResult, measured
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import INK, MUTED, FigurePlan, blank, colour, labels, marker
from optsweep.report.figures.runs import independent, several
from optsweep.report.wording import interval_name, listed, number, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RANKED = 4  # arms of a single group from which on their ranks are drawn


def plans(group: Group) -> list[FigurePlan]:
    """The rank figure of a single group, if it has arms enough."""
    arms = [arm for arm in group.arms if final_losses(arm)]
    table = rank_table(arms)
    if len(arms) < _RANKED or len(table) == 0:
        return []
    searches = several([list(arm.test_losses) for arm in arms])
    return [
        _ranks(
            arms,
            mean_ranks([table], group.level.confidence),
            measured(arms),
            f"Rank by mean test {measured(arms)}",
            f"1 is the lowest mean test {measured(arms)} of {len(arms)} arms; bar: "
            f"{_bootstrap(group.level, 'searches' if searches else 'seeds')}, drawn whole"
            f"{'' if searches else ', for the chosen settings'}. A diverged seed ranks its arm last. "
            f"n = {independent([len(table)], searches)}, those that all arms ended on.",
        )
    ]


def _bootstrap(level: Level, of: str) -> str:
    return interval_name(level, f"over {of} by the bootstrap")


def plans_over(tasks: OverTasks) -> list[FigurePlan]:
    """The mean ranks of several tasks, if seeds give any."""
    if not tasks.mean_ranks:
        return []
    ranked = [task for task in tasks.tasks if task.ranks]
    searches = several([list(arm.test_losses) for task in ranked for arm in task.arms])
    n, of = independent((task.seeds for task in ranked), searches), "searches" if searches else "seeds"
    plan = _ranks(
        tasks.arms,
        tasks.mean_ranks,
        tasks.measure,
        "Mean rank over tasks",
        f"Rank by mean test {tasks.measure}, 1 is the lowest of {len(tasks.arms)} arms, averaged over "
        f"{plural(len(ranked), 'task')} (small dots); bar: {_bootstrap(tasks.level, of)} with the tasks held: "
        f"what other {of} would change, not what other tasks would. n = {n} per task.",
        [[task.ranks[place] for task in ranked] for place in range(len(tasks.arms))],
    )
    return [plan]


def _ranks(
    arms: Sequence[ArmResult],
    ranks: Sequence[Interval],
    measure: str,
    title: str,
    caption: str,
    single: Sequence[Sequence[float]] | None = None,
) -> FigurePlan:
    order = sorted(range(len(arms)), key=lambda place: ranks[place].estimate)

    def draw() -> Figure:
        figure, (axes,) = blank(0.75 + 0.32 * len(arms))
        for row, place in enumerate(order):
            arm, rank = arms[place], ranks[place]
            if single is not None:
                dots = single[place]
                axes.plot(dots, [row + 0.27] * len(dots), ".", color=colour(arm), alpha=0.6, markersize=4)
            if rank.low is not None and rank.high is not None:
                axes.plot([rank.low, rank.high], [row, row], color=colour(arm), linewidth=3, solid_capstyle="butt")
            axes.plot(rank.estimate, row, marker=marker(arm), color=colour(arm), markersize=6.5, markeredgecolor=INK)
        axes.set_yticks(range(len(arms)), labels([arms[place] for place in order], 34))
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.set_xlim(0.8, len(arms) + 0.2)
        axes.set_xticks(range(1, len(arms) + 1, math.ceil(len(arms) / 12)))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_color(MUTED)
        axes.set_xlabel(f"rank by mean test {measure} (1 is best)")
        return figure

    each = []
    for place in order:
        rank = ranks[place]
        interval = f" ({number(rank.low, 3)} to {number(rank.high, 3)})" if rank.low is not None else ""
        each.append(f"{arms[place].label} {number(rank.estimate, 3)}{interval}")
    return FigurePlan("ranks", title, caption, f"Ranks: {listed(each)}.", draw)
