"""The look of all figures, and saving them: one style, one colour per arm, PNG and SVG, and SVG for the page.

Colours are Okabe & Ito's (2008), told apart with any colour vision; line styles and markers tell the arms apart in grey
print. matplotlib is imported by the functions that draw, because it costs most of a second.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.figures.fonts import FONT, with_font
from optsweep.report.figures.touch import Touch
from optsweep.report.styles import MOST_COLOURS
from optsweep.report.wording import plural, setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

INK, MUTED, GRID, PAPER, REST = "#1c2126", "#68707a", "#e2e6ea", "#fffffe", "#a2a9b1"
# Okabe–Ito; its black is the ink of the text, and its yellow, too light on white, is darkened
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c7a00", "#5b5f66")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (5, 1.4, 1, 1.4)), (0, (1.2, 1.2)), (0, (8, 1.6, 2, 1.6)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_WIDTH = 4.8  # inches; the page shows a figure about this wide on a phone and up to twice that on a screen
_FONT = 8.2
_DPI = 200  # text is some percent wider at another one, so figures are laid out at that of their files


@dataclass(frozen=True)
class Drawing:
    """A figure to put on the page: its SVG, what it shows, how to read it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    wide: bool = False
    touch: Touch | None = None


@dataclass(frozen=True)
class FigurePlan:
    """A figure that a group has data for, not drawn yet."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Figure]
    wide: bool = False
    touch: Touch | None = None  # the same curves as numbers, for a page that is looked at with a pointer


def colour(arm: ArmResult) -> str:
    """The arm's colour, the same in every figure of a report; grey of those beyond the colours."""
    return REST if is_rest(arm) else COLOURS[arm.style]


def is_rest(arm: ArmResult) -> bool:
    """Whether it is one of many arms that are neither a baseline nor among the best."""
    return arm.style >= MOST_COLOURS


def line(arm: ArmResult) -> Any:
    """The arm's line style."""
    return "-" if is_rest(arm) else _LINES[arm.style % len(_LINES)]


def weight(arm: ArmResult) -> dict[str, Any]:
    """How an arm's line stands out of many: those without a colour are thin and lie below."""
    return {"linewidth": 0.8, "zorder": 1.5} if is_rest(arm) else {"linewidth": 1.7}


def marker(arm: ArmResult) -> str:
    """The arm's marker."""
    return _MARKERS[arm.style % len(_MARKERS)]


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings for a figure, whatever the user's own are."""
    import matplotlib

    settings: Any = {
        "font.family": FONT,
        "font.size": _FONT,
        "axes.titlesize": _FONT + 0.5,
        "axes.titlelocation": "left",
        "axes.titlepad": 5,
        "axes.titley": 1.0,  # else every layout and every drawing looks for ticks above, which there are none of
        "axes.labelsize": _FONT,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "text.color": INK,
        "text.parse_math": False,  # a "$" in an arm's name is a dollar
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.fontsize": _FONT,
        "legend.handlelength": 2.6,
        "lines.linewidth": 1.7,
        "lines.markersize": 5,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "svg.fonttype": "none",  # text stays text: sharp, searchable, read aloud
        "pdf.fonttype": 42,  # TrueType, embedded; journals refuse matplotlib's default of Type 3
        "svg.hashsalt": "optsweep",  # the same figure gives the same bytes
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def shared_labels(figure: Figure, x: str, y: str) -> None:
    """One label for the x axes and one for the y axes of small multiples."""
    figure.supxlabel(x, fontsize=_FONT)
    figure.supylabel(y, fontsize=_FONT)


def blank(height: float = 3.2, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure of the page's width and its axes, row by row."""
    from optsweep.report.figures.shown import ShownFigure, TickNumbers

    figure = ShownFigure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).ravel())
    for axis in (axis for ax in axes for axis in (ax.xaxis, ax.yaxis)):
        axis.set_major_formatter(TickNumbers())
    return figure, axes


def only_outer_labels(axes: Sequence[Axes], count: int, columns: int) -> None:
    """Of small multiples that share their x axis, labels below the lowest of each column; the last may be empty."""
    for place, ax in enumerate(axes):
        ax.set_visible(place < count)
        ax.tick_params(labelbottom=count - columns <= place < count)


def short(text: str, length: int = 44) -> str:
    """A label that fits; a leading underscore would hide it from matplotlib's legends."""
    text = text if len(text) <= length else f"{text[: length - 1]}…"
    return f"\u200b{text}" if text.startswith("_") else text


def labels(arms: Sequence[ArmResult], length: int = 44, room: int | None = None) -> list[str]:
    """Arms' labels, cut at `length`; where one is longer than `room`, or `length`, without what all of them share.

    Where that leaves some too long, arms of one recipe each go by its name.
    """
    full = [arm.label for arm in arms]
    if max(map(len, full)) > (room or length):
        parts = [text.split(" + ") for text in full]
        shared = set(parts[0]).intersection(*parts)
        told = [" + ".join(part for part in own if part not in shared) for own in parts]
        if all(told) and len(set(told)) == len(set(full)):
            full = told
    recipes = [arm.arm.choices.get("recipe", "") for arm in arms]
    if max(map(len, full)) > length and all(recipes) and len(set(recipes)) == len(arms):
        full = recipes
    return [short(text, length) for text in full]


