"""Figures over runs of several lengths: final loss by length, the fitted curve, and steps for the same loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsweep.inference.loss_curve import MIN_SEEDS
from optsweep.inference.statistics import Interval
from optsweep.report.across.arms import is_averaged
from optsweep.report.across.lengths import LengthArm, Method, RunLengths
from optsweep.report.arm_result import LOSS, ArmResult
from optsweep.report.figures.canvas import (
    INK,
    PAPER,
    FigurePlan,
    blank,
    colour,
    legend,
    legend_height,
    line,
    marker,
    short,
)
from optsweep.report.figures.curves import band
from optsweep.report.figures.runs import independent, runs, several
from optsweep.report.wording import interval_name, listed, number, plural, times
from optsweep.tracking import names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plans(lengths: RunLengths) -> list[FigurePlan]:
    """The figures that these run lengths have data for."""
    found = [_frontier(lengths), _speedup(lengths), _fit(lengths)]
    return [plan for plan in found if plan is not None]


def _frontier(lengths: RunLengths) -> FigurePlan | None:
    """Final loss against run length; over it the single long run of every arm that can be stopped anywhere."""
    ends = {arm.longest.style: {n: run.val for n, run in arm.runs.items() if run.val} for arm in lengths.arms}
    arms = [arm for arm in lengths.arms if ends[arm.longest.style]]
    if not arms:
        return None
    measure = lengths.baseline.longest.measure
    shown = {arm.longest.style: curve for arm in arms if (curve := _long_run(arm, lengths.lengths[0])) is not None}

    def draw() -> Figure:
        figure, (axes,) = blank(3.3 + legend_height([arm.longest for arm in arms]))
        for arm in arms:
            held = ends[arm.longest.style]
            joined = "" if arm.longest.style in shown else line(arm.longest)
            _draw_points(axes, arm.longest, list(held), list(held.values()), joined)
            if arm.longest.style in shown:
                steps, values = shown[arm.longest.style]
                axes.plot(steps, values, color=colour(arm.longest), linestyle=line(arm.longest), linewidth=1.5)
        _length_axis(axes, lengths)
        axes.set_ylim(top=_top([end for arm in arms for end in ends[arm.longest.style].values()], axes.get_ylim()[1]))
        axes.set_xlabel("optimizer steps of a run (log scale)")
        unit = lengths.baseline.longest.unit
        axes.set_ylabel(f"validation {measure}" + (f" ({unit})" if unit else ""))
        legend(figure, [arm.longest for arm in arms])
        return figure

    long = listed([arm.label for arm in arms if arm.longest.style in shown])
    over = f" The line of {long} is its one longest run, mean over seeds: a run that can be stopped anywhere." * bool(
        shown
    )
    last = [f"{arm.label} {number(run.val.estimate)}" for arm in arms if (run := arm.longest).val]
    return FigurePlan(
        "frontier",
        f"{'Loss' if measure == LOSS else measure} against run length",
        f"Each marker: mean final validation {measure} of runs of that length, with its LR tuned; bar: 95 % t "
        "interval. Joined markers are the frontier that runs of every length draw together."
        f"{over}{_tested(lengths)} n = {_counts(arms)} per point.",
        f"Final validation {measure} against run length for {plural(len(arms), 'arm')}; at the longest run: "
        f"{listed(last)}.",
        draw,
    )


def _long_run(arm: LengthArm, shortest: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean validation curve of an averaging arm's longest run, from the shortest run's end on."""
    run = arm.longest
    found = band(run, names.VAL_LOSS) if is_averaged(run) else None
    if found is None or np.count_nonzero(held := found.x >= shortest) < 2:
        return None
    return found.x[held], found.mean[held]


def _tested(lengths: RunLengths) -> str:
    if not lengths.frontier:
        return ""
    level = lengths.level
    return (
        f" It counts as below or above where its paired difference is shown at p < {number(level.alpha, 3)}"
        f"{' at any look' if level.looks else ''}, corrected over lengths, not over arms."
    )


def _top(ends: Sequence[Interval], drawn: float) -> float:
    """Upper limit of the loss axis: the start of a long run may leave it, so that the ends keep the room."""
    low, high = min(end.estimate for end in ends), max(end.high or end.estimate for end in ends)
    return min(drawn, high + 0.4 * (high - low)) if high > low else drawn


def _counts(arms: Sequence[LengthArm]) -> str:
    return runs([list(run.test_losses) for arm in arms for run in arm.runs.values()])


