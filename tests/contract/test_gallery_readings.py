"""The gallery's readings: "held" only where an interval says so, "the reverse" where the opposite is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import gallery_readings as readings
import pytest

from hand_results import LESS, SAME, arm, comparison, group, results, two
from optsweep.inference import statistics


def said(found: Mapping[str, Any], kind: str, **options: Any) -> tuple[str, str]:
    """(held, sentence) of a reading with one answer."""
    (answer,) = readings.answers(found, [{"kind": kind, **options}])
    return answer.held.value, answer.sentence


MUON, ADAMW = {"optimizer": "muon"}, {"optimizer": "adamw"}


# -- losses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "held"),
    [(LESS, "held"), ([-d for d in LESS], "did not hold; the reverse"), (SAME, "not shown"), ([-1.0], "not shown")],
)
def test_lower_holds_only_if_the_interval_says_so(differences: list[float], held: str) -> None:
    found = two(differences)
    outcome, sentence = said(found, "lower", lower=MUON, higher=ADAMW)
    assert outcome == held
    if len(differences) > 1:
        test = statistics.paired_t(differences)
        assert test.low is not None
        assert f"{test.low:+.2f}".replace("-", "−")[:4] in sentence
        assert "6 seeds" in sentence


def test_lower_turns_round_with_its_arms() -> None:
    assert said(two(LESS), "lower", lower=ADAMW, higher=MUON)[0] == "did not hold; the reverse"


def test_lower_of_arms_that_the_report_does_not_compare_is_tested_here() -> None:
    found = two(LESS)
    found["groups"][0]["comparisons"] = []
    outcome, sentence = said(found, "lower", lower=MUON, higher=ADAMW)
    assert outcome == "held"
    assert "95 % interval of the difference −1.0" in sentence


def test_an_interval_that_the_correction_takes_back_is_not_held() -> None:
    found = two([-1.0, -0.2, -0.9, 0.0, -0.6, -0.1])
    held = found["groups"][0]["comparisons"][0]
    assert held["paired_t"]["p"] < 0.05
    held.update(p_holm=0.2, outcome="no difference shown")
    outcome, sentence = said(found, "lower", lower=MUON, higher=ADAMW)
    assert outcome == "not shown"
    assert "p = 0.20 after Holm's correction" in sentence


@pytest.mark.parametrize(("lost", "held"), [(5, "held"), (1, "not shown")])
def test_shares_of_diverged_seeds_decide_where_losses_cannot(lost: int, held: str) -> None:
    base = [1.0, 1.1, 1.2, 1.3, 1.4]
    losses = [None if seed < lost else loss + SAME[seed] for seed, loss in enumerate(base)]
    found = results(group(arm("adamw", base), arm("muon", losses)))
    outcome, sentence = said(found, "lower", lower=ADAMW, higher=MUON)
    assert outcome == held
    assert f"muon diverged on {lost} of 5 seeds" in sentence
    if lost == 5:
        assert said(found, "lower", lower=MUON, higher=ADAMW)[0] == "did not hold; the reverse"


def test_order_is_held_in_part_if_one_step_is_not_shown() -> None:
    a, b = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95], [2.0, 2.2, 1.9, 2.1, 2.0, 1.95]
    c = [loss + noise for loss, noise in zip(b, SAME, strict=True)]
    found = results(group(*(arm(name, losses) for name, losses in (("a", a), ("b", b), ("c", c)))))
    arms = [{"optimizer": name} for name in "abc"]
    outcome, sentence = said(found, "ordered", arms=arms)
    assert outcome == "held in part"
    assert "a ends lower than b" in sentence
    assert "No difference between b and c is shown" in sentence
    assert said(found, "ordered", arms=arms[1::-1])[0] == "did not hold; the reverse"


def test_same_needs_equal_seeds_or_an_interval_inside_the_bound() -> None:
    equal, apart, close = two([0.0] * 6), two(LESS), two(SAME)
    assert said(equal, "same", first=MUON, second=ADAMW)[0] == "held"
    assert said(apart, "same", first=MUON, second=ADAMW)[0] == "did not hold"
    assert said(close, "same", first=MUON, second=ADAMW)[0] == "not shown"
    assert said(close, "same", first=MUON, second=ADAMW, metric=True, within=0.01)[0] == "held"
    assert said(apart, "same", first=MUON, second=ADAMW, metric=True, within=0.001)[0] == "did not hold"


# -- cost, learning rates ----------------------------------------------------------------------------------------------


def ratio(estimate: Any, low: Any, high: Any) -> dict[str, Any]:
    return {"estimate": estimate, "low": low, "high": high, "n": 6}


def test_steps_and_time_hold_if_their_interval_is_below_one() -> None:
    found = two(LESS, steps_ratio=ratio(0.5, 0.4, 0.6), steps_ratios=[0.5] * 6, time_ratio=1.8)
    outcome, sentence = said(found, "fewer_steps", candidate=MUON, published=0.6)
    assert outcome == "held"
    assert "0.5× the steps (median; 95 % interval 0.4 to 0.6; 6 seeds); published: 0.6×, inside" in sentence
    assert said(found, "less_time", candidate=MUON)[0] == "not shown"  # 0.72 to 1.08
    slow = two(LESS, steps_ratio=ratio(0.5, 0.4, 0.6), steps_ratios=[0.5] * 6, time_ratio=3.0)
    assert said(slow, "less_time", candidate=MUON)[0] == "did not hold; the reverse"
    few = two(LESS, steps_ratio=ratio(0.5, None, None), steps_ratios=[0.5] * 3)
    assert said(few, "fewer_steps", candidate=MUON)[0] == "not shown"


def test_infinity_is_a_text_in_results() -> None:
    found = two(LESS, steps_ratio=ratio("inf", 1.1, "inf"), steps_ratios=[0.9, 1.2, "inf", "inf", "inf", "inf"])
    outcome, sentence = said(found, "fewer_steps", candidate=MUON)
    assert outcome == "did not hold; the reverse"
    assert "on 2 of 6 seeds" in sentence


def test_ratios_of_two_settings_are_told_apart_by_their_intervals() -> None:
    def at(size: str, interval: Mapping[str, Any]) -> dict[str, Any]:
        held = comparison("muon", "adamw", LESS, steps_ratio=interval)
        setting = {"task": "digits", "task.batch_size": size}
        return group(arm("adamw", LESS), arm("muon", LESS), comparisons=[held], setting=setting, title=f"batch {size}")

    options = {"candidate": MUON, "small": {"task.batch_size": 16}, "large": {"task.batch_size": 64}}
    small, large, near = at("16", ratio(0.8, 0.7, 0.9)), at("64", ratio(0.5, 0.4, 0.6)), at("64", ratio(0.7, 0.6, 0.8))
    assert said(results(small, large), "more_with", **options)[0] == "held"
    assert said(results(small, near), "more_with", **options)[0] == "not shown"
    (one, other) = readings.answers(results(small, large), [{"kind": "fewer_steps", "candidate": MUON}])
    assert one.sentence.startswith("On batch 16: ")
    assert other.sentence.startswith("On batch 64: ")


def test_a_step_is_quicker_if_quartiles_lie_apart() -> None:
    def timed(low: float, high: float) -> dict[str, Any]:
        return {"timing": {"ms_per_step": (low + high) / 2, "low": low, "high": high, "n": 5}}

    apart = results(group(arm("adamw", LESS, **timed(1.0, 1.2)), arm("muon", LESS, **timed(2.0, 2.2))))
    close = results(group(arm("adamw", LESS, **timed(1.0, 1.2)), arm("muon", LESS, **timed(1.1, 1.4))))
    assert said(apart, "quicker_step", quicker=ADAMW, slower=MUON)[0] == "held"
    assert said(apart, "quicker_step", quicker=MUON, slower=ADAMW)[0] == "did not hold; the reverse"
    assert said(close, "quicker_step", quicker=ADAMW, slower=MUON)[0] == "not shown"


def test_state_is_counted() -> None:
    found = results(group(arm("adamw", LESS, state_bytes=2048.0), arm("muon", LESS, state_bytes=1024.0)))
    outcome, sentence = said(found, "smaller_state", smaller=MUON, larger=ADAMW)
    assert outcome == "held"
    assert "0.5× the bytes of adamw's (1 KiB against 2 KiB" in sentence
    assert said(found, "smaller_state", smaller=MUON, larger=MUON)[0] == "did not hold"


def basin(decades: float, *, cut: bool = False) -> dict[str, Any]:
    held = {"decades": decades, "low": 0.01, "high": 0.01 * 10**decades, "cut_low": False, "cut_high": cut}
    return {"lr_basin": held}


@pytest.mark.parametrize(
    ("wide", "narrow", "held"),
    [
        (basin(1.5, cut=True), basin(0.5), "held"),
        (basin(0.7), basin(0.5), "not shown"),  # less than two distances of 3 decades / 20
        (basin(1.5), basin(0.5, cut=True), "not shown"),  # the narrower one may be as wide
        (basin(0.5), basin(1.5), "did not hold; the reverse"),
        ({}, basin(1.5), "not shown"),
    ],
)
def test_a_basin_counts_beyond_the_distance_of_its_points(
    wide: dict[str, Any], narrow: dict[str, Any], held: str
) -> None:
    found = results(group(arm("adamw", LESS, **narrow), arm("muon", LESS, **wide)))
    outcome, sentence = said(found, "wider_basin", wider=MUON, narrower=ADAMW)
    assert outcome == held
    assert ("≥ 1.50 decades of muon" in sentence) == bool(wide and wide["lr_basin"]["cut_high"])


# -- over the run, over run lengths, over tasks ------------------------------------------------------------------------


def test_a_flip_counts_if_the_end_is_told_apart() -> None:
    found = two(LESS)
    assert said(found, "flips")[0] == "not shown"
    found["groups"][0]["comparisons"][0]["last_flip"] = {"step": 80, "num_steps": 100}
    outcome, sentence = said(found, "flips")
    assert outcome == "held"
    assert "muon (until step 80 of 100)" in sentence
    found["groups"][0]["comparisons"][0]["outcome"] = "no difference shown"
    assert said(found, "flips")[0] == "not shown"


def test_a_frontier_is_followed_where_every_length_says_so() -> None:
    def frontier(*points: tuple[float, float]) -> dict[str, Any]:
        held = [
            {
                "num_steps": 100 * (k + 1),
                "paired_t": asdict(statistics.paired_t([m + 0.01 * d for d in SAME])),
                "side": "not shown to differ" if p >= 0.05 else "below" if m < 0 else "above",
            }
            for k, (m, p) in enumerate(points)
        ]
        lengths = {
            "baseline": "cosine",
            "confidence": 0.95,
            "frontier": [{"label": "free", "num_steps": 800, "differences": held}],
        }
        return results(group(arm("adamw", LESS)), run_lengths=[lengths])

    assert said(frontier((-1, 0.001), (-1, 0.001)), "on_frontier")[0] == "held"
    assert said(frontier((-1, 0.001), (0, 0.9)), "on_frontier")[0] == "held in part"
    assert said(frontier((1, 0.001), (0, 0.9)), "on_frontier")[0] == "did not hold; the reverse"
    assert said(results(group(arm("adamw", LESS))), "on_frontier")[0] == "not shown"


def over(outcomes: Mapping[str, int], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    tasks = {
        "baseline": "adamw",
        "confidence": 0.95,
        "arms": [
            {"label": "adamw", "outcomes": {}, "mean_rank": theirs},
            {"label": "muon", "outcomes": outcomes, "mean_rank": ours},
        ],
        "tasks": [{"group": "digits", "arms": ["adamw", "muon"]}] * 3,
    }
    return results(group(arm("adamw", LESS), arm("muon", LESS)), tasks=[tasks])


def test_tasks_are_counted_and_ranks_need_intervals_that_lie_apart() -> None:
    low, high, wide = ratio(1.2, 1.0, 1.5), ratio(1.8, 1.6, 2.0), ratio(1.8, 1.4, 2.0)
    found = over({"better": 3}, low, high)
    assert said(found, "over_tasks", candidate=MUON)[0] == "held"
    assert said(found, "ranked", above=MUON, below=ADAMW)[0] == "held"
    assert said(found, "ranked", above=ADAMW, below=MUON)[0] == "did not hold; the reverse"
    assert said(over({"better": 1, "worse": 1}, low, wide), "over_tasks", candidate=MUON)[0] == "held in part"
    assert said(over({"worse": 2}, low, wide), "over_tasks", candidate=MUON)[0] == "did not hold; the reverse"
    assert said(over({}, low, wide), "ranked", above=MUON, below=ADAMW)[0] == "not shown"


def test_arms_are_found_by_their_choices_or_named_as_missing() -> None:
    with pytest.raises(ValueError, match="0 arms of digits have"):
        said(two(LESS), "lower", lower={"optimizer": "soap"}, higher=ADAMW)
    with pytest.raises(ValueError, match="2 arms of digits have"):
        said(two(LESS), "lower", lower={}, higher=ADAMW)
    with pytest.raises(ValueError, match="there is no reading 'lowest'"):
        readings.answers(two(LESS), [{"kind": "lowest"}])
    number = two(LESS)
    number["groups"][0]["arms"][1]["choices"] = {"optimizer.lr": "1e-1"}
    assert said(number, "lower", lower={"optimizer.lr": 0.1}, higher=ADAMW)[0] == "held"


# -- trends ------------------------------------------------------------------------------------------------------------


def over_steps(per_doubling: float) -> dict[str, Any]:
    """A candidate whose share of the baseline's steps grows by a factor per doubling, with noise over four searches."""
    noise = (0.98, 1.01, 1.02, 0.99)
    groups = []
    for place, steps in enumerate((100, 200, 400)):
        ratios = [0.3 * per_doubling**place * factor ** (place - 1) for factor in noise]
        more = {"steps_ratios": ratios, "steps_ratio": asdict(statistics.ratio_interval(ratios))}
        groups.append(
            group(
                arm("adamw", LESS),
                arm("muon", LESS),
                comparisons=[comparison("muon", "adamw", SAME, **more)],
                setting={"task": "digits", "trainer.steps": str(steps)},
            )
        )
    return results(*groups)


