"""What figures say: names of arms where there is little room, captions that are true of what is drawn."""

from __future__ import annotations

import pytest

from hand_figures import WARMED, confirmed, group, known, made
from optsweep.report.figures import canvas, crossed, learning_rate


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
