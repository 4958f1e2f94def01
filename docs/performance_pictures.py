"""The pictures of docs/performance.md, in the look of the reports' figures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.table import figures_of

from optsweep.report.figures.canvas import COLOURS, INK, MUTED, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^D"
LINES = ("-", "--", "-.", ":")


def peers_picture(result: Mapping[str, Any], mark: str) -> str:
    """How many times as fast as the others, a row for each search and contestant."""
    figures = figures_of(result)
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 0.8 + 0.5 * len(figures)), layout="constrained")
        axes = figure.subplots()
        for row, shown in enumerate(figures):
            ray = "Ray Tune" in shown.against
            axes.plot([shown.low, shown.high], [row, row], color=COLOURS[ray], linewidth=3, solid_capstyle="butt")
            axes.plot(shown.value, row, marker="s" if ray else "o", color=COLOURS[ray], markersize=7)
            axes.annotate(f"{shown.value:.1f} ×", (shown.value, row), (0, 8), textcoords="offset points", ha="center")
            if shown.target is not None:
                axes.plot(shown.target, row, marker="|", color=INK, markersize=11, markeredgewidth=1.6)
        names = ["Ray Tune" if "Ray Tune" in shown.against else "plain Optuna, 2 processes" for shown in figures]
        axes.set_yticks(range(len(figures)), [f"{f.what}\n{name}" for f, name in zip(figures, names, strict=True)])
        axes.set_ylim(len(figures) - 0.5, -0.7)
        axes.set_xscale("log")
        axes.set_xlim(min(0.8, *(f.low * 0.8 for f in figures)), max(f.high for f in figures) * 1.6)
        axes.axvline(1, color=MUTED, linewidth=1)
        ticks = [t for t in (0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200) if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(
            "times as fast, command to end (log scale)\nmark: median; bar: quartiles of the rounds; tick: target"
        )
        return _svg(figure, mark, "optsweep beside plain Optuna and Ray Tune")


def lanes_picture(result: Mapping[str, Any], mark: str) -> str:
    """Rates by number of lanes, a line for each task."""
    lines: dict[str, list[tuple[int, float, float, float]]] = {}
    for figure in figures_of(result):
        task, lanes = figure.what.split(", ")
        lines.setdefault(task, []).append((int(lanes.split()[0]), figure.value, figure.low, figure.high))
    with style():
        from matplotlib.figure import Figure

        picture = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = picture.subplots()
        for place, (task, points) in enumerate(lines.items()):
            places, rates, low, high = zip(*points, strict=True)
            colour, marker, dashes = COLOURS[place], MARKERS[place % 4], LINES[place % 4]
            axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(places, rates, color=colour, marker=marker, linestyle=dashes)
            axes.annotate(f" {task}", (places[-1], rates[-1]), (4, 0), textcoords="offset points", va="center")
        every = sorted({count for points in lines.values() for count, *_ in points})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
        axes.set_xticks(every, [str(count) for count in every])
        axes.set_xlim(0.9, every[-1] * 2.6)
        rounds = result["figures"][0]["rounds"]
        axes.set_xlabel(f"lanes (log scale); line: median of {rounds} rounds, band: their quartiles")
        axes.set_ylabel("trials · steps per second and core (log scale)")
        return _svg(picture, mark, "Trials · steps per second by number of lanes")


def _svg(figure: Figure, mark: str, title: str) -> str:
    text = io.StringIO()
    metadata = {"Date": None, "Creator": "optsweep", "Title": title, "Description": mark}
    figure.savefig(text, format="svg", metadata=metadata, facecolor="white")
    return text.getvalue()