@pytest.mark.parametrize(
    ("per_doubling", "outcome"), [(1.5, "held"), (0.7, "did not hold; the reverse"), (1.0, "not shown")]
)
def test_a_lead_shrinks_where_the_share_of_steps_grows(per_doubling: float, outcome: str) -> None:
    held, sentence = said(over_steps(per_doubling), "lead_shrinks", candidate=MUON, over="trainer.steps")
    assert held == outcome
    assert f"Per doubling that changes by × {per_doubling:.3g}" in sentence


def test_a_lead_without_ratios_has_no_trend() -> None:
    found = over_steps(1.5)
    found["groups"][0]["comparisons"][0]["steps_ratios"][0] = "inf"
    assert said(found, "lead_shrinks", candidate=MUON, over="trainer.steps")[0] == "not shown"


@pytest.mark.parametrize(("power", "held"), [(-1.0, "held"), (0.2, "did not hold")])
def test_the_power_by_which_a_chosen_product_goes(power: float, held: str) -> None:
    groups = []
    for steps in (100, 200, 400):
        lrs = [0.01 * noise * (steps / 100) ** power for noise in (1.0, 1.1, 0.9, 1.05)]
        chosen = [{"params": {"lr": lr, "weight_decay": 0.5}} for lr in lrs]
        one = arm("adamw", LESS, chosen=chosen[0], chosen_again=chosen[1:])
        groups.append(group(one, setting={"task": "digits", "trainer.steps": str(steps)}))
    options = {"keys": ["lr", "weight_decay"], "over": "trainer.steps", "near": -1.0, "within": 0.5}
    outcome, sentence = said(results(*groups), "chosen_slope", **options)
    assert outcome == held
    assert f"steps to the power {power:.2f}".replace("-", "−") in sentence


