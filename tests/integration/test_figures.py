"""Every figure of a group on hand-made sweeps: drawn when there is data, absent when not, whatever the data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from hand_figures import (
    DIVERGED,
    HOSTILE,
    MANY,
    VALLEY,
    WARMED,
    both,
    confirmed,
    descents,
    group,
    known,
    made,
    modes,
    rates,
    scheduled,
    searched,
    trial,
    warmups,
)
from optsweep.report import write
from optsweep.report.comparison import Group
from optsweep.report.figures import (
    canvas,
    crossed,
    curves,
    decay_modes,
    grid,
    heat,
    importance,
    learning_rate,
    lr_response,
    outcome,
    paths,
    schedules,
    search,
)
from optsweep.tracking import names
from optsweep.tracking.reader import ArmRecord, Curve
from optsweep.tracking.schema import Timing
from optsweep.train.trial import Phase


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    """A drawn figure is looked at under the settings that it was drawn with: its numbers are placed anew."""
    with canvas.style():
        yield


def crossings(*optimizers: str, losses: Sequence[float] = (1.0, 1.1), **choices: str) -> list[ArmRecord]:
    """Arms of each of three schedules, later ones somewhat worse; of the last, one seed diverged."""
    return [
        made(
            {"optimizer": optimizer, "schedule": schedule, **choices},
            confirmed(
                *(loss + 0.1 * row + 0.01 * column for loss in losses), *([math.inf] if row + column > 2 else [])
            ),
        )
        for row, optimizer in enumerate(optimizers)
        for column, schedule in enumerate(("cosine", "wsd", "linear"))
    ]


CASES: list[tuple[str, Callable[[Group], list[canvas.FigurePlan]], list[ArmRecord], list[str]]] = [
    ("search", search.plans, both(), ["lr_sensitivity", "lr_momentum"]),
    ("search of many trials", search.plans, both(losses=MANY), ["lr_sensitivity", "lr_momentum", "tuning"]),
    ("decay", search.plans, both("weight_decay", log=True), ["lr_sensitivity", "lr_decay"]),
    ("odd key", search.plans, both("Odd/K\u00e9y"), ["lr_sensitivity", "lr_odd_k_y"]),
    ("one key", search.plans, warmups(["0"]), ["lr_sensitivity"]),
    ("heat of a search", heat.plans, warmups(), ["heat_warmup_steps"]),
    ("heat of one row", heat.plans, warmups(["0"]), []),
    (
        "heat of a grid",
        heat.plans,
        [a for w in "012" for a in rates("adamw", (1.0, 1.1), (0.5,), (math.inf,), **{"warmup.steps": w})],
        ["heat_warmup_steps"],
    ),
    (
        "kind of warm-up",
        heat.plans,
        [made({}, searched(VALLEY)), made({"warmup": "linear"}, searched(VALLEY))],
        ["heat_warmup"],
    ),
    (
        "words as an axis",
        heat.plans,
        [made({"schedule.anneal": word}, searched(VALLEY)) for word in ("linear", "cosine")],
        ["heat_anneal"],
    ),
    (
        "batch size",
        heat.plans,
        [made({"task.batch_size": word}, searched(VALLEY)) for word in ("1", "32", "full")],
        ["heat_batch_size"],
    ),
    (
        "another task",
        heat.plans,
        [made({"task.surface": word}, searched(VALLEY)) for word in ("valley", "beale")],
        [],
    ),
    (
        "heat where all diverged",
        heat.plans,
        [a for w in "01" for a in rates("sgd", (math.inf,), (math.inf,), **{"warmup.steps": w})],
        [],
    ),
    ("modes", decay_modes.plans, modes("none", "l2", "decoupled", "independent"), ["decay_modes"]),
    ("one seed", decay_modes.plans, modes("none", "l2", losses=(1.0,)), ["decay_modes"]),
    ("one mode", decay_modes.plans, modes("l2"), []),
    ("diverged modes", decay_modes.plans, modes("none", "l2", losses=(math.inf,)), []),
    ("no confirm trials", decay_modes.plans, modes("none", "l2", losses=()), []),
    ("rates", lr_response.plans, rates("sgd", (3.0, 3.1), (1.0, 1.2), (math.inf, 1.4), (math.inf,)), ["lr_response"]),
    ("rates of one seed", lr_response.plans, rates("sgd", (3.0,), (1.0,), (1e30,)), ["lr_response"]),
    ("two rates", lr_response.plans, rates("sgd", (3.0,), (1.0,)), []),
    ("diverging rates", lr_response.plans, rates("sgd", *[(math.inf,)] * 4), []),
    (
        "two families, one of which diverged",
        lr_response.plans,
        [*rates("adamw", (3.0,), (1.0,), (2.0,)), *rates("muon", *[(math.inf,)] * 3)],
        ["lr_response"],
    ),
    ("paths together", paths.plans, descents(2), ["paths"]),
    ("paths apart", paths.plans, descents(7), ["paths"]),
    ("rosenbrock", paths.plans, descents(1, "rosenbrock", [(-1.2, 1.0), (0.5, 0.2)]), ["paths"]),
    (
        "a path that leaves",
        paths.plans,
        descents(2, points=[(-9, 1.5), (-9, -7), (1e30, 0), (math.nan, 0)]),
        ["paths"],
    ),
    ("a path of NaN", paths.plans, descents(1, points=[(-9, 1.5), (math.nan, math.nan)]), ["paths"]),
    ("a path from nowhere", paths.plans, descents(1, points=[(1e9, 1e9), (1e9, 1e9)]), ["paths"]),
    ("an unknown surface", paths.plans, descents(2, "sphere"), []),
    ("no path", paths.plans, modes("none", "l2"), []),
    ("schedules", schedules.plans, scheduled("cosine", "linear", "wsd", "step"), ["schedules"]),
    ("schedules known and logged", schedules.plans, [known("wsd", WARMED), *scheduled("a", "plateau")], ["schedules"]),
    ("two schedules", schedules.plans, scheduled("cosine", "linear"), []),
    ("learning rates", learning_rate.plans, [known("wsd", WARMED), *scheduled("plateau")], ["learning_rate"]),
    ("learning rates of 0", learning_rate.plans, scheduled("cosine", value=0.0), []),
    ("outcome", outcome.plans, modes("l2", "decoupled"), ["difference", "test_loss", "cost"]),
    ("schedules at rate 0", schedules.plans, scheduled("cosine", "linear", "wsd", value=0.0), []),
    ("a grid", crossed.plans, crossings("adamw", "lion", "soap"), ["grid"]),
    ("a grid of one row", crossed.plans, crossings("adamw"), []),
    ("a grid of few cells", crossed.plans, [*crossings("a")[:1], *crossings("b")[1:2], *crossings("c", "d")[2:4]], []),
    ("a grid without results", crossed.plans, crossings("adamw", "lion", losses=()), []),
    (
        "grids that differ in more",
        crossed.plans,
        [*crossings("adamw", "lion"), *crossings("adamw", "lion", averaging="ema")],
        ["grid"],
    ),
    ("importance", importance.plans, both(losses=MANY), ["importance"]),
    ("importance of few trials", importance.plans, both(), []),
    ("importance of one key", importance.plans, warmups(), []),
]


def saved(plan: canvas.FigurePlan, folder: Path) -> Figure:
    """The figure as its files show it."""
    drawn: list[Figure] = []

    def draw() -> Figure:
        drawn.append(plan.draw())
        return drawn[0]

    canvas.save(replace(plan, draw=draw), "", folder)
    return drawn[0]


def extent(text: Text, figure: Figure) -> tuple[float, float, float, float]:
    """Left, bottom, right and top in pixels."""
    box = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    return box.x0, box.y0, box.x1, box.y1


def numbers(axis: Axis) -> list[Text]:
    """The tick labels that are drawn: within the view, and not switched off."""
    low, high = sorted(axis.get_view_interval())
    place = 1 if isinstance(axis, YAxis) else 0
    held = [text for text in axis.get_ticklabels() if axis.get_visible() and text.get_visible() and text.get_text()]
    return [text for text in held if low <= text.get_position()[place] <= high]


def cut_off(axes: Axes, figure: Figure) -> list[str]:
    """Numbers, labels and titles that lie outside the picture."""
    width, height = figure.bbox.width, figure.bbox.height
    texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *numbers(axes.xaxis), *numbers(axes.yaxis)]
    found = []
    for text in texts if axes.get_visible() else []:
        left, bottom, right, top = extent(text, figure)
        if text.get_text() and (left < -1 or bottom < -1 or right > width + 1 or top > height + 1):
            found.append(text.get_text())
    return found


@pytest.mark.parametrize(("plans", "arms", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_drawn_where_there_is_data(
    plans: Callable[[Group], list[canvas.FigurePlan]], arms: list[ArmRecord], expected: list[str], tmp_path: Path
) -> None:
    found = plans(group(*arms))
    assert [plan.name for plan in found] == expected
    for plan in found:
        assert write._place(plan.name) >= 0
        assert plan.caption.endswith(".")
        assert not plan.alt.endswith("..")
        assert "nan" not in plan.alt.split()
        held = saved(plan, tmp_path)
        for axes in held.axes:
            assert not cut_off(axes, held)


@pytest.mark.parametrize(
    ("plans", "arms"),
    [
        (search.plans, both()),
        (heat.plans, warmups()),
        (decay_modes.plans, modes("none", "l2")),
        (lr_response.plans, rates("adamw", (3.0,), (1.0,), (2.0,))),
        (paths.plans, descents(7)),
        (schedules.plans, scheduled("a", "b", "c")),
        (importance.plans, both(losses=MANY)),
    ],
)
def test_any_name_is_safe_and_the_bytes_repeat(
    plans: Callable[[Group], list[canvas.FigurePlan]], arms: list[ArmRecord], tmp_path: Path
) -> None:
    strange = [
        replace(arm, label=f"{HOSTILE}{i}", choices={**arm.choices, "averaging": HOSTILE}) for i, arm in enumerate(arms)
    ]
    strange += [replace(arm, name=arm.name + HOSTILE, choices={**arm.choices, "averaging": "_$x"}) for arm in arms]
    found = plans(group(*strange))
    assert found
    for plan in found:
        first = canvas.save(plan, "a-", tmp_path)
        canvas.save(plan, "b-", tmp_path)
        assert "<b>" not in first.svg
        for kind in ("svg", "png"):
            assert (tmp_path / f"a-{plan.name}.{kind}").read_bytes() == (
                tmp_path / f"b-{plan.name}.{kind}"
            ).read_bytes()


def test_vector_files_carry_their_font(tmp_path: Path) -> None:
    (plan,) = [plan for plan in outcome.plans(group(*modes("none", "l2"))) if plan.name == "test_loss"]
    for prefix in "ab":
        drawing = canvas.save(plan, prefix, tmp_path, pdf=True)
    assert "@font-face" not in drawing.svg, "a page has its own"
    svg = (tmp_path / "atest_loss.svg").read_text()
    assert re.search(r'@font-face \{ font-family: "DejaVu Sans"; src: url\(data:font/woff;base64,', svg)
    pdf = (tmp_path / "atest_loss.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert pdf == (tmp_path / "btest_loss.pdf").read_bytes()


@pytest.mark.parametrize(
    ("plans", "arms", "name"),
    [(search.plans, both("weight_decay", log=True), "lr_decay"), (heat.plans, warmups(), "heat_warmup_steps")],
)
def test_a_colour_bar_has_numbers_and_a_label_with_its_unit_within_the_picture(
    plans: Callable[[Group], list[canvas.FigurePlan]], arms: list[ArmRecord], name: str, tmp_path: Path
) -> None:
    (plan,) = [plan for plan in plans(group(*arms)) if plan.name == name]
    held = saved(plan, tmp_path)
    bar = held.axes[-1]
    assert bar.get_ylabel() == "validation loss (nats)"
    assert len(numbers(bar.yaxis)) > 2
    assert not cut_off(bar, held)


def test_the_numbers_below_differences_do_not_run_into_each_other(tmp_path: Path) -> None:
    found = {"adamw": (1.0, 1.0, 1.0), "soap + schedule_free": (0.9828, 0.9847, 0.9866)}
    arms = [made({"optimizer": name}, confirmed(*losses), name) for name, losses in found.items()]
    (plan,) = [plan for plan in outcome.plans(group(*arms)) if plan.name == "difference"]
    assert len(numbers((held := saved(plan, tmp_path)).axes[0].xaxis)) > 2
    assert apart(held)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_names_below_an_axis_do_not_run_into_each_other(count: int, tmp_path: Path) -> None:
    called = ["adamw + wsd", "adamw + cosine", "momentum + wsd", "momentum + cosine"][-count:]
    arms = [made({"optimizer": name}, confirmed(1.0, 1.1), name) for name in called]
    (plan,) = [plan for plan in outcome.plans(group(*arms)) if plan.name == "test_loss"]
    assert apart(saved(plan, tmp_path))


def apart(figure: Figure) -> bool:
    """Whether there is room between any two of what stands below the first axis."""
    return all(a[2] + 2 < b[0] for a, b in pairwise(extent(text, figure) for text in numbers(figure.axes[0].xaxis)))


@pytest.mark.parametrize(("plans", "peak"), [(learning_rate.plans, 0.1), (schedules.plans, 1.0)])
def test_a_schedule_that_is_known_is_drawn_at_every_step_its_warm_up_included(
    plans: Callable[[Group], list[canvas.FigurePlan]], peak: float
) -> None:
    linear = [1 - step / 499 for step in range(500)]
    (plan,) = plans(group(known("wsd", WARMED), known("linear", linear), *scheduled("plateau")))
    drawn = [line for axes in plan.draw().axes for line in axes.lines]
    x, y = (np.asarray(values, dtype=float) for values in drawn[0].get_data())
    assert x.tolist() == list(range(500))
    np.testing.assert_allclose(y, peak * np.array(WARMED))
    assert y[0] == pytest.approx(peak / 20)
    assert np.asarray(drawn[2].get_xdata()).tolist() == list(range(9, 100, 10))  # logged, by the number of steps done
    assert "plateau" in plan.caption


def test_a_heat_map_says_where_the_lowest_cell_is() -> None:
    arms = [
        arm
        for row, length in enumerate(("0", "0.2"))
        for arm in rates(
            "adamw", (3.0, 3.2, 9.0), (2.0 - row, 2.0 - row), (math.inf, 1.0, math.inf), **{"warmup.steps": length}
        )
    ]
    (plan,) = heat.plans(group(*arms))
    assert "lowest, 1, at warm-up length 0.2 and learning rate 0.01" in plan.alt
    cells = heat._table(group(*arms).arms[:3], "warmup.steps", ["0"], [5e-4, 5e-3, 5e-2, 0.5], gridded=True)
    np.testing.assert_array_equal(cells, [[3.2, 2.0, math.inf]])  # medians; two of three diverged


def test_columns_of_a_heat_map_hold_every_trial() -> None:
    rates_tried = sorted(VALLEY)
    edges = heat._bins(rates_tried, len(rates_tried))
    assert edges[0] < rates_tried[0]
    assert rates_tried[-1] < edges[-1]
    between = heat._between([0.01, 0.1, 1.0])
    np.testing.assert_allclose(between, [10**-2.5, 10**-1.5, 10**-0.5, 10**0.5])


def test_families_are_named_by_what_tells_them_apart() -> None:
    held = group(*modes("none", "l2"), *rates("adamw", (1.0,))).arms
    assert set(grid.families(held, "weight_decay")) == {"sgd", "adamw + lr=0.001"}
    assert set(grid.families(held[:2], "weight_decay")) == {""}


@pytest.mark.parametrize(("lowest", "log"), [(1e-9, True), (0.5, False), (0.0, False)])
def test_losses_decades_apart_are_on_a_log_axis(lowest: float, log: bool) -> None:
    ends = [
        confirmed(end, curves={names.VAL_LOSS: Curve(np.array([0, 50, 100]), np.array([2.0, 1.0, end]))})
        for end in (lowest, 1.0)
    ]
    arms = [made({"optimizer": f"o{place}"}, trials) for place, trials in enumerate(ends)]
    (plan,) = [plan for plan in curves.plans(group(*arms)) if plan.name == "val_loss"]
    axes = plan.draw().axes[0]
    assert axes.get_yscale() == ("log" if log else "linear")
    assert ("log scale" in axes.get_ylabel()) is log


def test_a_loss_of_zero_is_a_loss() -> None:
    assert search.last_loss(trial(Phase.SEARCH, 0, 0.0)) == 0
    assert search.last_loss(trial(Phase.SEARCH, 0, math.nan)) == math.inf
    assert search.last_loss(trial(Phase.SEARCH, 0, 1.0, DIVERGED)) == math.inf


def test_a_schedule_is_shown_relative_to_the_arms_own_rate() -> None:
    steps = np.array([50, 100])
    logged = {names.LR: Curve(steps, np.array([0.05, 0.02]))}  # logged after the peak
    arm = made({"schedule": "inverse_sqrt"}, confirmed(1.0, curves=logged), fixed={"lr": 0.1})
    (shape,) = schedules._shapes(group(arm))
    np.testing.assert_allclose(shape.multiplier, [0.5, 0.2])


def test_a_rate_that_was_held_falls_right_after_the_point_that_held_it() -> None:
    logged = {names.LR: Curve(np.array([20, 40, 50, 60, 80]), np.array([0.1, 0.1, 0.1, 0.01, 0.01]))}
    arm = made({"schedule": "plateau"}, confirmed(1.0, curves=logged), fixed={"lr": 0.1})
    trace = learning_rate.applied(group(arm).arms[0])
    assert trace is not None
    assert trace.steps.tolist() == [19, 39, 49, 50, 59, 79]
    assert trace.rates.tolist() == [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]


def test_seconds_need_two_timed_arms() -> None:
    falling = {names.VAL_LOSS: Curve(np.array([0, 50, 100]), np.array([2.0, 1.5, 1.0]))}
    timed = [
        made({"optimizer": o}, confirmed(1.0, 1.1, curves=falling), timing=Timing(ms, ms, ms, 5))
        for o, ms in (("a", 1.0), ("b", 3.0))
    ]
    drawn = {plan.name: plan for plan in curves.plans(group(*timed))}
    assert "0.3 s" in drawn["val_loss_seconds"].alt
    assert "val_loss_seconds" not in {plan.name for plan in curves.plans(group(timed[0]))}
