"""Figures of the search: how the loss depends on the learning rate, and on learning rate and weight decay together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optsweep.inference.tuning import MIN_TRIALS, best_of
from optsweep.report.arm_result import ArmResult
from optsweep.report.chosen import in_words
from optsweep.report.comparison import Group
from optsweep.report.figures.canvas import (
    INK,
    MUTED,
    FigurePlan,
    blank,
    colour,
    is_rest,
    labels,
    legend,
    legend_height,
    line,
    log_ticks,
    loss_label,
    marker,
    only_outer_labels,
    shared_labels,
    short,
    slug,
    weight,
)
from optsweep.report.figures.runs import how_many
from optsweep.report.wording import listed, number, plural, setting
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import LEARNING_RATE, WEIGHT_DECAY, TrialRecord
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

_TOP = 0.94  # where in an axes, as a share of its height, points without a place on it are drawn
_MOST_VECTORS = 200  # points per panel; beyond, a picture of them: thousands made a file of 7 MB
_SHOWN = 3.0  # losses up to best + this many times (median − best) have a place on the axis


def plans(group: Group) -> list[FigurePlan]:
    """The search figures that this group has data for."""
    found = [_sensitivity(group), *_planes(group), _tuning(group)]
    return [plan for plan in found if plan is not None]


def _searched(arm: ArmResult, key: str) -> list[TrialRecord]:
    """Search trials with a result and a positive value of a hyperparameter."""
    ended = (Status.FINISHED, Status.PRUNED, Status.DIVERGED)
    return [t for t in arm.arm.of(Phase.SEARCH) if t.status in ended and (t.number(key) or 0) > 0]


def last_loss(trial: TrialRecord) -> float:
    """Validation loss at the trial's last step; infinity where it diverged."""
    loss = trial.metric(names.VAL_LOSS)
    return math.inf if loss is None or trial.status is Status.DIVERGED else loss


def loss_limits(losses: Sequence[float], shown: float = _SHOWN, also: Sequence[float] = ()) -> tuple[float, float]:
    """Limits of a loss axis that a few terrible trials don't flatten: up to best + `shown` × (median − best).

    `also`, such as every arm's best, has a place on it too, unless that made the axis more than three times as high.
    """
    finite = np.array([loss for loss in losses if math.isfinite(loss)])
    if len(finite) == 0:
        return 0.0, 1.0
    best, middle = float(finite.min()), float(np.median(finite))
    top = min(float(finite.max()), best + shown * max(middle - best, 1e-3 * abs(best)))
    top = max([top, *(loss for loss in also if loss <= best + 3 * (top - best))])
    room = max(top - best, 1e-6 * (1 + abs(best)))
    return best - 0.08 * room, top + 0.2 * room


