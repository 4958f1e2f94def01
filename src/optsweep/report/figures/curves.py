"""Figures of the losses against steps and against time, as means over seeds with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsweep.inference.repeats import repeat_of
from optsweep.inference.statistics import t_half_widths
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
    weight,
)
from optsweep.report.figures.runs import how_many, independent, runs, several
from optsweep.report.figures.touch import Sampled, Touch, shared
from optsweep.report.wording import capital, listed, number, plural
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
_ROOM = 0.5  # of the means' span: as much of a wide interval as the axis makes room for, on each side


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


@dataclass(frozen=True)
class Band:
    """A mean curve with its 95 % t interval, both of whose ends are the mean where there is none."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    half: NDArray[np.float64]  # of the interval
    n: str  # "8 seeds", what the interval is over

    @property
    def low(self) -> NDArray[np.float64]:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> NDArray[np.float64]:
        """The upper end."""
        return self.mean + self.half

    def over(self, x: NDArray[np.float64]) -> Band:
        """The same along another axis."""
        return Band(x, self.mean, self.half, self.n)

    @property
    def thinned(self) -> Band:
        """Means of neighbours where a curve has more points than can be seen."""
        size = math.ceil(len(self.x) / _MOST_POINTS)
        if size <= 1:
            return self
        whole = len(self.x) // size * size
        x, mean, half = (row[:whole].reshape(-1, size).mean(1) for row in (self.x, self.mean, self.half))
        return Band(x, mean, half, self.n)

    def points(self, *, loose: bool) -> Sampled:
        """As numbers for the page."""
        return Sampled(self.x, self.mean, self.half if self.half.any() else None, self.n, loose)


def band(arm: ArmResult, key: str) -> Band | None:
    """Mean and interval over seeds, or over the means of several searches, at the steps that all seeds have."""
    trials = _drawn(arm, key)
    if not trials:
        return None
    found = [trial.curves[key] for trial in trials]
    steps = found[0].steps
    for curve in found[1:]:
        steps = np.intersect1d(steps, curve.steps)
    table = np.array([curve.values[np.isin(curve.steps, steps)] for curve in found], dtype=np.float64)
    held = np.isfinite(table).all(0)
    repeats = np.array([repeat_of(trial.seed) for trial in trials])
    apart = np.unique(repeats)
    rows = table[:, held]
    if len(apart) > 1:
        rows = np.array([rows[repeats == repeat].mean(0) for repeat in apart])
    n = independent([len(rows)], len(apart) > 1)
    return Band(steps[held].astype(np.float64), rows.mean(0), t_half_widths(rows), n) if held.any() else None


def _losses(group: Group, key: str, word: str, name: str) -> FigurePlan | None:
    bands = {arm: found for arm in group.by_result if (found := band(arm, key)) is not None}
    if not bands:
        return None
    arms = list(bands)
    held = _ending(arms)
    shown = [bands[arm] for arm in held]
    decides = key == names.VAL_LOSS
    marks, limits = _marks(group, shown) if decides else ({}, _limits(shown))
    unit = group.baseline.unit if decides else group.baseline.loss_unit
    label = f"{word} ({unit})" if unit else word

    def draw() -> Figure:
        figure, (axes,) = blank(3.2 + legend_height(arms))
        _draw_bands(axes, {arm: found.thinned for arm, found in bands.items()})
        if limits is not None:
            axes.set_ylim(*limits)
        for word_of, value in marks.items():
            axes.axhline(value, color=MUTED, linestyle=":", linewidth=1)
            beside: Any = {"transform": axes.get_yaxis_transform(), "va": "center"}  # a curve may run anywhere inside
            axes.text(1.01, value, word_of.replace("a uniform ", "uniform\n"), color=MUTED, **beside)
        axes.set_xlabel("optimizer steps")
        _scale(axes, shown, label)
        legend(figure, arms)
        return figure

    ends = [f"{arm.label} ends at {number(float(found.mean[-1]))}" for arm, found in bands.items()]
    return FigurePlan(
        name,
        capital(word),
        f"{_lines(bands, key)} {_CUT}{_leaving(held, arms)}"
        + (f" Dotted: {listed([f'{mark}, {number(value)}' for mark, value in marks.items()])}." if marks else ""),
        f"{capital(word)} against optimizer steps for {plural(len(bands), 'arm')}: {listed(ends)}.",
        draw,
        touch=_touch(bands, held, "optimizer steps", label, marks=marks, log=_log_limits(shown) is not None),
    )


