"""Figures of the outcome: differences with their intervals, test loss seed by seed, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optsweep.report.arm_result import ArmResult
from optsweep.report.caveats import seeds_diverged
from optsweep.report.comparison import Comparison, Group
from optsweep.report.figures.canvas import (
    GRID,
    INK,
    MUTED,
    FigurePlan,
    blank,
    colour,
    labels,
    loss_label,
    marker,
    short,
)
from optsweep.report.figures.runs import how_many, independent, runs, several
from optsweep.report.wording import decimals, difference, duration, interval_name, listed, number, plural, size, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BASELINE = 22  # letters of its name that an axis label has room for
_OTHER_SIDE = 0.25  # least room on each side of 0, as a share of the farthest difference
_ACROSS = 56  # letters of all names below an axis, were each as long as the longest
_LINKED_ARMS = 6  # lines between more would be a thicket


def plans(group: Group) -> list[FigurePlan]:
    """The outcome figures that this group has data for."""
    found = [_forest(group), _seeds(group), _cost(group)]
    return [plan for plan in found if plan is not None]


def _forest(group: Group) -> FigurePlan | None:
    held = [comparison for comparison in group.comparisons_by_result if comparison.test is not None]
    if not held:
        return None

    def draw() -> Figure:
        figure, (axes,) = blank(1.3 + 0.34 * len(held))
        for place, comparison in enumerate(held):
            _draw_difference(axes, comparison, place)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(held)), labels([comparison.candidate for comparison in held], 34))
        axes.set_ylim(len(held) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        low, high = axes.get_xlim()
        edge = _OTHER_SIDE * max(abs(low), abs(high))  # the side that nothing lies on needs less room
        axes.set_xlim(min(low, -edge), max(high, edge))
        axes.locator_params(axis="x", nbins=4)  # their numbers are long, and on both sides of 0
        against = group.baseline.label if len(group.baseline.label) <= _BASELINE else "the baseline"
        axes.set_xlabel(f"test {group.baseline.measure} relative to {short(against)}\n← lower · higher →")
        return figure

    searches = any(comparison.searches > 1 for comparison in held)
    n = independent((len(comparison.differences) for comparison in held), searches)
    dots = f"searches, each the mean of {_seeds_of(held)}" if searches else "seeds"
    return FigurePlan(
        "difference",
        f"Difference of test {group.baseline.measure} from the baseline",
        f"Mean over paired {'searches' if searches else 'confirm seeds'} of candidate − {group.baseline.label}"
        f"{f', in {group.baseline.unit}' if group.baseline.unit else ''}; bar: paired t"
        f"{' over test samples too' if all(comparison.over_samples for comparison in held) else ''}, "
        f"{interval_name(group.level)}{', not corrected for the number of comparisons' if len(held) > 1 else ''}; "
        f"dots: single {dots}. n = {n}.{_without_dots([group.baseline, *(one.candidate for one in held)])}",
        f"Difference from {group.baseline.label}: {listed([_in_words(comparison) for comparison in held])}.",
        draw,
    )


def _without_dots(arms: Sequence[ArmResult]) -> str:
    """Whose seeds are missing among the dots."""
    lost = [f"{arm.label} ({seeds_diverged(arm)})" for arm in arms if arm.diverged_seeds]
    return f" Diverged, so without a dot: {listed(lost)}." if lost else ""


def _seeds_of(held: list[Comparison]) -> str:
    return how_many((seeds for comparison in held for seeds in comparison.seeds), "seed")


def _in_words(comparison: Comparison) -> str:
    test = comparison.test
    assert test is not None
    half = None if test.low is None or test.high is None else (test.high - test.low) / 2
    places = decimals(half, test.mean)
    text = f"{comparison.candidate.label} {difference(test.mean, places, sign=True)}"
    if test.low is None or test.high is None:
        return text
    return f"{text} ({span(test.low, test.high, places, sign=True)})"


def _draw_difference(axes: Axes, comparison: Comparison, place: int) -> None:
    test, arm = comparison.test, comparison.candidate
    assert test is not None
    values = list(comparison.differences.values())
    axes.plot(values, [place + 0.24] * len(values), ".", color=colour(arm), alpha=0.55, markersize=4)
    if test.low is not None and test.high is not None:
        axes.plot([test.low, test.high], [place, place], color=colour(arm), linewidth=3, solid_capstyle="butt")
    axes.plot(test.mean, place, marker=marker(arm), color=colour(arm), markersize=7, markeredgecolor=INK)


def _seeds(group: Group) -> FigurePlan | None:
    arms = [arm for arm in group.by_result if arm.test_losses]
    if not arms:
        return None

    lying = (
        len(arms) > 4 or max(len(arm.label) for arm in arms) * len(arms) > _ACROSS
    )  # names need the room beside the axis

    def draw() -> Figure:
        figure, (axes,) = blank(0.7 + 0.36 * len(arms) if lying else 3.2)
        if len(arms) <= _LINKED_ARMS:
            for seed in sorted({seed for arm in arms for seed in arm.test_losses}):
                at = [place for place, arm in enumerate(arms) if seed in arm.test_losses]
                _plot(axes, lying, at, [arms[i].test_losses[seed] for i in at], color=MUTED, alpha=0.45, linewidth=0.8)
        for place, arm in enumerate(arms):
            _draw_seeds(axes, arm, place, lying)
        if lying:
            axes.set_yticks(range(len(arms)), labels(arms, 34))
            axes.set_ylim(len(arms) - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=5)
        else:
            axes.set_xticks(range(len(arms)), labels(arms, 34))
            axes.set_xlim(-0.5, len(arms) - 0.5)
        axes.grid(visible=False, axis="y" if lying else "x")
        (axes.set_xlabel if lying else axes.set_ylabel)(loss_label(group, "test"))
        return figure

    seeds = [list(arm.test_losses) for arm in arms]
    over = f" over the means of {independent((len(arm.losses) for arm in arms), True)}" if several(seeds) else ""
    means = [f"{arm.label} {number(arm.test.estimate)}" for arm in arms if arm.test]
    same = "the same seed of the same search" if several(seeds) else "the same seed"
    links = f" Lines join {same}." if 1 < len(arms) <= _LINKED_ARMS else ""
    return FigurePlan(
        "test_loss",
        f"Test {group.baseline.measure}, seed by seed",
        f"Each dot is one confirm trial; beside them the mean with its 95 % t interval{over}.{links} "
        f"n = {runs(seeds)} per arm.{_without_dots(arms)}",
        f"Test {group.baseline.measure} of every confirm seed; means: {listed(means)}.",
        draw,
    )


def _plot(axes: Axes, lying: bool, at: Sequence[float], losses: Sequence[float], **look: Any) -> None:
    """Arms on one axis, losses on the other."""
    axes.plot(*((losses, at) if lying else (at, losses)), **look)


def _draw_seeds(axes: Axes, arm: ArmResult, place: int, lying: bool) -> None:
    losses = list(arm.test_losses.values())
    look: dict[str, Any] = {"color": colour(arm)}
    _plot(
        axes, lying, [place] * len(losses), losses, linestyle="", marker=marker(arm), markersize=4.5, alpha=0.85, **look
    )
    test = arm.test
    assert test is not None
    beside = place + (0.25 if lying else 0.18)
    if test.low is not None and test.high is not None:
        _plot(axes, lying, [beside] * 2, [test.low, test.high], linewidth=3, solid_capstyle="butt", **look)
    mean: dict[str, Any] = {"marker": "|" if lying else "_", "color": INK, "markersize": 9, "markeredgewidth": 1.6}
    _plot(axes, lying, [beside], [test.estimate], **mean)


def _cost(group: Group) -> FigurePlan | None:
    panels: list[tuple[str, list[float | None], Any]] = [
        ("ms per step", [arm.ms_per_step for arm in group.by_result], lambda value: f"{number(value, 3)} ms"),
        ("time per run", [arm.run_seconds for arm in group.by_result], _time),
        ("optimizer state", [arm.state_bytes for arm in group.by_result], size),
    ]
    panels = [panel for panel in panels if any(value is not None for value in panel[1])]
    if not panels:
        return None
    arms = group.by_result

    def draw() -> Figure:
        figure, axes = blank(0.9 + 0.34 * len(arms), 1, len(panels), sharey=True)
        for ax, (title, values, words) in zip(axes, panels, strict=True):
            _draw_bars(ax, group, values, words, timed=title != "optimizer state")
            ax.set_title(title)
        axes[0].set_yticks(range(len(arms)), labels(arms, 28))
        axes[0].set_ylim(len(arms) - 0.4, -0.6)
        return figure

    each = []
    for number_of, arm in enumerate(arms):
        said = [
            f"{title} {words(values[number_of])}" for title, values, words in panels if values[number_of] is not None
        ]
        each.append(f"{arm.label}: {', '.join(said)}" if said else f"{arm.label}: not known")
    timed = sorted({arm.arm.timing.n for arm in arms if arm.arm.timing})
    n = f" ({plural(timed[0], 'measurement')} per arm)" if len(timed) == 1 else ""
    return FigurePlan(
        "cost",
        "What a run costs",
        f"Time: median of the timing pass, one trial alone, arms in turn{n}; whiskers: quartiles. Optimizer state: "
        "bytes beside the parameters of one trial.",
        f"{'; '.join(each)}.",
        draw,
    )


def _time(seconds: float) -> str:
    return f"{number(1e3 * seconds, 3)} ms" if seconds < 0.1 else duration(seconds)


def _ends(arm: ArmResult, value: float, *, timed: bool) -> tuple[float, float]:
    """Of the whisker on a bar, by the quartiles of the timing; the bar's own where there are none."""
    timing = arm.arm.timing
    if timing is None or not timed:
        return value, value
    scale = value / timing.ms_per_step
    return timing.low * scale, timing.high * scale


def _draw_bars(axes: Axes, group: Group, values: list[float | None], words: Any, *, timed: bool) -> None:
    rows = list(zip(group.by_result, values, strict=True))
    reach = max(_ends(arm, value, timed=timed)[1] for arm, value in rows if value is not None) or 1.0
    for place, (arm, value) in enumerate(rows):
        if value is None:
            untimed = " timed elsewhere" if arm.timed_elsewhere else " not timed"
            axes.text(0, place, untimed if timed else " not known", va="center", color=MUTED)
            continue
        axes.barh(place, value, height=0.5, color=colour(arm), alpha=0.9)
        low, high = _ends(arm, value, timed=timed)
        if low < high:
            axes.plot([low, high], [place, place], color=INK, linewidth=1.2)
        axes.text(max(value, high) + 0.14 * reach, place, words(value), va="center")
    axes.set_xlim(0, reach * 2.2)  # room for the value beside its bar and whisker
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_color(GRID)