@pytest.mark.parametrize(("p", "held"), [(0.001, "did not hold"), (0.4, "not shown")])
def test_effects_that_interact_do_not_add_up(p: float, held: str) -> None:
    crossed = {"interaction": {"p": p}, "confidence": 0.95, "sentences": ["One.", "Two."]}
    assert said({**results(group(arm("adamw", LESS))), "across": {"factorials": [crossed]}}, "adds_up") == (
        held,
        "One. Two.",
    )


@pytest.mark.parametrize(
    ("stable_from", "low", "high", "held"),
    [
        ([2, 4, 8], 0.7, 22, "not shown"),
        ([2, 3, 2], 1.3, 4.1, "held"),
        ([28, 31, 30], 26, 34, "did not hold"),
        ([4, 4, 4], None, None, "held"),
        ([4, 4, "inf"], None, None, "not shown"),
    ],
)
def test_an_order_is_stable_by_a_trial_only_if_the_interval_says_so(
    stable_from: list[Any], low: float | None, high: float | None, held: str
) -> None:
    after = {"estimate": 4.0, "low": low, "high": high, "n": 3}
    over = {"sentence": "From trial 4 on.", "stable_after": after, "stable_from": stable_from}
    found = results(group(arm("adamw", LESS), ranking_over_trials=over))
    assert said(found, "stable_by", trials=16) == (held, "From trial 4 on.")


def test_without_arms_that_are_told_apart_no_order_is_stable() -> None:
    found = results(group(arm("adamw", LESS), ranking_over_trials=None))
    assert said(found, "stable_by", trials=16)[0] == "not shown"


def test_over_several_searches_a_pair_is_a_search() -> None:
    found = two(LESS)
    for held in found["groups"][0]["arms"]:
        for trial in held["confirm"]:
            trial["seed"] = trial["seed"] // 2 * 1_000_000 + trial["seed"] % 2
    found["groups"][0]["comparisons"] = []
    assert "paired over 3 searches" in said(found, "lower", lower=MUON, higher=ADAMW)[1]
    assert "; 3 searches)" in said(found, "same", first=MUON, second=ADAMW)[1]
