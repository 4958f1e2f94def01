"""The schedules that ran, as small multiples: the applied learning rate over its peak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import INK, FigurePlan, blank, colour, shared_labels, short
from optsweep.report.figures.learning_rate import Applied, applied
from optsweep.report.wording import listed, number, plural
from optsweep.tracking.reader import LEARNING_RATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST = 3  # schedules worth a gallery; two are told apart in the figure of learning rates
_COLUMNS = 3
_MOST_DOTS = 60
_MOST_FILLED = 400  # points of the area under a line; more only makes the file larger


@dataclass(frozen=True)
class _Shape:
    """One schedule with its warm-up, and the arms that ran it."""

    title: str
    steps: NDArray[np.int64]
    multiplier: NDArray[np.float64]
    arms: tuple[ArmResult, ...]
    logged: bool


def plans(group: Group) -> list[FigurePlan]:
    """A gallery of the schedules, where there are enough of them."""
    shapes = _shapes(group)
    return [_gallery(shapes)] if len(shapes) >= _FEWEST else []


def _shapes(group: Group) -> list[_Shape]:
    found: dict[tuple[tuple[str, str], ...], list[tuple[ArmResult, Applied]]] = {}
    for arm in group.by_result:
        if (trace := applied(arm)) is not None:
            found.setdefault(_schedule(arm), []).append((arm, trace))
    varied = {key for key in {k for held in found for k, _ in held} if len({dict(held).get(key) for held in found}) > 1}
    return [_shape(_title(dict(held), varied), arms) for held, arms in found.items()]


def _shape(title: str, ran: Sequence[tuple[ArmResult, Applied]]) -> _Shape:
    arm, trace = ran[0]
    return _Shape(title, trace.steps, _multiplier(arm, trace), tuple(arm for arm, _ in ran), trace.logged)


def _multiplier(arm: ArmResult, trace: Applied) -> NDArray[np.float64]:
    """The trace over the arm's learning rate, its peak; the highest logged one may lie past the peak itself."""
    peak = float(trace.rates.max())
    rate = arm.setting(LEARNING_RATE)
    return trace.rates / (rate if rate is not None and rate >= peak * (1 - 1e-6) else peak)


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
            dots = "." if shape.logged and len(shape.steps) <= _MOST_DOTS else ""
            some = slice(None, None, math.ceil(len(shape.steps) / _MOST_FILLED))
            ax.fill_between(shape.steps[some], shape.multiplier[some], color=of, alpha=0.13, linewidth=0)
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
    shared = any(len(shape.arms) > 1 for shape in shapes)
    return FigurePlan(
        "schedules",
        "The schedules that ran",
        "The learning rate of every step, divided by the arm's."
        + _of_a_trial(shapes)
        + (" Dark: several arms share the schedule." if shared else ""),
        f"Learning rate over its peak, of {plural(len(shapes), 'schedule')}: {listed(last)} of the peak.",
        draw,
    )


def _of_a_trial(shapes: list[_Shape]) -> str:
    """Which schedules could only be drawn from what a trial logged."""
    found = [shape for shape in shapes if shape.logged]
    if not found:
        return ""
    of = "" if len(found) == len(shapes) else f" of {listed([shape.title for shape in found])}"
    first = min(int(shape.steps[0]) for shape in found)
    return f" Dots{of}: what one trial (n = 1) logged, from step {first} on."