def slug(text: str) -> str:
    """Part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "other"


def legend_height(arms: Sequence[ArmResult]) -> float:
    """Inches that a legend of these arms takes beyond its first row."""
    texts = _legend(arms)
    return 0.165 * (math.ceil(len(texts) / legend_columns(list(texts))) - 1)


def legend_columns(texts: Sequence[str]) -> int:
    """Columns of a legend that fit beside each other."""
    return max(min(68 // (max(map(len, texts)) + 7), len(texts)), 1)


def _legend(arms: Sequence[ArmResult]) -> dict[str, ArmResult]:
    """What a legend has: each arm, and all that are grey in one entry."""
    held = [arm for arm in arms if not is_rest(arm)]
    rest = [arm for arm in arms if is_rest(arm)]
    texts = labels(held, room=24 if len(held) > 6 else 44) if held else []  # many rows take the place of the curves
    return dict(zip(texts, held, strict=True)) | ({plural(len(rest), "other arm"): rest[0]} if rest else {})


def legend(figure: Figure, arms: Sequence[ArmResult], *, markers: bool = False) -> None:
    """A legend of arms above the axes, in as many columns as fit."""
    from matplotlib.lines import Line2D

    entries = _legend(arms)
    handles = [
        Line2D(
            [],
            [],
            color=colour(arm),
            linestyle="" if markers else line(arm),
            marker=marker(arm) if markers else "",
            linewidth=weight(arm)["linewidth"],
        )
        for arm in entries.values()
    ]
    texts = list(entries)
    look: Any = {"columnspacing": 1.6, "borderaxespad": 0.2}
    figure.legend(handles, texts, loc="outside upper left", ncols=legend_columns(texts), **look)


def log_ticks(axis: Any) -> None:
    """Plain labels on a log axis, 1e-3 as in a config, and 3 between where it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if low > 0 else 3
    subs = (1.0,) if decades > 2.4 else (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: setting(value)))
    axis.set_minor_locator(NullLocator())  # a hundred tick objects per panel, whose drawing takes longest of all


def loss_label(group: Group, split: str) -> str:
    """Label of an axis of what decides, the loss with its unit or a metric."""
    unit, measure = group.baseline.unit, group.baseline.measure
    return f"{split} {measure} ({unit})" if unit else f"{split} {measure}"


def save(plan: FigurePlan, prefix: str, folder: Path, *, pdf: bool = False) -> Drawing:
    """Draw and write PNG, SVG and perhaps PDF; the page's copy of the SVG takes its colours and font from the page."""
    name = f"{prefix}{plan.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        figure = plan.draw()
        if (layout := figure.get_layout_engine()) is not None:
            # once for both files; savefig would draw each of them twice to lay it out, which is half of the time
            _lay_out(figure, layout)
            figure.set_layout_engine(None)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": "optsweep", "Title": plan.title}
        )
        quick: Any = {"compress_level": 3}  # half of the default's time, for a tenth more bytes
        figure.savefig(folder / f"{name}.png", dpi=_DPI, metadata={"Software": "optsweep"}, pil_kwargs=quick)
        if pdf:
            stamps: Any = {"CreationDate": None, "Creator": "optsweep", "Title": plan.title}
            figure.savefig(folder / f"{name}.pdf", dpi=_DPI, metadata=stamps)
    (folder / f"{name}.svg").write_text(with_font(text.getvalue()), encoding="utf-8")
    svg = inline(text.getvalue(), name, plan.alt)
    return Drawing(name, plan.title, plan.caption, plan.alt, svg, plan.wide, plan.touch)


def _lay_out(figure: Figure, layout: LayoutEngine) -> None:
    """Place the axes. One without tick labels takes no room; unmeasured, in twenty panels, it saves half the time."""
    bare = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) if axis.get_visible() and not _has_text(axis)]
    for axis in bare:
        axis.set_visible(False)
    layout.execute(figure)
    for axis in bare:
        axis.set_visible(True)


def _has_text(axis: Axis) -> bool:
    """Whether it has numbers, on whichever side, or a label; those of a colour bar are on the right."""
    params = axis.get_tick_params()
    return bool(axis.get_label_text()) or any(params.get(f"label{side}") for side in ("bottom", "top", "left", "right"))


def inline(svg: str, name: str, alt: str) -> str:
    """An SVG document as an element of an HTML page: own ids, size from the page, colours that follow its theme."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<title>.*?</title>", "", body, count=1, flags=re.DOTALL)
    # ids have to be unique in a page, and matplotlib numbers them anew in each figure
    key = re.sub(r"[^A-Za-z0-9]+", "-", name)
    body = re.sub(r'\bid="([^"]*)"', rf'id="{key}-\1"', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", body)
    for value, variable in _THEME.items():
        body = body.replace(value, f"var({variable})")
    view = re.search(r'viewBox="[^"]*"', body)
    opening = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view.group(0) if view else ""} role="img" '
    opening += f'aria-label="{_attribute(alt)}">'
    return re.sub(r"<svg\b[^>]*>", lambda _: opening, body, count=1)


_THEME = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--card", REST: "--rest"} | {
    value: f"--arm-{place}" for place, value in enumerate(COLOURS)
}


def _attribute(text: str) -> str:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text
