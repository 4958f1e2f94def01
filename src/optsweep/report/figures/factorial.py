"""What each of two crossed choices does alone, what both do together, and what is left beyond the sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optsweep.report.across.factorial import Factorial
from optsweep.report.figures.canvas import COLOURS, INK, MUTED, FigurePlan, blank, short
from optsweep.report.wording import listed, percent, plus_minus_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plans(crossed: Factorial) -> list[FigurePlan]:
    """Four differences with their intervals."""
    first, second = crossed.factors
    names = [f"{first} alone", f"{second} alone", "both together", "beyond the sum"]
    tests = [*crossed.alone, crossed.together, crossed.interaction]
    unit, measure = crossed.arms[0].unit, crossed.arms[0].measure

    def draw() -> Figure:
        figure, (axes,) = blank(2.0)
        axes.axvline(0, color=MUTED, linewidth=0.9)
        for row, test in enumerate(tests):
            tint = INK if test is crossed.interaction else COLOURS[0]
            if test.low is not None and test.high is not None:
                axes.plot([test.low, test.high], [row, row], color=tint, linewidth=2.2, solid_capstyle="butt")
            axes.plot(test.mean, row, marker="D" if test is crossed.interaction else "o", color=tint)
        axes.set_yticks(range(len(names)), [short(name, 34) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)  # their numbers are long, and on both sides of 0
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"difference of the mean test {measure}" + (f" ({unit})" if unit else ""))
        return figure

    said = [f"{name} {plus_minus_difference(test)}" for name, test in zip(names, tests, strict=True)]
    return [
        FigurePlan(
            "factorial",
            f"{first} and {second}, alone and together",
            f"Differences to {crossed.arms[0].label}; below zero the {measure} is lower. “Beyond the sum” is the "
            "interaction: both together less the sum of each alone, so at zero their effects add up. Bar: "
            f"{percent(crossed.level.confidence)} t interval. n = {crossed.num_differences}.",
            f"Differences of the mean test {measure} to {crossed.arms[0].label}: {listed(said)}.",
            draw,
        )
    ]
