"""What the report says of made-up results: outcomes, caveats and partial sweeps, in words."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optsweep.report.across.findings import across
from optsweep.report.comparison import Conclusion, compare
from optsweep.report.figures.canvas import FigurePlan, style
from optsweep.report.figures.curves import plans
from optsweep.report.page import render
from optsweep.report.table import table
from optsweep.report.verdict import Verdict, verdict
from optsweep.tracking import names
from optsweep.tracking.codec import from_json
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve, SweepRecord, TrialRecord
from optsweep.tracking.schema import Chosen, Environment, RangeRecord, SweepPlan, Timing
from optsweep.train.trial import Phase

BASE = [2.00, 2.05, 1.95, 2.02, 1.98, 2.01, 2.03, 1.96]
JITTER = [0.010, -0.012, 0.004, -0.006, 0.009, -0.003, 0.001, -0.004]


def trial(arm: str, seed: int, test: float | None, status: Status = Status.FINISHED, **known: Any) -> TrialRecord:
    metrics = {} if test is None else {names.TEST_LOSS: test, names.VAL_LOSS: test, names.test_metric("accuracy"): 0.5}
    fields: dict[str, Any] = {
        "run_id": f"{arm}-{seed}",
        "phase": Phase.CONFIRM,
        "slot": seed,
        "origin": "chosen",
        "error": "",
        "params": {"lr": "0.001"},
        "train_seconds": 1.0,
        "state_bytes": 1000.0,
        "lanes": 1,
    }
    return TrialRecord(arm=arm, seed=seed, status=status, metrics=metrics, **{**fields, **known})


def arm(name: str, tests: Sequence[float | None] = (), **known: Any) -> ArmRecord:
    """An arm whose confirm trials have these test losses; None and infinity diverged."""
    trials = [
        trial(name, seed, loss)
        if loss is not None and math.isfinite(loss)
        else trial(name, seed, None, Status.DIVERGED)
        for seed, loss in enumerate(tests)
    ]
    fields: dict[str, Any] = {
        "label": name,
        "run_id": f"run-{name}",
        "choices": {"task": "charlm", "optimizer": name},
        "fingerprint": "f",
        "space": {"lr": RangeRecord(1e-4, 1e-3, True, "deck")},
        "fixed": {},
        "chosen": Chosen({"lr": 5e-4}, 2.0, 1, {"lr": {"low": True, "high": True}}, {"lr": (1e-4, 1e-3)}, (0,)),
        "timing": Timing(2.0, 1.9, 2.1, 50),
        "facts": {"metric": "accuracy", "loss_unit": "nats", "num_steps": 400},
        "warnings": (),
        "trials": tuple(trials),
    }
    return ArmRecord(name=name, **{**fields, **known})


def sweep(*arms: ArmRecord, seeds: int | None = None, **plan: Any) -> SweepRecord:
    planned = max((len(a.of(Phase.CONFIRM)) for a in arms), default=0) if seeds is None else seeds
    whole: Mapping[str, Any] = {
        "arms": [{"name": a.name, "label": a.label} for a in arms],
        "baseline": arms[0].name if arms else "",
        "confirm": {"seeds": planned},
        **plan,
    }
    return SweepRecord("demo", "1", "sweep-run", from_json(SweepPlan, whole), Environment(), "", (), arms)


def said(*arms: ArmRecord, **plan: Any) -> Verdict:
    (group,) = compare([sweep(*arms, **plan)])
    return verdict(group)


def page(v: Verdict) -> str:
    """The report's page, without figures."""
    return render([v.group.sweep], [v], [[]], across([v.group]), [], "", "sqlite:///store.db")


def shifted(by: float) -> list[float]:
    return [value + by + jitter for value, jitter in zip(BASE, JITTER, strict=True)]


def outcome(v: Verdict) -> Conclusion:
    return v.group.comparisons[0].outcome


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
    assert v.headline.startswith("On charlm, against adamw: ")
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
    assert [row[columns.index("samples seen")] for row in rows] == ["12,800", "25,600"]


def test_so_are_trials_of_an_arm_that_searched_the_batch_size() -> None:
    soap = arm("soap", shifted(-0.1), facts=EQUAL)
    v = said(arm("adamw", BASE, facts=EQUAL), replace(soap, trials=(*soap.trials, *batches(16, 32, 64))))
    assert "The trials of a search saw different numbers of samples: soap 6,400 to 25,600, so budgets" in v.text
    columns, rows = table([v.group])
    found = [row[columns.index("samples seen")] for row in rows]
    assert found == ["12,800", "12,800 (search: 6,400 to 25,600)"]


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
    assert "It reaches the baseline's final validation loss on only 0 of 8 seeds." in late.headline


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


def looked(*arms: ArmRecord, **confirm: Any) -> Verdict:
    """The verdict under confirm.seeds=auto, or after it."""
    return said(*arms, confirm={"seeds": "auto", "looks": [5, 10, 20], **confirm})


