"""Figures of judged runs: differences with their intervals, run by run, and curves where rows are points of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optsweep.inference.comparison import Conclusion
from optsweep.report.figures.canvas import COLOURS, INK, MUTED, FigurePlan, blank, short
from optsweep.report.judged.findings import Judgement, RunComparison
from optsweep.report.judged.runs import RunArm
from optsweep.report.judged.sayings import interval_of, mean_of, shown, where
from optsweep.report.wording import listed, number, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COLOURED = 8  # arms that curves tell apart; of more, only the lowest
_LATE = 0.7  # share of the step that counts from which on curves are shown
_PAST = 1.15  # and until which
_FAR = 20.0  # largest difference over the median, beyond which a linear axis would show the largest only
_ROOM = 30  # letters of an arm's name beside an axis


def plans(judgement: Judgement) -> list[FigurePlan]:
    """Those that there is data for."""
    found = [_differences(judgement), _run_by_run(judgement), _curves(judgement)]
    return [plan for plan in found if plan is not None]


def colour(arm: RunArm) -> str:
    """The same in every figure."""
    return COLOURS[arm.style % len(COLOURS)]


def _differences(judgement: Judgement) -> FigurePlan | None:
    held = [comparison for comparison in judgement.comparisons if comparison.test is not None]
    if not held:
        return None
    each_its_own = judgement.baseline is None
    sizes = np.abs([shown(comparison)[0] for comparison in held])
    logarithmic = bool(sizes.max() > _FAR * np.median(sizes) > 0)

    def draw() -> Figure:
        figure, (axes,) = blank(1.1 + (0.34 if len(held) < 12 else 0.2) * len(held))
        for place, comparison in enumerate(held):
            _draw_difference(axes, comparison, place)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(held)), [short(comparison.candidate.label, _ROOM) for comparison in held])
        axes.set_ylim(len(held) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if logarithmic:
            _bend(axes, 2 * float(np.median(sizes)))
        else:
            axes.locator_params(axis="x", nbins=4)
        against = "the arm before" if each_its_own else short(held[0].baseline.label, _ROOM)
        axes.set_xlabel(f"{judgement.question.metric} relative to {against}\n← lower · higher →")
        return figure

    against = "the arm before it" if each_its_own else held[0].baseline.label
    hollow = " Hollow: no difference shown, or not judged."
    hollow += " The axis is logarithmic away from 0." if logarithmic else ""
    return FigurePlan(
        "difference",
        f"Difference of {judgement.question.metric}",
        f"Mean of candidate − {against}{where(judgement)}; bar: {interval_of(judgement)}, not corrected for the number "
        f"of comparisons.{hollow}",
        f"Differences from {against}: {listed([f'{c.candidate.label} {number(shown(c)[0])}' for c in held])}.",
        draw,
    )


def _bend(axes: Axes, linear: float) -> None:
    """An axis that is linear between ± `linear` and logarithmic beyond."""
    from matplotlib.ticker import FuncFormatter

    axes.margins(x=0.06)
    axes.set_xscale("symlog", linthresh=linear, linscale=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 2)))


def _draw_difference(axes: Axes, comparison: RunComparison, place: int) -> None:
    mean, low, high = shown(comparison)
    told = comparison.outcome.better or comparison.outcome.worse or comparison.outcome is Conclusion.EQUAL
    if low is not None and high is not None:
        axes.plot(
            [low, high],
            [place, place],
            color=colour(comparison.candidate),
            linewidth=3,
            alpha=0.75,
            solid_capstyle="butt",
        )
    face = colour(comparison.candidate) if told else "white"
    axes.plot(mean, place, "o", color=colour(comparison.candidate), markerfacecolor=face, markersize=4.5)


def _run_by_run(judgement: Judgement) -> FigurePlan | None:
    arms = [arm for arm in judgement.arms if arm.test_losses]
    if not arms:
        return None

    def draw() -> Figure:
        figure, (axes,) = blank(0.8 + (0.34 if len(arms) < 12 else 0.2) * len(arms))
        for place, arm in enumerate(arms):
            values = [arm.sign * loss for loss in arm.test_losses.values()]
            axes.plot(values, [place] * len(values), "o", color=colour(arm), markersize=3.6, alpha=0.7)
            axes.plot([arm.value], [place], "|", color=INK, markersize=9, markeredgewidth=1.5)
        axes.set_yticks(range(len(arms)), [short(arm.label, _ROOM) for arm in arms])
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"{judgement.question.metric}{where(judgement)}")
        return figure

    return FigurePlan(
        "runs",
        f"{judgement.question.metric}, run by run",
        f"Each dot is one run{where(judgement)}; the tick is the arm's mean.",
        f"Means: {listed([f'{arm.label} {mean_of(arm)}' for arm in arms])}.",
        draw,
    )


def _curves(judgement: Judgement) -> FigurePlan | None:
    held = [(arm, *_median(arm)) for arm in judgement.arms]
    held = [(arm, steps, values) for arm, steps, values in held if len(steps) > 1]
    if not held:
        return None
    lowest = sorted((arm for arm, _, _ in held), key=lambda arm: arm.mean)[:_MOST_COLOURED]
    named = {
        arm.label: COLOURS[place] if len(held) > _MOST_COLOURED else colour(arm) for place, arm in enumerate(lowest)
    }

    def draw() -> Figure:
        figure, (axes,) = blank(3.4)
        for arm, steps, values in sorted(held, key=lambda own: own[0].label in named):
            if arm.label in named:
                axes.plot(steps, values, color=named[arm.label], label=short(arm.label, _ROOM), linewidth=1.4)
            else:
                axes.plot(steps, values, color=MUTED, alpha=0.35, linewidth=0.8)
        at = judgement.gathered.at
        last = at if isinstance(at, float) else max(float(steps[-1]) for _, steps, _ in held)
        window = (last * _LATE, last * _PAST)
        ends = [values[(steps >= window[0]) & (steps <= window[1])] for _, steps, values in held]
        axes.set_ylim(*_limits(np.concatenate(ends) if any(map(len, ends)) else held[0][2]))
        axes.set_xlim(window[0], min(window[1], max(float(steps[-1]) for _, steps, _ in held) + 0.02 * last))
        if isinstance(at, float):
            axes.axvline(at, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel(str(judgement.question.step))
        axes.set_ylabel(judgement.question.metric)
        axes.legend(loc="best", fontsize=6.5)
        return figure

    others = f" {plural(len(held) - len(named), 'other arm')} in grey." if len(held) > len(named) else ""
    dotted = " Dotted: the step that counts." if isinstance(judgement.gathered.at, float) else ""
    return FigurePlan(
        "curves",
        f"{judgement.question.metric} by step",
        f"Median over an arm's runs at the steps that all of them have; the first {_LATE:.0%} are cut off."
        f"{others}{dotted}",
        f"Curves of {plural(len(held), 'arm')}.",
        draw,
        wide=True,
    )


def _median(arm: RunArm) -> tuple[np.ndarray, np.ndarray]:
    """Of the runs that finished, at the steps that all of them have."""
    finished = [run for run in arm.runs if np.isfinite(run.end.value)]
    curves = [{point.step: point.value for point in run.curve if point.step is not None} for run in finished]
    if not curves:
        return np.array([]), np.array([])
    steps = np.array(sorted(set.intersection(*(set(curve) for curve in curves))), dtype=np.float64)
    values = np.array([np.median([curve[step] for curve in curves]) for step in steps])
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room