def _draw_points(axes: Axes, arm: ArmResult, steps: Sequence[int], at: Sequence[Interval], joined: Any) -> None:
    look: dict[str, Any] = {"color": colour(arm)}
    axes.plot(steps, [point.estimate for point in at], marker=marker(arm), linestyle=joined or "", **look)
    for x, point in zip(steps, at, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot([x, x], [point.low, point.high], linewidth=1.2, **look)


def _length_axis(axes: Axes, lengths: RunLengths) -> None:
    """A log axis with a tick at every length, as far as they don't run into each other."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xlim(lengths.lengths[0] / 1.18, lengths.lengths[-1] * 1.18)
    span = math.log(lengths.lengths[-1] / lengths.lengths[0])
    ticks: list[int] = []
    for length in reversed(lengths.lengths):
        if not ticks or math.log(ticks[-1] / length) > 0.11 * span:
            ticks.append(length)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _fit(lengths: RunLengths) -> FigurePlan | None:
    """The baseline's fitted curve with the test losses that are looked up on it."""
    curve = lengths.curve
    if curve is None:
        return None
    baseline, measure = lengths.baseline.longest, lengths.baseline.longest.measure
    arms = [lengths.baseline, *(arm for arm in lengths.candidates if arm.method is Method.FITTED)]

    def draw() -> Figure:
        figure, (axes,) = blank(3.1 + legend_height([arm.longest for arm in arms]))
        steps = np.geomspace(curve.shortest, curve.longest, 200)
        axes.plot(steps, curve.loss(steps), color=colour(lengths.baseline.longest), linewidth=1.4)
        for arm in arms:
            held = {n: run.test for n, run in arm.runs.items() if run.test and not run.diverged_seeds}
            _draw_points(axes, arm.longest, list(held), list(held.values()), "")
        _length_axis(axes, lengths)
        axes.set_xlabel("optimizer steps of a run (log scale)")
        unit = lengths.baseline.longest.unit
        axes.set_ylabel(f"test {measure}" + (f" ({unit})" if unit else ""))
        legend(figure, [arm.longest for arm in arms], markers=True)
        return figure

    values = f"α = {number(curve.alpha, 3)}, β = {number(curve.beta, 3)}, γ = {number(curve.gamma, 4)}"
    return FigurePlan(
        "fit",
        f"Test {measure} by run length, and the fitted curve",
        f"Line: L(D) = α·D^−β + γ, fitted to {lengths.baseline.label}'s mean test {baseline.measures} after D steps "
        f"({values}; it misses them by {number(curve.rmse, 2)}). How far a marker lies to the left of the line is the "
        "arm's lead in steps; the leads in the table are read off the same fit of the seeds that both arms have at "
        f"every length. Bar: 95 % t interval. n = {_counts(arms)} per point.",
        f"Test {measure} by run length with {lengths.baseline.label}'s fitted curve: {values}.",
        draw,
    )


def _speedup(lengths: RunLengths) -> FigurePlan | None:
    arms = [arm for arm in lengths.candidates if arm.ratios]
    if not arms:
        return None

    def draw() -> Figure:
        figure, (axes,) = blank(3.1 + legend_height([arm.longest for arm in arms]))
        axes.axhline(1, color=INK, linewidth=1)
        for place, arm in enumerate(arms):
            _draw_ratios(axes, arm, 1 + 0.035 * (place - (len(arms) - 1) / 2))
        axes.set_yscale("log")
        _length_axis(axes, lengths)
        _ratio_axis(axes)
        axes.set_xlabel("optimizer steps of the arm's run (log scale)")
        axes.set_ylabel(f"steps relative to {short(lengths.baseline.label, 24)}")
        legend(figure, [arm.longest for arm in arms], markers=True)
        return figure

    measure = lengths.baseline.longest.measure
    how = {
        Method.FITTED: f"by a curve fitted to {lengths.baseline.label}'s runs",
        Method.INTERPOLATED: f"interpolated between {lengths.baseline.label}'s runs, linear in the log of the steps",
    }
    methods = [text for method, text in how.items() if any(arm.method is method for arm in arms)]
    bounded = any(found.bound for arm in arms for found in arm.ratios)
    beyond = any(found.extrapolated for arm in arms for found in arm.ratios)
    hollow = " Hollow and thin: read off the curve beyond the lengths that it was fitted to." * beyond
    arrows = " Hollow, with an arrow: only a bound, because the baseline's runs don't reach so far." * bounded
    searches = several([list(run.test_losses) for arm in lengths.arms for run in arm.runs.values()])
    n, of = independent((f.ratio.n for arm in arms for f in arm.ratios), searches), "searches" if searches else "seeds"
    each = []
    for arm in arms:
        said = [f"{found.bound}{times(found.ratio.estimate)} at {found.num_steps:,}" for found in arm.ratios]
        each.append(f"{arm.label} {listed(said)}")
    return FigurePlan(
        "speedup",
        f"Steps for the same test {measure}, by run length",
        f"Steps of the arm's run over the steps with which {lengths.baseline.label} gets the same mean test {measure}, "
        f"{listed(methods)}; below 1 the arm is faster. Bar: {interval_name(lengths.level, f'over {of}')}, "
        f"by the jackknife, from {MIN_SEEDS} {of} on.{hollow}{arrows} n = {n}, those that both arms have.",
        f"Steps relative to {lengths.baseline.label}: {'; '.join(each)}.",
        draw,
    )


def _draw_ratios(axes: Axes, arm: LengthArm, shift: float) -> None:
    look: dict[str, Any] = {"color": colour(arm.longest)}
    for found in arm.ratios:
        x, y = found.num_steps * shift, found.ratio.estimate
        if found.bound:
            axes.plot(x, y, marker=marker(arm.longest), markerfacecolor=PAPER, **look)
            arrow = {"arrowstyle": "<-", "color": colour(arm.longest), "linewidth": 1.3, "shrinkA": 0, "shrinkB": 3}
            away = (0, -18 if found.bound == "<" else 18)
            axes.annotate("", (x, y), xytext=away, textcoords="offset points", arrowprops=arrow)
            continue
        if found.ratio.low is not None and found.ratio.high is not None:
            thin = 1.2 if found.extrapolated else 2.4
            axes.plot([x, x], [found.ratio.low, found.ratio.high], linewidth=thin, solid_capstyle="butt", **look)
        face = PAPER if found.extrapolated else colour(arm.longest)
        axes.plot(x, y, marker=marker(arm.longest), markerfacecolor=face, **look)


def _ratio_axis(axes: Axes) -> None:
    """Plain ratios on a log axis that always shows 1."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = axes.get_ylim()
    low, high = min(low, 0.9), max(high, 1.1)
    low, high = low / 1.12, high * 1.12
    steps = (1, 2, 5) if high / low > 4 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    ticks = [s * 10.0**e for e in range(-5, 6) for s in steps]
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: times(value)))
    axes.yaxis.set_minor_locator(NullLocator())