def test_looks_ask_for_more_than_a_fixed_number_and_the_interval_agrees() -> None:
    # p = 0.034: enough at 5 %, not at Pocock's level of three looks
    losses = [value + by for value, by in zip(BASE[:5], [-0.05, -0.01, -0.03, -0.005, -0.04], strict=True)]
    fixed = said(arm("adamw", BASE[:5]), arm("soap", losses))
    assert outcome(fixed) is Conclusion.BETTER
    v = looked(arm("adamw", BASE[:5]), arm("soap", losses))
    assert outcome(v) is Conclusion.NO_DIFFERENCE
    test = v.group.comparisons[0].test
    assert test is not None
    assert test.p is not None
    assert test.low is not None
    assert test.high is not None
    assert v.group.level.alpha < test.p < 0.05
    assert test.low < 0 < test.high
    assert "97.9 % interval of the difference (three looks planned, Pocock) −0.0" in v.headline
    assert "Partial: soap still lacks 5 confirm trials." in v.caveats  # undecided, so the next look is planned
    assert v.group.stopped_at is None


def test_seeds_that_ended_at_a_look_are_not_partial() -> None:
    v = looked(arm("adamw", BASE[:5]), arm("soap", shifted(-0.1)[:5]))
    assert outcome(v) is Conclusion.BETTER
    assert v.group.stopped_at == 5
    assert not any("Partial" in caveat for caveat in v.caveats)
    last = looked(arm("adamw", (BASE * 3)[:20]), arm("soap", (shifted(0.0) * 3)[:20]))
    assert outcome(last) is Conclusion.NO_DIFFERENCE
    assert last.group.stopped_at == 20
    alone = looked(arm("adamw", BASE[:5]))
    assert alone.group.stopped_at == 5
    begun = looked(arm("adamw", BASE[:7]), arm("soap", BASE[:5]))
    assert [a.num_seeds for a in begun.group.arms] == [10, 10]


def test_seeds_that_were_looked_at_are_judged_so_under_a_fixed_number_too() -> None:
    v = looked(arm("adamw", BASE), arm("soap", shifted(-0.1)), seeds=8)
    assert "three looks planned" in v.headline
    assert [a.num_seeds for a in v.group.arms] == [8, 8]


def test_choices_that_the_search_made_are_shown_beside_the_rate() -> None:
    chosen = Chosen({"lr": 5e-4, "beta1": 0.85}, 2.0, 1, {}, {}, (), {"task.batch_size": 64, "trainer.clip_norm": None})
    v = said(arm("adamw", BASE), arm("soap", shifted(-0.1), chosen=chosen))
    words = "beta1 0.85, task.batch_size 64 and trainer.clip_norm null"
    columns, rows = table([v.group])
    assert [row[columns.index("also chosen")] for row in rows] == ["", words]
    shown = html.unescape(page(v))
    assert words in shown
    assert "among choices" in shown
    assert "also chosen" not in table([said(arm("adamw", BASE)).group])[0]


@pytest.mark.parametrize(
    ("by", "found", "word"), [(-0.02, Conclusion.SLIGHTLY_BETTER, "better"), (0.02, Conclusion.SLIGHTLY_WORSE, "worse")]
)
def test_a_shown_difference_inside_delta_is_called_small(by: float, found: Conclusion, word: str) -> None:
    def at(delta: float) -> Verdict:
        return said(arm("adamw", BASE), arm("soap", shifted(by)), confirm={"seeds": 8, "delta": delta})

    v = at(0.05)
    assert outcome(v) is found
    assert f"soap is {word} than adamw, by less than 0.05: mean test loss" in v.headline
    assert f"{word}, by less than δ</span>" in page(v)
    assert outcome(at(0.021)) is Conclusion(word)  # the interval reaches beyond
    lost = said(arm("adamw", BASE), arm("soap", [None, *shifted(0.02)[1:]]), confirm={"seeds": 8, "delta": 0.05})
    assert outcome(lost) is Conclusion.WORSE  # the seeds that finished don't show how small
    third = said(arm("adamw", BASE), arm("soap", shifted(by)), arm("sgd", BASE), confirm={"seeds": 8, "delta": 0.05})
    assert f"soap is {word}, by less than δ" in third.headline


OPEN_TOP = Chosen({"lr": 1e-3}, 2.0, 1, {"lr": {"low": True, "high": False}}, {}, ())


def tuned(of: ArmRecord, count: int) -> ArmRecord:
    """The arm with so many search trials."""
    search = tuple(trial(of.name, slot, 2.0, phase=Phase.SEARCH) for slot in range(count))
    return replace(of, trials=(*search, *of.trials))


def lead(v: Verdict) -> str:
    """What the page says of the group at its top."""
    return html.unescape(page(v)).split('class="lead">')[1].split("</p>")[0]


