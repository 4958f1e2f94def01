"""What figures say: names of arms where there is little room, captions that are true of what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hand_figures import WARMED, confirmed, group, known, made
from optsweep.report.figures import canvas, crossed, learning_rate, outcome
from optsweep.tracking.schema import Timing


def test_labels_keep_what_tells_arms_apart() -> None:
    long = [made({"optimizer.lr": lr}, [], f"adamw + cosine + lr={lr}") for lr in ("0.1", "1")]
    arms = group(*long).arms
    assert canvas.labels(arms) == ["adamw + cosine + lr=0.1", "adamw + cosine + lr=1"]
    assert canvas.labels(arms, 20) == ["lr=0.1", "lr=1"]
    assert canvas.labels(arms[:1], 12) == ["adamw + cos…"]
    by_recipe = group(
        *(made({"recipe": name}, [], f"{name} with a long warm-up") for name in ("lion_cosine", "muon_wsd"))
    ).arms
    assert canvas.labels(by_recipe, 12) == ["lion_cosine", "muon_wsd"]
    assert canvas.labels(by_recipe)[0] == "lion_cosine with a long warm-up"


def test_a_grid_says_of_how_many_runs_a_cell_is() -> None:
    pairs = [(optimizer, schedule) for optimizer in ("adamw", "lion") for schedule in ("cosine", "wsd")]
    arms = [made({"optimizer": one, "schedule": other}, confirmed(1.0, 1.1)) for one, other in pairs]
    (plan,) = crossed.plans(group(*arms))
    assert plan.caption.endswith("n = 2 seeds per arm.")


def test_a_logarithmic_axis_ends_where_the_drawn_one_does_and_the_curves_go_on() -> None:
    (plan,) = learning_rate.plans(group(known("wsd", WARMED), known("cosine", [1.0, 0.5, 1e-7])))
    assert plan.touch is not None
    held = plan.touch.as_json({line.arm: 0 for line in plan.touch.lines})
    assert held["floor"] == pytest.approx(0.1 / 100)
    assert min(value for value in held["lines"][1]["y"] if value is not None) == pytest.approx(1e-8)


@pytest.mark.filterwarnings("error")
def test_a_wide_whisker_leaves_room_for_its_number_within_its_panel(tmp_path: Path) -> None:
    arms = [
        made({"optimizer": name}, confirmed(1.0, 1.1), name, timing=Timing(1.0, 0.9, high, 5))
        for name, high in (("adamw", 1.1), ("soap", 9.0))
    ]
    (plan,) = [plan for plan in outcome.plans(group(*arms)) if plan.name == "cost"]
    figure = plan.draw()
    canvas.save(replace(plan, draw=lambda: figure), "", tmp_path)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        panel = axes.get_window_extent(renderer)
        assert all(text.get_window_extent(renderer).x1 <= panel.x1 + 1 for text in axes.texts)
