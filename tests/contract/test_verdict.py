"""What the report says of made-up results: outcomes, caveats and partial sweeps, in words."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hand_verdicts import BASE, JITTER, arm, outcome, page, said, shifted, sweep, trial
from optsweep.report.comparison import Conclusion, compare
from optsweep.report.figures.canvas import FigurePlan, style
from optsweep.report.figures.curves import plans
from optsweep.report.table import table
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve, TrialRecord
from optsweep.tracking.schema import Chosen, RangeRecord, Timing
from optsweep.train.trial import Phase


def test_better_says_by_how_much_and_at_what_cost() -> None:
    v = said(arm("adamw", BASE), arm("soap", shifted(-0.1), timing=Timing(3.0, 2.9, 3.1, 50)))
    assert outcome(v) is Conclusion.BETTER
    assert "On charlm, soap is better than adamw: mean test loss lower by 0.100" in v.headline
    assert "95 % interval of the difference −0.10" in v.headline
    assert "paired over 8 seeds" in v.headline
    assert "1.5× the time (3 against 2 ms)" in v.headline


def test_worse() -> None:
    v = said(arm("adamw", BASE), arm("sgd", shifted(0.1)))
    assert outcome(v) is Conclusion.WORSE
    assert "sgd is worse than adamw" in v.headline


def test_no_difference_is_a_verdict() -> None:
    v = said(arm("adamw", BASE), arm("soap", shifted(0.0)))
    assert outcome(v) is Conclusion.NO_DIFFERENCE
    assert "no difference between soap and adamw is shown" in v.headline


def test_equal_within_delta() -> None:
    v = said(arm("adamw", BASE), arm("soap", shifted(0.0)), confirm={"seeds": 8, "delta": 0.05})
    assert outcome(v) is Conclusion.EQUAL
    assert "equal within ±0.05" in v.headline
    found = v.group.comparisons[0].test
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    widest = max(-found.low, found.high)
    inside = said(arm("adamw", BASE), arm("soap", shifted(0.0)), confirm={"seeds": 8, "delta": widest * 1.01})
    assert outcome(inside) is Conclusion.EQUAL
    outside = said(arm("adamw", BASE), arm("soap", shifted(0.0)), confirm={"seeds": 8, "delta": widest * 0.99})
    assert outcome(outside) is Conclusion.NO_DIFFERENCE


def test_tiny_losses_are_compared() -> None:
    tiny = [loss * 1e-17 for loss in BASE]
    assert outcome(said(arm("adamw", tiny), arm("soap", [loss * 1e-17 for loss in shifted(-0.1)]))) is Conclusion.BETTER


def test_unbracketed_arm_is_named_in_the_verdict() -> None:
    chosen = Chosen({"lr": 1e-3}, 2.0, 1, {"lr": {"low": True, "high": False}}, {}, ())
    v = said(arm("adamw", BASE, chosen=chosen), arm("soap", shifted(-0.1)))
    assert "adamw is not bracketed (lr on the high side)" in v.headline


@pytest.mark.parametrize("lost", [None, math.inf])
def test_an_arm_with_a_diverged_seed_is_never_better(lost: float | None) -> None:
    v = said(arm("adamw", BASE), arm("soap", [*shifted(-0.1)[:7], lost]))
    assert outcome(v) is Conclusion.UNTESTED
    assert "soap diverged on 1 of 8 seeds, so it can't be called better" in v.headline
    assert v.group.comparisons[0].test is not None
    assert v.group.comparisons[0].test.n == 7


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_finished_trial_without_a_finite_test_loss_counts_as_diverged(lost: float) -> None:
    soap = arm("soap", shifted(-0.1)[:7])
    v = said(arm("adamw", BASE), replace(soap, trials=(*soap.trials, trial("soap", 7, lost))))
    assert outcome(v) is Conclusion.UNTESTED
    assert "soap diverged on 1 of 8 seeds" in v.headline


def test_nor_is_a_baseline_with_one() -> None:
    v = said(arm("adamw", [None, *BASE[1:]]), arm("soap", shifted(0.1)))
    assert outcome(v) is Conclusion.UNTESTED
    assert "adamw ends lower on the seeds that both finished, but adamw diverged on 1 of 8 seeds" in v.headline


def test_a_diverging_arm_may_be_worse() -> None:
    v = said(arm("adamw", BASE), arm("sgd", [None, *shifted(0.1)[1:]]))
    assert outcome(v) is Conclusion.WORSE


CLOSE = [value + jitter for value, jitter in zip(BASE, [0.002, -0.002, 0.001, -0.001] * 2, strict=True)]


@pytest.mark.parametrize(
    ("adamw", "soap", "lost"),
    [
        (BASE, [None] * 3 + CLOSE[3:], "soap diverged on 3 of 8 seeds"),
        ([None] * 3 + BASE[3:], CLOSE, "adamw diverged on 3 of 8 seeds"),
        ([None, *BASE[1:]], [*CLOSE[:7], None], "soap diverged on 1 of 8 seeds and adamw diverged on 1 of 8 seeds"),
    ],
)
def test_equal_within_delta_is_never_said_of_an_arm_with_diverged_seeds(
    adamw: list[float | None], soap: list[float | None], lost: str
) -> None:
    assert outcome(said(arm("adamw", BASE), arm("soap", CLOSE), confirm={"seeds": 8, "delta": 0.1})) is Conclusion.EQUAL
    v = said(arm("adamw", adamw), arm("soap", soap), confirm={"seeds": 8, "delta": 0.1})
    assert outcome(v) is Conclusion.NO_DIFFERENCE
    assert v.group.comparisons[0].equal_p is None
    assert "equal within" not in v.text
    assert f"But {lost}, so they can't be called equal." in v.text
    shown = html.unescape(page(v))
    assert "equal within" not in shown
    assert f"But {lost}, so they can't be called equal." in shown


def test_where_every_arm_has_diverged_seeds_the_terminal_says_so() -> None:
    arms = [arm(name, [None, *shifted(by)[1:]]) for name, by in (("adamw", 0.0), ("soap", 0.001), ("lion", 0.002))]
    assert "adamw, soap and lion diverged on some seeds and are not ranked." in said(*arms).text


def test_zero_variance_gives_a_difference_without_interval() -> None:
    v = said(arm("adamw", [2.0] * 5), arm("soap", [1.75] * 5))
    assert outcome(v) is Conclusion.UNTESTED
    assert "lower by 0.25" in v.headline
    assert "interval" not in v.headline
    same = said(arm("adamw", BASE), arm("copy", BASE))
    assert "test loss equal" in same.headline


def test_one_seed() -> None:
    v = said(arm("adamw", [2.0]), arm("soap", [1.9]))
    assert "one seed of soap and adamw shows nothing yet" in v.headline
    assert any("Few seeds: 1 seed." in caveat for caveat in v.caveats)


def test_single_arm() -> None:
    v = said(arm("adamw", BASE))
    assert "there is one arm, adamw, so there is nothing to compare: its mean test loss is 2.000 nats" in v.headline
    assert v.ranking == ""


def test_only_diverged_trials() -> None:
    v = said(arm("adamw", [None] * 3), arm("soap", [None] * 3))
    assert "can't be compared yet" in v.headline
    assert "adamw: it diverged on all 3 seeds" in v.headline


def test_search_that_only_diverged() -> None:
    lost = tuple(trial("adamw", slot, None, Status.DIVERGED, phase=Phase.SEARCH) for slot in range(4))
    v = said(arm("adamw", trials=lost, chosen=None), seeds=3, search={"trials": 4})
    assert "all 4 search trials diverged" in v.headline
    assert not any("Partial" in caveat for caveat in v.caveats)  # there is nothing to confirm


def test_partial_sweep_says_what_is_missing() -> None:
    v = said(
        arm("adamw", BASE),
        arm("soap", BASE[:3]),
        arms=[{"name": name, "label": name} for name in ("adamw", "soap", "muon")],
    )
    assert "Partial: muon has not started." in v.caveats
    assert "Partial: soap still lacks 5 confirm trials." in v.caveats


def test_several_arms_are_corrected_and_a_lucky_lowest_is_not_named_alone() -> None:
    b = [loss + 0.001 for loss in shifted(-0.1)[::-1]]
    v = said(arm("adamw", BASE), arm("a", shifted(-0.1)), arm("b", b), arm("c", BASE))
    assert v.headline.startswith("On charlm (paired over 8 seeds), against adamw: ")
    assert "Holm-corrected" in v.headline
    assert "are those of a and b; no difference is shown between" in v.ranking
    p = v.group.comparisons[0]
    assert p.p_holm is not None
    assert p.test is not None
    assert p.test.p is not None
    assert p.p_holm > p.test.p


def test_a_clear_lowest_is_named() -> None:
    v = said(arm("adamw", BASE), arm("a", [*shifted(-0.3)[:7], 1.7]), arm("b", shifted(-0.1)))
    assert v.ranking.startswith("a's mean test loss is below that of every other arm")


def test_a_diverging_arm_is_not_ranked() -> None:
    v = said(arm("adamw", BASE), arm("a", [None, *shifted(-0.3)[1:]]), arm("b", shifted(-0.1)))
    assert v.ranking.startswith("b's mean test loss is below")
    assert "a diverged on some seeds and is not ranked" in v.ranking


def test_tasks_are_never_compared_with_each_other() -> None:
    arms = [
        arm(f"{o},{t}", BASE, label=o, choices={"task": t, "optimizer": o})
        for t in ("x", "y")
        for o in ("adamw", "soap")
    ]
    groups = compare([sweep(*arms)])
    assert [(g.title, g.baseline.name) for g in groups] == [("x", "adamw,x"), ("y", "adamw,y")]
    assert [a.style for g in groups for a in g.arms] == [0, 1, 0, 1]


def test_run_lengths_are_groups_unless_they_are_what_is_compared() -> None:
    def of(optimizer: str, steps: str) -> ArmRecord:
        choices = {"task": "x", "optimizer": optimizer, "trainer.steps": steps}
        return arm(f"{optimizer}{steps}", BASE, label=optimizer, choices=choices)

    both = compare([sweep(*(of(o, n) for n in ("100", "200") for o in ("adamw", "soap")))])
    assert [g.title for g in both] == ["x, steps 100", "x, steps 200"]
    (lengths,) = compare([sweep(of("adamw", "100"), of("adamw", "200"))])
    assert [a.label for a in lengths.arms] == ["adamw100", "adamw200"]


def test_caveats_name_what_is_unfair() -> None:
    low = Chosen({"lr": 5e-5}, 2.0, 1, {"lr": {"low": True, "high": True}}, {}, ())
    facts = {"metric": "accuracy", "loss_unit": "nats", "num_steps": 800}
    v = said(arm("adamw", BASE[:3], chosen=low), arm("soap", shifted(0)[:3], facts=facts, timing=None))
    text = " ".join(v.caveats)
    assert "best lr lies below the suggested range: the baseline, adamw (5e-5; suggested 1e-4 – 1e-3, deck)." in text
    assert "The arms differ in num_steps: adamw 400 and soap 800." in text
    assert "Few seeds: 3 seeds." in text
    assert "No timing pass of soap" in text


def batches(*sizes: int) -> tuple[TrialRecord, ...]:
    """Search trials that chose their batch size too."""
    return tuple(
        trial("soap", slot, 2.0, phase=Phase.SEARCH, params={"lr": "0.001", "task.batch_size": str(size)})
        for slot, size in enumerate(sizes)
    )


EQUAL = {"loss_unit": "nats", "num_steps": 400, "batch_size": 32, "samples_seen": 12_800}


def test_arms_that_see_unequal_numbers_of_samples_are_told_apart() -> None:
    more = {**EQUAL, "batch_size": 64, "samples_seen": 25_600}
    v = said(arm("adamw", BASE, facts=EQUAL), arm("soap", shifted(-0.1), facts=more))
    sentence = "At their chosen settings the arms see different numbers of samples: adamw 12,800 and soap 25,600, so"
    assert sentence in v.text
    assert sentence in page(v)
    assert "Samples seen" in page(v)
    columns, rows = table([v.group])
    assert [row[columns.index("samples seen")] for row in rows] == ["25,600", "12,800"], "the lowest loss first"


def test_so_are_trials_of_an_arm_that_searched_the_batch_size() -> None:
    soap = arm("soap", shifted(-0.1), facts=EQUAL)
    v = said(arm("adamw", BASE, facts=EQUAL), replace(soap, trials=(*soap.trials, *batches(16, 32, 64))))
    assert "The trials of a search saw different numbers of samples: soap 6,400 to 25,600, so budgets" in v.text
    columns, rows = table([v.group])
    found = [row[columns.index("samples seen")] for row in rows]
    assert found == ["12,800 (search: 6,400 to 25,600)", "12,800"]


def test_nothing_is_said_of_samples_where_all_see_as_many() -> None:
    soap = arm("soap", shifted(-0.1), facts=EQUAL)
    v = said(arm("adamw", BASE, facts=EQUAL), replace(soap, trials=(*soap.trials, *batches(32, 32))))
    assert v.budget == ""
    assert "samples" not in v.text
    assert "samples seen" not in table([v.group])[0]
    assert "Samples seen" not in page(v)


def test_a_decay_at_the_end_of_its_range_is_a_caveat() -> None:
    space = {"lr": RangeRecord(1e-4, 1e-3, True, "deck"), "weight_decay": RangeRecord(1e-3, 1.0, True, "")}
    chosen = Chosen({"lr": 1e-3, "weight_decay": 0.95}, 2.0, 1, {"lr": {"low": True, "high": True}}, {}, ())
    v = said(arm("adamw", BASE, space=space, chosen=chosen), arm("soap", shifted(0)))
    edge = "The best weight_decay lies at the upper end of its range, a better one may lie beyond: the baseline, adamw"
    assert any(caveat.startswith(edge) for caveat in v.caveats)
    assert not any("best lr lies at" in caveat for caveat in v.caveats)


def test_basin_is_of_quasi_random_points_only() -> None:
    def point(slot: int, lr: float, loss: float, origin: str) -> TrialRecord:
        metrics = {names.VAL_LOSS: loss}
        known: dict[str, Any] = {"phase": Phase.SEARCH, "params": {"lr": repr(lr)}, "origin": origin}
        return replace(trial("adamw", slot, None, **known), metrics=metrics)

    lrs = [1e-4, 1e-3, 1e-2, 1e-1]
    points = [point(i, lr, 2 + (math.log10(lr) + 2.5) ** 2, "quasi-random") for i, lr in enumerate(lrs)]
    crowd = [point(9, 3e-3, 1.0, "model")]
    (group,) = compare([sweep(arm("adamw", trials=(*points, *crowd)), seeds=0)])
    found = group.arms[0].basin
    assert found is not None
    assert found.decades == pytest.approx(1 + 2 * 0.1125 / 2, abs=1e-3)
    assert not found.cut_low


def _with_curve(of: ArmRecord, losses: Sequence[float]) -> ArmRecord:
    curve = Curve(np.arange(100, 100 * len(losses) + 1, 100), np.array(losses))
    trials = [trial(of.name, t.seed, losses[-1] + JITTER[t.seed], curves={names.VAL_LOSS: curve}) for t in of.trials]
    return arm(of.name, trials=tuple(trials))


def test_steps_to_target_and_late_flip() -> None:
    base = _with_curve(arm("adamw", BASE), [3.0, 2.5, 2.4, 2.0])
    fast = _with_curve(arm("soap", BASE), [2.6, 2.0, 1.95, 1.9])
    v = said(base, fast)
    ratio = v.group.comparisons[0].steps_ratio
    assert ratio is not None
    assert ratio.estimate == 0.5
    assert "final validation loss in 0.5× the steps" in v.headline
    late = said(base, _with_curve(arm("soap", BASE), [2.9, 2.2, 2.2, 2.1]))
    assert any("until late in the run: soap (until step 300 of 400)." in caveat for caveat in late.caveats)
    assert "It reaches the baseline's final validation loss on none of 8 seeds." in late.headline


def test_a_late_flip_is_seen_across_rungs_at_other_steps() -> None:
    def at(name: str, steps: Sequence[int], losses: Sequence[float]) -> ArmRecord:
        curve = Curve(np.array(steps), np.array(losses))
        return arm(
            name, trials=tuple(trial(name, s, loss, curves={names.VAL_LOSS: curve}) for s, loss in enumerate(BASE))
        )

    base = at("adamw", [100, 200, 300, 400], [3.0, 2.5, 2.4, 2.0])
    soap = at("soap", [80, 160, 240, 320, 400], [2.9, 2.3, 2.2, 2.2, 2.1])
    v = said(base, soap)
    assert any("until late in the run: soap (until step 320 of 400)." in caveat for caveat in v.caveats)
    longer = at("soap", [80, 160, 240, 320, 500], [2.9, 2.3, 2.2, 2.2, 2.1])
    assert not any("until late in the run" in caveat for caveat in said(base, longer).caveats)


def test_steps_to_target_have_a_t_interval_where_every_seed_reaches_it() -> None:
    def at(name: str, *curves: Sequence[float]) -> ArmRecord:
        held = [Curve(np.array([0, 100, 200, 300, 400]), np.array(losses)) for losses in curves]
        return arm(
            name, trials=tuple(trial(name, s, 2.0 + JITTER[s], curves={names.VAL_LOSS: c}) for s, c in enumerate(held))
        )

    base = at("adamw", *[[4.0, 3.0, 2.5, 2.4, 2.0]] * 3)
    v = said(base, at("soap", [4.0, 3.0, 1.8, 1.8, 1.8], [4.0, 3.0, 1.5, 1.5, 1.5], [4.0, 2.5, 1.5, 1.5, 1.5]))
    assert "steps (geometric mean; 95 % interval 0.3" in v.headline  # 183, 167 and 150 of 400 steps
    missed = said(base, at("soap", [4.0, 3.0, 1.8, 1.8, 1.8], [4.0, 3.0, 1.5, 1.5, 1.5], [4.0, 2.5, 2.5, 2.5, 2.5]))
    assert missed.group.comparisons[0].steps_ratio_of == "median"


def test_the_loss_figure_marks_target_and_chance_where_they_fall_within_it() -> None:
    def losses(**facts: Any) -> tuple[FigurePlan, list[float]]:
        curve = Curve(np.array([0, 10, 20, 30]), np.array([2.0, 1.9, 1.5, 1.0]))
        seeds = tuple(trial("adamw", seed, 1.0, curves={names.VAL_LOSS: curve}) for seed in (0, 1))
        (group,) = compare([sweep(arm("adamw", trials=seeds, facts=facts))])
        plan = next(plan for plan in plans(group) if plan.name == "val_loss")
        with style():
            (axes,) = plan.draw().axes
        low, high = axes.get_ylim()
        dotted = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines if line.get_linestyle() == ":"]
        assert all(low <= value <= high for value in dotted)
        return plan, dotted

    plan, dotted = losses(target_loss=0.8, chance_loss=1.6)
    assert dotted == [0.8, 1.6]
    assert "Dotted: target, 0.8 and a uniform guess, 1.6." in plan.caption
    plan, dotted = losses(target_loss=None, chance_loss=7.0)
    assert dotted == []
    assert "Dotted" not in plan.caption
