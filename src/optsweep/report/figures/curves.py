"""Figures of the losses against steps and against time, as medians with bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import (
    MUTED,
    FigurePlan,
    blank,
    colour,
    legend,
    legend_height,
    line,
    log_ticks,
    loss_label,
)
from optsweep.report.figures.runs import runs, several
from optsweep.report.wording import listed, number, plural
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import Curve, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 200  # of a drawn curve; more only makes the file larger
_MOST_BANDS = 8  # more arms' bands would hide each other
_DECADES_APART = 1e2  # ratio of the highest to the lowest last loss that a linear axis can't show
_SHORT = 0.1  # seconds; runs that all take less are shown in milliseconds
_TARGET = "target"
_LATE = 0.1  # share of the run whose steep start may leave the figure at the top
_CUT = f"The first {100 * _LATE:.0f} % of the run may lie above the figure."


def plans(group: Group) -> list[FigurePlan]:
    """The curves that this group has data for."""
    found = [
        _losses(group, names.VAL_LOSS, f"validation {group.baseline.measure}", "val_loss"),
        _losses(group, names.VAL_ASIDE, "validation loss", "val_aside"),
        _losses(group, names.TRAIN_LOSS, "training loss", "train_loss"),
        _seconds(group),
    ]
    return [plan for plan in found if plan is not None]


def curves(arm: ArmResult, key: str) -> list[Curve]:
    """The arm's curves of a metric: of the confirm trials that finished, else of those that were read."""
    return [trial.curves[key] for trial in _drawn(arm, key)]


def _drawn(arm: ArmResult, key: str) -> list[TrialRecord]:
    trials = [trial for trial in arm.arm.trials if key in trial.curves and len(trial.curves[key].steps)]
    return [trial for trial in trials if trial.status is Status.FINISHED] or trials