def test_over_an_unbracketed_baseline_nothing_is_better() -> None:
    base, soap, sgd = arm("adamw", BASE, chosen=OPEN_TOP), arm("soap", shifted(-0.1)), arm("sgd", shifted(0.1))
    alone = said(base, soap)
    assert outcome(alone) is Conclusion.UNDECIDED
    for text in (alone.text, lead(alone)):
        assert "soap ends lower than adamw, mean test loss lower by 0.10" in text
        assert "8 seeds), but adamw is not bracketed (lr on the high side): not decided." in text
        assert text.count("is not bracketed") == 1
    assert "not decided</span>" in page(alone)
    v = said(base, soap, sgd)
    assert [c.outcome for c in v.group.comparisons] == [Conclusion.UNDECIDED, Conclusion.WORSE]
    assert "soap ends lower, but adamw is not bracketed (lr on the high side): not decided" in v.headline
    assert v.text in lead(v)
    assert v.ranking.startswith("By the chosen settings alone: ")
    other = said(arm("adamw", BASE), arm("sgd", shifted(0.1), chosen=OPEN_TOP))
    assert "sgd ends higher than adamw, mean test loss" in other.text
    assert "but sgd is not bracketed (lr on the high side): not decided." in other.text
    ahead = said(arm("adamw", BASE), arm("soap", shifted(-0.1), chosen=OPEN_TOP))
    assert outcome(ahead) is Conclusion.BETTER
    assert "But soap is not bracketed (lr on the high side), so it may be better than it looks." in ahead.text


def test_nor_over_one_that_was_searched_less() -> None:
    base, soap = tuned(arm("adamw", BASE), 9), tuned(arm("soap", shifted(-0.1)), 12)
    v = said(base, soap)
    assert outcome(v) is Conclusion.UNDECIDED
    assert "but adamw had 9 search trials against 12: not decided" in v.text
    assert "The arms have had unequal numbers of search trials: adamw 9 and soap 12." in v.text
    more = said(tuned(arm("adamw", BASE), 12), tuned(arm("soap", shifted(-0.1)), 9), arm("sgd", shifted(0.1)))
    assert [c.outcome for c in more.group.comparisons] == [Conclusion.BETTER, Conclusion.UNDECIDED]
    assert "unequal numbers of search trials: adamw 12, soap 9 and sgd 0." in lead(more)


def test_few_search_trials_are_said_in_the_verdict() -> None:
    few, enough = (said(*(tuned(arm(n, shifted(by)), k) for n, by in (("adamw", 0), ("soap", -0.1)))) for k in (7, 8))
    assert "Few search trials: 7; under 8 the choice is mostly luck." in few.text
    assert "Few search trials" not in enough.text


def test_an_arm_that_is_worse_is_not_among_the_lowest() -> None:
    # shown against the baseline alone, and not among the ten pairs of all five arms
    noise = [0.05, -0.05, 0.04, -0.04, 0.05, -0.05, 0.04, -0.04]
    sgd = [value + 0.063 + by for value, by in zip(BASE, noise, strict=True)]
    near = [[value + by * sign for value, by in zip(BASE, JITTER, strict=True)] for sign in (-1, 1, 2)]
    arms = [arm("adamw", BASE), arm("sgd", sgd), *(arm(f"a{k}", losses) for k, losses in enumerate(near))]
    v = said(*arms)
    assert outcome(v) is Conclusion.WORSE
    assert "sgd" not in v.ranking.split("those with")[0]


def on_validation(of: ArmRecord, losses: Sequence[float]) -> ArmRecord:
    trials = [
        replace(t, metrics={**t.metrics, names.VAL_LOSS: loss}) for t, loss in zip(of.trials, losses, strict=True)
    ]
    return replace(of, trials=tuple(trials))


def test_validation_that_says_the_reverse_is_a_condition_and_the_split_s_size_is_stated() -> None:
    facts = {"loss_unit": "nats", "num_steps": 400, "num_test": 30}
    base, soap = arm("adamw", BASE, facts=facts), arm("soap", shifted(-0.1), facts=facts)
    v = said(base, on_validation(soap, shifted(0.05)))
    assert "paired over 8 seeds, 30 test samples)" in v.headline
    words = "But validation says the reverse: there soap ends higher by 0.0499 than adamw (95 % interval +0.04"
    assert words in v.text
    assert words in lead(v)
    assert "+0.0499 ± 0.0063" in page(v)
    alike, vague = said(base, soap), said(base, on_validation(soap, shifted(0.001)))
    assert "validation says" not in alike.text + vague.text
    assert "On charlm (30 test samples), against adamw: " in said(base, soap, arm("sgd", BASE)).headline


def test_a_seed_that_lies_apart_is_a_condition() -> None:
    v = said(arm("adamw", BASE), arm("soap", [*shifted(-0.1)[:7], 3.0]))
    assert "The differences soap − adamw are uneven: seed 7 lies far from the others, without which" in v.text
    assert "uneven" in lead(v)
    assert "uneven" not in said(arm("adamw", BASE), arm("soap", shifted(-0.1))).text


def test_bracketed_names_its_keys_and_an_edge_is_named_beside() -> None:
    space = {"lr": RangeRecord(1e-4, 1e-3, True, ""), "weight_decay": RangeRecord(1e-3, 1.0, True, "")}
    chosen = Chosen({"lr": 5e-4, "weight_decay": 1.0}, 2.0, 1, {"lr": {"low": True, "high": True}}, {}, ())
    shown = page(said(arm("adamw", BASE, space=space, chosen=chosen)))
    assert 'yes: lr<br><span class="bad">weight_decay at its upper end</span>' in shown
