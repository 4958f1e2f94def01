"""Which hyperparameters each arm's search depended on, where it searched more than one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optsweep.inference.importance import MAX_TRIALS, importance
from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import GRID, MUTED, FigurePlan, blank, colour, labels, shared_labels, short
from optsweep.report.figures.search import last_loss
from optsweep.report.wording import listed
from optsweep.tracking.names import Status
from optsweep.tracking.reader import LEARNING_RATE, WEIGHT_DECAY, TrialRecord
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEWEST = 2  # hyperparameters of a search that can be weighed against each other
_ENDED = (Status.FINISHED, Status.DIVERGED)  # a pruned trial's loss is of a shorter run


def plans(group: Group) -> list[FigurePlan]:
    """Shares of the search's variance, of the arms that searched several hyperparameters and have trials enough."""
    shares = [(arm, found) for arm in group.by_result if len(arm.arm.space) >= _FEWEST and (found := _shares(arm))]
    return [_bars(shares, group.baseline.measure)] if shares else []


def _shares(arm: ArmResult) -> dict[str, float]:
    trials = [trial for trial in arm.arm.of(Phase.SEARCH) if trial.status in _ENDED and _placed(arm, trial)]
    params = {
        key: [math.log(value) if log else value for t in trials if (value := t.number(key)) is not None]
        for key, log in ((key, arm.arm.space[key].log) for key in sorted(arm.arm.space, key=_order))
    }
    return importance(params, [last_loss(trial) for trial in trials])


def _placed(arm: ArmResult, trial: TrialRecord) -> bool:
    """Whether the trial has a value of everything that was searched, on its scale."""
    values = [(trial.number(key), held.log) for key, held in arm.arm.space.items()]
    return all(value is not None and math.isfinite(value) and (value > 0 or not log) for value, log in values)


def _order(key: str) -> tuple[bool, bool, str]:
    return key != LEARNING_RATE, key != WEIGHT_DECAY, key


def _bars(shares: list[tuple[ArmResult, dict[str, float]]], measure: str) -> FigurePlan:
    keys = sorted({key for _, found in shares for key in found}, key=_order)
    columns = 1 if len(shares) <= 3 else 2
    rows = math.ceil(len(shares) / columns)

    def draw() -> Figure:
        figure, axes = blank(0.5 + rows * (0.3 + 0.24 * len(keys)), rows, columns, sharex=True, sharey=True)
        titles = labels([arm for arm, _ in shares], 60 // columns)
        for ax, (arm, found), title in zip(axes, shares, titles, strict=False):
            _draw_bars(ax, arm, found, keys)
            ax.set_title(title)
        for ax in axes[len(shares) :]:
            ax.set_visible(False)
        axes[0].set_yticks(range(len(keys)), [short("λ" if key == WEIGHT_DECAY else key, 18) for key in keys])
        axes[0].set_ylim(len(keys) - 0.4, -0.6)
        axes[0].set_xlim(0, 1.12)
        axes[0].set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        shared_labels(figure, f"share of the variance of the search's {measure}", "")
        return figure

    each = [f"{arm.label}: {listed([f'{key} {value:.0%}' for key, value in found.items()])}" for arm, found in shares]
    counts = sorted({sum(t.status in _ENDED for t in arm.arm.of(Phase.SEARCH)) for arm, _ in shares})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    n += f"; of more than {MAX_TRIALS}, as many spread evenly" if counts[-1] > MAX_TRIALS else ""
    return FigurePlan(
        "importance",
        "What the search depended on",
        f"Share of the last validation {measure}'s variance that each searched hyperparameter explains alone "
        f"(functional ANOVA over a random forest; search trials per arm: n = {n}); the rest to 100 % is interaction. A "
        "rough guide that depends on the searched ranges: not a test.",
        f"Share of the search's variance by hyperparameter. {'; '.join(each)}.",
        draw,
        wide=columns == 2,
    )


def _draw_bars(axes: Axes, arm: ArmResult, found: dict[str, float], keys: list[str]) -> None:
    for place, key in enumerate(keys):
        if key not in found:
            axes.text(0.01, place, "not searched", va="center", color=MUTED)
            continue
        axes.barh(place, found[key], height=0.6, color=colour(arm), alpha=0.9)
        axes.text(found[key] + 0.015, place, f"{100 * found[key]:.0f} %", va="center")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(GRID)
