"""What arms are called in figures, where there is little room."""

from __future__ import annotations

from hand_figures import group, made
from optsweep.report.figures import canvas


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