def band(found: Sequence[Curve]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps, and lowest, median and highest over seeds: [3, steps], at the steps that all seeds have."""
    steps = found[0].steps
    for curve in found[1:]:
        steps = np.intersect1d(steps, curve.steps)
    table = np.array([curve.values[np.isin(curve.steps, steps)] for curve in found])
    table[~np.isfinite(table)] = np.nan
    held = np.isfinite(table).all(0)
    return steps[held], np.array([table[:, held].min(0), np.median(table[:, held], 0), table[:, held].max(0)])


def _thin(steps: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of neighbours where a curve has more points than can be seen; `values` is [rows, steps]."""
    size = math.ceil(len(steps) / _MOST_POINTS)
    if size <= 1:
        return steps.astype(np.float64), values
    whole = len(steps) // size * size
    blocks = values[:, :whole].reshape(len(values), -1, size)
    return steps[:whole].reshape(-1, size).mean(1), blocks.mean(2)


def _losses(group: Group, key: str, word: str, name: str) -> FigurePlan | None:
    bands = {arm.style: (arm, *band(found)) for arm in group.arms if (found := curves(arm, key))}
    bands = {style: held for style, held in bands.items() if len(held[1])}
    if not bands:
        return None
    held = _ending([arm for arm, _, _ in bands.values()])
    shown = [(bands[arm.style][1].astype(np.float64), bands[arm.style][2]) for arm in held]
    decides = key == names.VAL_LOSS
    marks, limits = _marks(group, shown) if decides else ({}, _limits(shown))
    unit = group.baseline.unit if decides else group.baseline.loss_unit

    def draw() -> Figure:
        arms = [arm for arm, _, _ in bands.values()]
        figure, (axes,) = blank(3.2 + legend_height(arms))
        for arm, steps, values in bands.values():
            _draw_band(axes, arm, *_thin(steps, values), len(arms) <= _MOST_BANDS)
        if limits is not None:
            axes.set_ylim(*limits)
        for word_of, value in marks.items():
            axes.axhline(value, color=MUTED, linestyle=":", linewidth=1)
            beside: Any = {"transform": axes.get_yaxis_transform(), "va": "center"}  # a curve may run anywhere inside
            axes.text(1.01, value, word_of.replace("a uniform ", "uniform\n"), color=MUTED, **beside)
        axes.set_xlabel("optimizer steps")
        _scale(axes, shown, f"{word} ({unit})" if unit else word)
        legend(figure, arms)
        return figure

    ends = [f"{arm.label} ends at {number(float(values[1, -1]))}" for arm, _, values in bands.values()]
    return FigurePlan(
        name,
        f"{word[0].upper()}{word[1:]}",
        f"{_lines(group, len(bands), key)} {_CUT}{_leaving(held, [arm for arm, _, _ in bands.values()])}"
        + (f" Dotted: {listed([f'{mark}, {number(value)}' for mark, value in marks.items()])}." if marks else ""),
        f"{word[0].upper()}{word[1:]} against optimizer steps for {plural(len(bands), 'arm')}: {listed(ends)}.",
        draw,
    )


def _seconds(group: Group) -> FigurePlan | None:
    """Validation loss against time: the same curve, its steps × the ms per step of the timing pass."""
    held = {}
    for arm in group.arms:
        found = curves(arm, names.VAL_LOSS)
        if found and arm.ms_per_step is not None and len(band(found)[0]):
            held[arm.style] = (arm, *band(found), arm.ms_per_step / 1e3)
    if len(held) < 2:
        return None
    arms = [arm for arm, *_ in held.values()]
    ending = _ending(arms)
    short = max(float(steps[-1]) * seconds for _, steps, _, seconds in held.values()) < _SHORT
    unit, scale = ("ms", 1e3) if short else ("s", 1.0)

    def draw() -> Figure:
        figure, (axes,) = blank(3.2 + legend_height(arms))
        shown = []
        for arm, steps, values, seconds in held.values():
            at, thinned = _thin(steps, values)
            _draw_band(axes, arm, at * seconds * scale, thinned, len(arms) <= _MOST_BANDS)
            if arm in ending:
                shown.append((np.asarray(steps * seconds * scale, dtype=np.float64), values))
        if (limits := _limits(shown)) is not None:
            axes.set_ylim(*limits)
        _scale(axes, shown, loss_label(group, "validation"))
        axes.set_xlabel(f"training time ({unit}), one trial alone on the machine")
        legend(figure, arms)
        return figure

    each = [f"{arm.label} {number(float(steps[-1]) * seconds, 3)} s" for arm, steps, _, seconds in held.values()]
    return FigurePlan(
        "val_loss_seconds",
        "Validation loss against time",
        "Steps × the median ms per step of the timing pass, evaluation excluded. "
        f"{_lines(group, len(held), names.VAL_LOSS)} {_CUT}{_leaving(ending, arms)}",
        f"Validation loss against seconds of training; the runs take {listed(each)}.",
        draw,
    )


def _draw_band(
    axes: Axes, arm: ArmResult, x: NDArray[np.float64], values: NDArray[np.float64], with_band: bool
) -> None:
    low, median, high = values
    if with_band:
        axes.fill_between(x, low, high, color=colour(arm), alpha=0.18, linewidth=0)
    axes.plot(x, median, color=colour(arm), linestyle=line(arm))


Shown = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Steps or seconds, and lowest, median and highest loss, per arm."""


def _limits(shown: Shown) -> tuple[float, float] | None:
    """Ends of the loss axis that give the end of the run the room: the steep start may leave at the top."""
    low = min(float(values.min()) for _, values in shown)
    high = max(float(values[2, x >= _LATE * x[-1]].max()) for x, values in shown)
    return (low - 0.04 * (high - low), high + 0.06 * (high - low)) if high > low else None


def _marks(group: Group, shown: Shown) -> tuple[dict[str, float], tuple[float, float] | None]:
    """The task's target and its chance level, where they fall within the axis; for a target just below it gives way."""
    limits = _limits(shown)
    if limits is None:
        return {}, None
    low, high = limits
    target, chance = (_of_all(group, key) for key in ("target_loss", "chance_loss"))
    if target is not None and low - (high - low) < target < low:
        low = target - 0.04 * (high - target)
    found = {_TARGET: target, "a uniform guess": chance}
    return {mark: value for mark, value in found.items() if value is not None and low <= value <= high}, (low, high)


def _of_all(group: Group, key: str) -> float | None:
    """A fact that all arms of a group share."""
    values = {arm.arm.facts.get(key) for arm in group.arms}
    value = values.pop() if len(values) == 1 else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _scale(axes: Axes, shown: Shown, label: str) -> None:
    """A log axis where the last losses are decades apart: on a linear one all but the worst would lie on a line."""
    ends = [float(values[1, -1]) for _, values in shown]
    lowest = min(float(values.min()) for _, values in shown)
    if lowest > 0 and max(ends) > _DECADES_APART * min(ends):
        axes.set_yscale("log")
        tops = [float(values.max()) for _, values in shown]
        top = min(max(tops), 1e3 * float(np.median(tops)))  # a diverging arm goes anywhere
        axes.set_ylim(max(lowest, 1e-12 * top) / 1.5, 1.5 * top)
        log_ticks(axes.yaxis)
        label = f"{label}, log scale"
    axes.set_ylabel(label)


def _ending(arms: Sequence[ArmResult]) -> list[ArmResult]:
    """The arms whose curves the loss axis is made for: of those that have ended, not those that only diverged."""
    ended = [arm for arm in arms if any(trial.status is Status.FINISHED for trial in arm.confirm.values())]
    return ended or list(arms)


def _leaving(ending: Sequence[ArmResult], arms: Sequence[ArmResult]) -> str:
    """What of the curves that the axis is not made for."""
    others = [arm for arm in arms if arm not in ending]
    lost = [arm.label for arm in others if arm.diverged_seeds]
    cut = [arm.label for arm in others if not arm.diverged_seeds]
    said = f" Leaving the figure, diverged: {listed(lost)}." if lost else ""
    return said + (f" Drawn as far as a run came, none has ended: {listed(cut)}." if cut else "")


def _lines(group: Group, num_arms: int, key: str) -> str:
    seeds = [[trial.seed for trial in drawn] for arm in group.arms if (drawn := _drawn(arm, key))]
    over, each = ("seeds of all searches", "run") if several(seeds) else ("seeds", "seed")
    band = f"; band: lowest to highest {each}" if num_arms <= _MOST_BANDS else " (bands left out: too many arms)"
    return f"Line: median over {over}{band}. n = {runs(seeds)} per arm."