def _sensitivity(group: Group) -> FigurePlan | None:
    arms = [arm for arm in group.by_result if len({t.number(LEARNING_RATE) for t in _searched(arm, LEARNING_RATE)}) > 1]
    if not arms:
        return None
    finished = [t for arm in arms for t in _searched(arm, LEARNING_RATE) if t.status is Status.FINISHED]
    bests = [min(last_loss(trial) for trial in _searched(arm, LEARNING_RATE)) for arm in arms]
    limits = loss_limits([last_loss(trial) for trial in finished], also=bests)
    columns = 1 if len(arms) <= 3 else 2
    rows = math.ceil(len(arms) / columns)

    def draw() -> Figure:
        height = 1.75 if columns == 1 else 1.25  # on the page, panels side by side are enlarged
        figure, axes = blank(0.7 + height * rows, rows, columns, sharex=True, sharey=True)
        for ax, arm, title in zip(axes, arms, labels(arms, 60 // columns), strict=False):
            ax.set_xscale("log")
            ax.set_ylim(limits)
            ax.set_title(title)
            _draw_ranges(ax, arm)
            _draw_trials(ax, arm, limits)
        only_outer_labels(axes, len(arms), columns)
        for ax in axes[: len(arms)]:
            log_ticks(ax.xaxis)
        shared_labels(figure, "learning rate (log scale)", loss_label(group, "validation"))
        return figure

    measure = group.baseline.measure
    each = [f"{arm.label} {_choice(arm)}" for arm in arms]
    n = how_many((len(_searched(arm, LEARNING_RATE)) for arm in arms), "trial")
    vary = " Other searched hyperparameters vary too." if any(len(arm.arm.space) > 1 for arm in arms) else ""
    return FigurePlan(
        "lr_sensitivity",
        "Sensitivity to the learning rate",
        f"Each point is one search trial ({n} per arm{_of_searches(arms)}) at its last step. Shaded: the suggested "
        f"range; hatched: where the search went beyond it. {_ringed(arms)} Hollow: pruned, at its last {measure}. "
        f"Crosses at the top: diverged; triangles at the top: worse than the axis shows.{vary}",
        f"Validation {measure} against learning rate, one panel per arm: {listed(each)}.",
        draw,
        wide=columns == 2,
    )


def _of_searches(arms: Sequence[ArmResult]) -> str:
    searches = {trial.repeat for arm in arms for trial in arm.arm.of(Phase.SEARCH)}
    return f", {len(searches)} searches together" if len(searches) > 1 else ""


def _ringed(arms: Sequence[ArmResult]) -> str:
    """What the rings are."""
    several = any(len(arm.arm.all_chosen) > 1 for arm in arms)
    return "Ringed: the setting that each search chose." if several else "Ringed: the chosen setting."


def _choice(arm: ArmResult) -> str:
    value = arm.setting(LEARNING_RATE)
    if value is None:
        return "has no chosen setting yet"
    sides = [side for key, side in arm.unbracketed if key == LEARNING_RATE]
    edge = f", not bracketed on the {listed(sides)} side" if sides else ""
    also = f" with {others}" if (others := in_words(arm)) else ""
    return f"is best at {setting(value)}{also}{edge}"


def _draw_ranges(axes: Axes, arm: ArmResult) -> None:
    suggested = arm.arm.space.get(LEARNING_RATE)
    if suggested is None:
        return
    axes.axvspan(suggested.low, suggested.high, color=colour(arm), alpha=0.1, linewidth=0)
    grown = arm.arm.chosen.searched.get(LEARNING_RATE) if arm.arm.chosen else None
    for low, high in [(grown[0], suggested.low), (suggested.high, grown[1])] if grown else []:
        if high > low * 1.001:
            axes.axvspan(low, high, facecolor="none", edgecolor=MUTED, hatch="///", alpha=0.35, linewidth=0)


def _draw_trials(axes: Axes, arm: ArmResult, limits: tuple[float, float]) -> None:
    high = limits[0] + _TOP * (limits[1] - limits[0])
    points: dict[tuple[str, bool], list[tuple[float, float]]] = {}  # one artist per look: a thousand would be slow
    for trial in _searched(arm, LEARNING_RATE):
        x, y = trial.number(LEARNING_RATE), last_loss(trial)
        assert x is not None
        look = "x" if math.isinf(y) else "^" if y > high else marker(arm)
        points.setdefault((look, trial.status is Status.PRUNED), []).append((x, min(y, high)))
    size = 4.5 if len(arm.arm.trials) < 120 else 2.5
    for (look, hollow), places in points.items():
        own: Any = {"markersize": 5.5, "markeredgewidth": 1.6} if look == "x" else {"markersize": size}
        fill = "none" if hollow else colour(arm)
        axes.plot(*zip(*places, strict=True), look, color=colour(arm), markerfacecolor=fill, **own)
    for chosen in arm.arm.all_chosen.values():
        if LEARNING_RATE not in chosen.params or chosen.mean is None or not math.isfinite(chosen.mean):
            continue
        x, y = chosen.params[LEARNING_RATE], min(chosen.mean, high)
        axes.plot(x, y, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4)


def _planes(group: Group) -> list[FigurePlan]:
    """Learning rate × each other hyperparameter that arms searched along with it."""
    searched = {key for arm in group.by_result if LEARNING_RATE in arm.arm.space for key in arm.arm.space}
    found = [
        _plane(group, key) for key in sorted(searched - {LEARNING_RATE}, key=lambda key: (key != WEIGHT_DECAY, key))
    ]
    return [plan for plan in found if plan is not None]


def _plane(group: Group, key: str) -> FigurePlan | None:
    """Learning rate × another hyperparameter, one panel per arm that searched both."""
    arms = [arm for arm in group.by_result if {LEARNING_RATE, key} <= set(arm.arm.space)]
    arms = [arm for arm in arms if len({t.number(key) for t in _both(arm, key)}) > 1]
    if not arms:
        return None
    log = all(arm.arm.space[key].log for arm in arms)
    limits = loss_limits([last_loss(t) for arm in arms for t in _both(arm, key) if t.status is Status.FINISHED])
    columns = 1 if len(arms) == 1 else 2
    rows = math.ceil(len(arms) / columns)

    def draw() -> Figure:
        figure, axes = blank(0.9 + 2.2 * rows, rows, columns, sharex=True, sharey=True)
        for ax, arm, title in zip(axes, arms, labels(arms, 48 // columns), strict=False):
            ax.set_xscale("log")
            ax.set_yscale("log" if log else "linear")
            ax.set_title(title)
            drawn = _draw_plane(ax, arm, key, limits)
        only_outer_labels(axes, len(arms), columns)
        for ax in axes[: len(arms)]:
            log_ticks(ax.xaxis)
            if log:
                log_ticks(ax.yaxis)
        shared_labels(figure, "learning rate (log scale)", short(_symbol(key)) + (" (log scale)" if log else ""))
        bar = figure.colorbar(drawn, ax=axes, shrink=0.9, aspect=max(28, 14 * rows), pad=0.02, extend="max")
        bar.set_label(loss_label(group, "validation"))
        bar.outline.set_visible(False)
        return figure

    each = [f"{arm.label}: {setting(arm.setting(key))} at {setting(arm.setting(LEARNING_RATE))}" for arm in arms]
    trials = [trial for arm in arms for trial in _both(arm, key)]
    measure = group.baseline.measure
    return FigurePlan(
        "lr_decay" if key == WEIGHT_DECAY else f"lr_{slug(key)}",
        f"Learning rate and {_word(key)}",
        f"Each point is one search trial ({plural(len(trials), 'trial')} in all{_of_searches(arms)}), darker is lower. "
        f"{_ringed(arms)} Crosses: diverged. Small: pruned, at its last {measure}."
        + (" Other searched hyperparameters vary too." if any(len(arm.arm.space) > 2 for arm in arms) else ""),
        f"Validation {measure} by learning rate and {_word(key)}. Chosen {_word(key)} and learning rate: "
        f"{listed(each)}. Lowest {measure} {number(min(last_loss(trial) for trial in trials))}.",
        draw,
    )


def _word(key: str) -> str:
    """A hyperparameter in a sentence."""
    return "weight decay" if key == WEIGHT_DECAY else key


def _symbol(key: str) -> str:
    """A hyperparameter on an axis."""
    return "weight decay λ" if key == WEIGHT_DECAY else key


def _tuning(group: Group) -> FigurePlan | None:
    """Best loss against the number of search trials, with its band: the evidence that an arm has been tuned enough."""
    held = {arm.style: (arm, losses) for arm in group.by_result if len(losses := independent_losses(arm)) >= MIN_TRIALS}
    if not held:
        return None

    def draw() -> Figure:
        from matplotlib.ticker import MaxNLocator

        arms = [arm for arm, _ in held.values()]
        figure, (axes,) = blank(3.0 + legend_height(arms))
        limits = loss_limits([loss for _, losses in held.values() for loss in losses])
        for arm, losses in held.values():
            at = np.arange(1, len(losses) + 1)
            found = [best_of(losses, int(n)) for n in at]
            ends = np.array([(best.estimate, best.low, best.high) for best in found], dtype=np.float64).T
            middle, low, high = np.clip(ends, *limits)  # an open end is that of the axis
            axes.plot(at, middle, color=colour(arm), linestyle=line(arm), drawstyle="steps-mid", **weight(arm))
            if not is_rest(arm):
                axes.fill_between(at, low, high, step="mid", color=colour(arm), alpha=0.15, linewidth=0)
        axes.set_ylim(limits)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("search trials")
        axes.set_ylabel(f"best {loss_label(group, 'validation')}")
        legend(figure, arms)
        return figure

    each = [
        f"{arm.label} {number(best_of(losses, len(losses)).estimate)} of {len(losses)}" for arm, losses in held.values()
    ]
    return FigurePlan(
        "tuning",
        "How well tuned",
        f"Median of the lowest validation {group.baseline.measure} of n search trials, by the quasi-random ones "
        "(model-based ones depend on each other); shaded: its 95 % interval at each n, which nothing bounds below "
        "where it reaches the axis. A curve that still falls at its end would gain from more trials.",
        f"Median best validation {group.baseline.measure} by number of search trials: {listed(each)}.",
        draw,
    )


def independent_losses(arm: ArmResult) -> list[float]:
    """Last losses of the space-filling search trials; diverged is infinity. Empty if none has a finite one.

    A pruned trial counts with its last loss, which is worse than it would have become: it wasn't the best anyway.
    """
    losses = [last_loss(trial) for trial in _searched(arm, LEARNING_RATE) if trial.origin == "quasi-random"]
    return losses if any(math.isfinite(loss) for loss in losses) else []


def _both(arm: ArmResult, key: str) -> list[TrialRecord]:
    """Search trials with a value of LR and of a second hyperparameter that its axis has a place for."""
    held = [(trial, trial.number(key)) for trial in _searched(arm, LEARNING_RATE)]
    least = 0.0 if arm.arm.space[key].log else -math.inf
    return [trial for trial, value in held if value is not None and math.isfinite(value) and value > least]


def _draw_plane(axes: Axes, arm: ArmResult, key: str, limits: tuple[float, float]) -> PathCollection:
    trials = _both(arm, key)
    held = [trial for trial in trials if math.isfinite(last_loss(trial))]
    many = len(held) > _MOST_VECTORS
    drawn = axes.scatter(
        *_places(held, key),
        c=[last_loss(trial) for trial in held],
        s=[14 if trial.status is Status.PRUNED else 38 for trial in held],
        cmap="cividis",
        vmin=limits[0],
        vmax=limits[1],
        edgecolors=MUTED if many else INK,  # dark points would vanish on a dark page, which a picture doesn't know
        linewidths=0.5,
        zorder=3,
        rasterized=many,
    )
    lost = [trial for trial in trials if not math.isfinite(last_loss(trial))]
    axes.plot(*_places(lost, key), "x", color=INK, markersize=5.5, markeredgewidth=1.4)
    ring: Any = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.4}
    for chosen in (held.params for held in arm.arm.all_chosen.values()):
        if LEARNING_RATE not in chosen or key not in chosen or (chosen[key] <= 0 and arm.arm.space[key].log):
            continue
        axes.plot(chosen[LEARNING_RATE], chosen[key], marker="o", zorder=4, **ring)
    return drawn


def _places(trials: Sequence[TrialRecord], key: str) -> tuple[list[float], list[float]]:
    x, y = ([value for t in trials if (value := t.number(of)) is not None] for of in (LEARNING_RATE, key))
    return x, y