def _seconds(group: Group) -> FigurePlan | None:
    """Validation loss against time: the same curve, its steps × the ms per step of the timing pass."""
    bands = {}
    for arm in group.by_result:
        found = band(arm, names.VAL_LOSS)
        if found is not None and arm.ms_per_step is not None:
            bands[arm] = found.over(found.x * arm.ms_per_step / 1e3)
    if len(bands) < 2:
        return None
    arms = list(bands)
    ending = _ending(arms)
    ends = {arm: float(found.x[-1]) for arm, found in bands.items()}
    unit, scale = ("ms", 1e3) if max(ends.values()) < _SHORT else ("s", 1.0)
    bands = {arm: found.over(found.x * scale) for arm, found in bands.items()}
    shown = [bands[arm] for arm in ending]
    axis, label = f"training time ({unit}), one trial alone on the machine", loss_label(group, "validation")

    def draw() -> Figure:
        figure, (axes,) = blank(3.2 + legend_height(arms))
        _draw_bands(axes, {arm: found.thinned for arm, found in bands.items()})
        if (limits := _limits(shown)) is not None:
            axes.set_ylim(*limits)
        _scale(axes, shown, label)
        axes.set_xlabel(axis)
        legend(figure, arms)
        return figure

    each = [f"{arm.label} {number(end, 3)} s" for arm, end in ends.items()]
    return FigurePlan(
        "val_loss_seconds",
        f"Validation {group.baseline.measure} against time",
        "Steps × the median ms per step of the timing pass, evaluation excluded. "
        f"{_lines(bands, names.VAL_LOSS)} {_CUT}{_leaving(ending, arms)}",
        f"Validation {group.baseline.measure} against seconds of training; the runs take {listed(each)}.",
        draw,
        touch=_touch(bands, ending, axis, label, unit=unit, log=_log_limits(shown) is not None),
    )


def _touch(
    bands: Mapping[ArmResult, Band], ending: Sequence[ArmResult], x_label: str, y_label: str, **known: Any
) -> Touch:
    x, lines = shared({arm.name: found.points(loose=arm not in ending) for arm, found in bands.items()})
    return Touch(x, x_label, y_label, lines, **known)


def _draw_bands(axes: Axes, bands: Mapping[ArmResult, Band]) -> None:
    for arm, found in bands.items():
        if len(bands) <= _MOST_BANDS and found.half.any():
            axes.fill_between(found.x, found.low, found.high, color=colour(arm), alpha=0.18, linewidth=0)
        axes.plot(found.x, found.mean, color=colour(arm), linestyle=line(arm), **weight(arm))


def _limits(shown: Sequence[Band]) -> tuple[float, float] | None:
    """Ends of the loss axis that give the end of the run the room: the steep start may leave at the top."""
    late = [found.x >= _LATE * found.x[-1] for found in shown]
    low = min(float(found.mean.min()) for found in shown)
    high = max(float(found.mean[held].max()) for found, held in zip(shown, late, strict=True))
    room = _ROOM * (high - low) or math.inf
    low = max(min(float(found.low.min()) for found in shown), low - room)
    high = min(max(float(found.high[held].max()) for found, held in zip(shown, late, strict=True)), high + room)
    return (low - 0.04 * (high - low), high + 0.06 * (high - low)) if high > low else None


def _marks(group: Group, shown: Sequence[Band]) -> tuple[dict[str, float], tuple[float, float] | None]:
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


def _scale(axes: Axes, shown: Sequence[Band], label: str) -> None:
    """A log axis where the last losses are decades apart."""
    if (limits := _log_limits(shown)) is not None:
        axes.set_yscale("log")
        axes.set_ylim(*limits)
        log_ticks(axes.yaxis)
        label = f"{label}, log scale"
    axes.set_ylabel(label)


def _log_limits(shown: Sequence[Band]) -> tuple[float, float] | None:
    """Ends of a log axis where the last losses are decades apart: on a linear one all but the worst lay on a line."""
    ends = [float(found.mean[-1]) for found in shown]
    lowest = min(float(found.mean.min()) for found in shown)
    if lowest <= 0 or max(ends) <= _DECADES_APART * min(ends):
        return None
    tops = [float(found.mean.max()) for found in shown]
    top = min(max(tops), 1e3 * float(np.median(tops)))  # a diverging arm goes anywhere
    return max(lowest, 1e-12 * top) / 1.5, 1.5 * top


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


def _lines(bands: Mapping[ArmResult, Band], key: str) -> str:
    seeds = [[trial.seed for trial in _drawn(arm, key)] for arm in bands]
    again = several(seeds)
    of = f"the means of {_searches(seeds)}" if again else "seeds"
    held = any(found.half.any() for found in bands.values())
    band = "; band: its 95 % t interval" if held else ""
    if held and len(bands) > _MOST_BANDS:
        band = " (bands left out: too many arms)"
    return f"Line: mean over {of}{band}. n = {runs(seeds)} per arm."


def _searches(arms: Sequence[Sequence[int]]) -> str:
    return how_many((len({repeat_of(seed) for seed in seeds}) for seeds in arms), "search")
