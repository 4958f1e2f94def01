"""The schedules that ran, as small multiples: the applied learning rate over its peak, from the logged trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optsweep.report.comparison import ArmResult, Group
from optsweep.report.figures.canvas import INK, FigurePlan, blank, colour, shared_labels, short
from optsweep.report.figures.curves import curves
from optsweep.report.wording import listed, number, plural
from optsweep.tracking import names
from optsweep.tracking.reader import LEARNING_RATE, Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST = 3  # schedules worth a gallery; two are told apart in the figure of learning rates
_COLUMNS = 3
_MOST_DOTS = 60


@dataclass(frozen=True)
class _Shape:
    """One schedule, with its warm-up, as one trial had it; the arms that ran it."""

    title: str
    steps: NDArray[np.int64]
    multiplier: NDArray[np.float64]
    arms: tuple[ArmResult, ...]


def plans(group: Group) -> list[FigurePlan]:
    """A gallery of the schedules, where there are enough of them."""
    shapes = _shapes(group)
    return [_gallery(shapes)] if len(shapes) >= _FEWEST else []


def _shapes(group: Group) -> list[_Shape]:
    found: dict[tuple[tuple[str, str], ...], list[tuple[ArmResult, Curve]]] = {}
    for arm in group.arms:
        traces = [curve for curve in curves(arm, names.LR) if np.isfinite(curve.values).all()]
        if traces and traces[0].values.max() > 0:
            found.setdefault(_schedule(arm), []).append((arm, traces[0]))
    varied = {key for key in {k for held in found for k, _ in held} if len({dict(held).get(key) for held in found}) > 1}
    return [
        _Shape(_title(dict(held), varied), arms[0][1].steps, _multiplier(*arms[0]), tuple(arm for arm, _ in arms))
        for held, arms in found.items()
    ]


def _multiplier(arm: ArmResult, trace: Curve) -> NDArray[np.float64]:
    """The trace over the arm's learning rate, its peak; the highest logged one may lie past the peak itself."""
    peak = float(trace.values.max())
    rate = arm.setting(LEARNING_RATE)
    return trace.values / (rate if rate is not None and rate >= peak * (1 - 1e-6) else peak)


def _schedule(arm: ArmResult) -> tuple[tuple[str, str], ...]:
    """The arm's choices that shape its learning rate."""
    choices = arm.arm.choices
    axes = {key: value for key, value in choices.items() if key.startswith(("schedule.", "warmup."))}
    chosen = {key: choices.get(key, "none") for key in ("schedule", "warmup")}
    return tuple(sorted((chosen | axes).items()))


def _title(choices: dict[str, str], varied: set[str]) -> str:
    parts = [choices["schedule"]]
    if "warmup" in varied:
        parts.append("no warm-up" if choices["warmup"] == "none" else f"{choices['warmup']} warm-up")
    for key in sorted(varied - {"schedule", "warmup"}):
        if key in choices:
            parts.append(f"{'warm-up' if key == 'warmup.steps' else key.rpartition('.')[2]} {choices[key]}")
    return ", ".join(parts)


def _gallery(shapes: list[_Shape]) -> FigurePlan:
    rows = math.ceil(len(shapes) / _COLUMNS)

    def draw() -> Figure:
        figure, axes = blank(0.55 + 1.15 * rows, rows, _COLUMNS, sharex=True, sharey=True)
        for ax, shape in zip(axes, shapes, strict=False):
            of = colour(shape.arms[0]) if len(shape.arms) == 1 else INK
            dots = "." if len(shape.steps) <= _MOST_DOTS else ""
            ax.fill_between(shape.steps, shape.multiplier, color=of, alpha=0.13, linewidth=0)
            ax.plot(shape.steps, shape.multiplier, color=of, linewidth=1.3, marker=dots, markersize=3)
            ax.set_title(short(shape.title, 24))
            ax.tick_params(labelbottom=True)
        for ax in axes[len(shapes) :]:
            ax.set_visible(False)
        axes[0].set_ylim(0, 1.08)
        axes[0].set_yticks([0, 0.5, 1], ["0", "½", "1"])
        axes[0].set_xlim(left=0)
        shared_labels(figure, "optimizer steps", "learning rate / its peak")
        return figure

    last = [f"{shape.title} ends at {number(float(shape.multiplier[-1]), 2)}" for shape in shapes]
    first = min(int(shape.steps[0]) for shape in shapes)
    shared = any(len(shape.arms) > 1 for shape in shapes)
    return FigurePlan(
        "schedules",
        "The schedules that ran",
        "The learning rate that one trial of each schedule (n = 1) was given, divided by the arm's; dots are what was "
        f"logged, from step {first} on." + (" Dark: several arms share the schedule." if shared else ""),
        f"Learning rate over its peak, of {plural(len(shapes), 'schedule')}: {listed(last)} of the peak.",
        draw,
    )
