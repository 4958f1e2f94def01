"""The learning rate over the run, warm-up and schedule included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import FigurePlan, blank, colour, legend, legend_height, line, log_ticks, weight
from optsweep.report.figures.curves import curves
from optsweep.report.figures.touch import Sampled, Touch, shared
from optsweep.report.wording import listed, number
from optsweep.tracking import names
from optsweep.tracking.reader import LEARNING_RATE, Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 100  # as far below the lowest peak as a logarithmic axis goes
_APART = 8  # ratio of the highest to the lowest peak that a linear axis can't show


@dataclass(frozen=True)
class Applied:
    """What the optimizer is given at each step, counted from 0."""

    steps: NDArray[np.int64]
    rates: NDArray[np.float64]
    logged: bool  # what one trial logged, now and then; else the schedule itself, at every step


def applied(arm: ArmResult) -> Applied | None:
    """The arm's schedule at its chosen learning rate; of one that isn't known beforehand, what a trial logged of it."""
    schedule, rate = arm.arm.schedule, arm.setting(LEARNING_RATE)
    if schedule is not None and rate is not None and arm.arm.trials:
        found = Applied(schedule.steps, rate * schedule.multipliers, logged=False)
    elif traces := curves(arm, names.LR):
        found = _logged(traces[0])
    else:
        return None
    return found if np.isfinite(found.rates).all() and found.rates.max() > 0 else None


def _logged(trace: Curve) -> Applied:
    """A trial's own points, at the number of steps done. A rate that was held fell right after a rung, a point too."""
    steps, rates = trace.steps - 1, trace.values
    changes = np.diff(rates)
    falls = np.flatnonzero((changes[:-1] == 0) & (changes[1:] < 0)) + 2
    return Applied(np.insert(steps, falls, steps[falls - 1] + 1), np.insert(rates, falls, rates[falls]), logged=True)


def plans(group: Group) -> list[FigurePlan]:
    """The arms' learning rates in one figure, if any is known."""
    traces = [(arm, trace) for arm in group.by_result if (trace := applied(arm)) is not None]
    return [_learning_rates(traces)] if traces else []


def _learning_rates(traces: list[tuple[ArmResult, Applied]]) -> FigurePlan:
    peaks = [float(trace.rates.max()) for _, trace in traces]
    log = max(peaks) > _APART * min(peaks)

    def draw() -> Figure:
        arms = [arm for arm, _ in traces]
        figure, (axes,) = blank(2.9 + legend_height(arms))
        for arm, trace in traces:
            drawn = np.where(trace.rates > 0, trace.rates, np.nan) if log else trace.rates  # log of 0 would draw a wall
            axes.plot(trace.steps, drawn, color=colour(arm), linestyle=line(arm), **weight(arm))
        if log:
            axes.set_yscale("log")
            axes.set_ylim(min(peaks) / _SHOWN, max(peaks) * 1.6)
            log_ticks(axes.yaxis)
        else:
            axes.set_ylim(0, max(peaks) * 1.08)
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel("learning rate applied" + (" (log scale)" if log else ""))
        legend(figure, arms)
        return figure

    each = [f"{arm.label} peaks at {number(peak, 3)}" for (arm, _), peak in zip(traces, peaks, strict=True)]
    cut = " Values under a hundredth of the lowest peak lie below the axis." if log else ""
    return FigurePlan(
        "learning_rate",
        "Learning rate over the run",
        f"What the optimizer was given at each step, warm-up and schedule included{_source(traces)}.{cut}",
        f"Learning rate against optimizer steps: {listed(each)}.",
        draw,
        touch=_touch(traces, log, min(peaks) / _SHOWN),
    )


def _touch(traces: list[tuple[ArmResult, Applied]], log: bool, floor: float) -> Touch:
    points = {arm.name: Sampled(t.steps.astype(np.float64), t.rates, None, "") for arm, t in traces}
    x, lines = shared(points)
    return Touch(x, "optimizer steps", "learning rate applied", lines, log=log, floor=floor, whole=True)


def _source(traces: list[tuple[ArmResult, Applied]]) -> str:
    """Which learning rate the lines are at, or which of them are what a trial logged."""
    found = [arm.label for arm, trace in traces if trace.logged]
    if found:
        of = "each arm" if len(found) == len(traces) else listed(found)
        return f"; of {of} what one trial logged"
    several = any(len(set(arm.settings(LEARNING_RATE))) > 1 for arm, _ in traces)
    return ", at the learning rate that the arm's first search chose" if several else ", at the arm's learning rate"
