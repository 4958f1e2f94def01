"""The performance profile: on what share of the tasks each arm is how near the fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optsweep.inference import statistics
from optsweep.report.across.tasks import MOST_TAU, OverTasks, scores
from optsweep.report.arm_result import measured
from optsweep.report.figures.canvas import FigurePlan, blank, colour, legend, legend_height, line
from optsweep.report.figures.runs import runs
from optsweep.report.wording import listed, number, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TAUS = np.geomspace(1, MOST_TAU, 301)


def plans(tasks: OverTasks) -> list[FigurePlan]:
    """The profile, where any arm reaches any task's target."""
    plan = _profile(tasks)
    return [] if plan is None else [plan]


def _profile(tasks: OverTasks) -> FigurePlan | None:
    steps = tasks.steps
    if steps.size == 0 or not np.isfinite(steps).any():
        return None
    seconds = tasks.seconds
    panels = [("steps", steps)] + ([] if seconds is None else [("seconds", seconds)])

    def draw() -> Figure:
        figure, axes = blank(2.9 + legend_height(tasks.arms), 1, len(panels), sharey=True)
        for ax, (what, times_of) in zip(axes, panels, strict=True):
            for place, (arm, share) in enumerate(
                zip(tasks.arms, statistics.performance_profile(times_of, _TAUS), strict=True)
            ):
                # arms that go together would hide each other: each is lifted a hair
                lift = 0.008 * (place - (len(tasks.arms) - 1) / 2)
                ax.plot(_TAUS, share + lift, color=colour(arm), linestyle=line(arm), drawstyle="steps-post")
            _tau_axis(ax)
            ax.set_xlabel(f"τ (times the fewest {what})")
        axes[0].set_ylabel("tasks solved")
        legend(figure, tasks.arms)
        return figure

    each = [f"{arm.label} {number(score, 2)}" for arm, score in zip(tasks.arms, scores(steps), strict=True)]
    own = sum(task.target is not None and task.target.of_task for task in tasks.solvable)
    targets = f"the task's own ({own} of {len(tasks.solvable)} tasks)" if own else ""
    rest = len(tasks.solvable) - own
    targets += (", else " if own else "") * bool(rest) + f"{tasks.arms[0].label}'s median final one" * bool(rest)
    measure = measured(task.arms[0] for task in tasks.solvable)
    n = runs([list(arm.confirm) for task in tasks.solvable for arm in task.arms])
    return FigurePlan(
        "profile",
        "Performance profile",
        f"Share of {plural(len(tasks.solvable), 'task')} that an arm solves within τ times the fastest arm's "
        f"{' or '.join(what for what, _ in panels)} (AlgoPerf's definition); higher and further left is better. "
        f"Solved: the median over {n} reaches the target validation {measure}, {targets}. Score, the mean height "
        f"up to τ = {number(MOST_TAU, 1)}, by steps: {listed(each)}. Lines are lifted apart a hair; no band, "
        "for the tasks are those that were chosen.",
        f"Performance profile by steps to target; scores: {listed(each)}.",
        draw,
    )


def _tau_axis(axes: Axes) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xlim(0.98, MOST_TAU)
    axes.set_xticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.05, 1.06)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
