"""Two choices crossed: effects alone and together, and whether they add up, of made-up results with known answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from hand_sweeps import arm, found, sweep
from optsweep.inference.repeats import SEEDS_PER_REPEAT
from optsweep.report.across.factorial import Factorial
from optsweep.report.across.findings import Statement
from optsweep.report.across.results import across_results
from optsweep.report.figures.canvas import style
from optsweep.report.write import across_plans
from optsweep.tracking.reader import ArmRecord, SweepRecord
from optsweep.tracking.schema import ConfirmTerms

BASE = (2.00, 2.02, 1.99, 2.01)
OFFSETS = (0.004, -0.002, 0.001, -0.003)


def cell(optimizer: str, schedule: str, losses: Sequence[float | None], **known: Any) -> ArmRecord:
    record = arm(optimizer, losses, schedule=schedule, **known)
    return replace(record, name=f"{record.name},{schedule}", label=f"{optimizer} + {schedule}")


def square(interaction: float = 0.0, **known: Any) -> SweepRecord:
    """SOAP alone gains 0.3, schedule-free alone 0.1, both the sum of them and `interaction`."""
    both = [base - 0.4 + interaction + offset for base, offset in zip(BASE, OFFSETS, strict=True)]
    return sweep(
        cell("adamw", "cosine", BASE),
        cell("adamw", "schedule_free", [base - 0.1 for base in BASE]),
        cell("soap", "cosine", [base - 0.3 for base in BASE], **known),
        cell("soap", "schedule_free", both),
    )


def crossed(record: SweepRecord) -> tuple[Factorial, Statement]:
    ((factorial, statement),) = found(record).factorials
    return factorial, statement


def test_effects_are_paired_differences_to_the_baseline() -> None:
    factorial, statement = crossed(square(-0.05))
    assert (factorial.factors, factorial.instead_of) == (("soap", "schedule_free"), ("adamw", "cosine"))
    assert [test.mean for test in factorial.alone] == pytest.approx([-0.3, -0.1])
    expected = stats.ttest_1samp([-0.05 + offset for offset in OFFSETS], 0)
    assert factorial.interaction.p == pytest.approx(expected.pvalue)
    assert factorial.interaction.low == pytest.approx(expected.confidence_interval().low)
    assert factorial.together.mean == pytest.approx(-0.45)
    assert statement.sentences == (
        "On charlm, soap instead of adamw alone changes the mean test loss by −0.3000, schedule_free instead of cosine "
        "alone by −0.1000, both together by −0.4500 ± 0.0050 (in nats; ±: half of the 95 % t interval over 4 seeds).",
        "Together they do more than the sum of what each does alone: a difference of −0.0500 ± 0.0050 (p < 0.0001).",
    )


@pytest.mark.parametrize(
    ("interaction", "said"),
    [
        (
            0.0,
            "No interaction is shown: both together differ from the sum of each alone by 0.0000 ± 0.0050 (p = 1.00).",
        ),
        (0.1, "Together they do less than the sum of what each does alone: a difference of +0.1000 ± 0.0050 ("),
    ],
)
def test_effects_that_add_up_and_those_that_overlap(interaction: float, said: str) -> None:
    assert crossed(square(interaction))[1].sentences[1].startswith(said)


def test_over_searches_a_pair_is_a_search() -> None:
    record = square(-0.05)

    def repeated(held: ArmRecord) -> ArmRecord:
        again = (replace(t, seed=t.seed + SEEDS_PER_REPEAT) for t in held.trials)
        return replace(held, trials=(*held.trials, *again), chosen_again=(held.chosen,))

    plan = replace(record.plan, repeats=2, confirm=ConfirmTerms(seeds=len(BASE)))
    twice = replace(record, arms=tuple(map(repeated, record.arms)), plan=plan)
    factorial, _ = crossed(twice)
    assert factorial.num_differences == "2 searches"
    assert factorial.interaction.mean == pytest.approx(-0.05)


def test_what_may_turn_the_effects_is_said() -> None:
    searched = replace(square().plan, search=replace(square().plan.search, trials=16))
    _, statement = crossed(replace(square(bracketed=False), plan=searched))
    assert statement.notes == (
        "Not bracketed: soap + cosine. A wider search may change these effects.",
        "These are effects at the settings that one search chose; another may move them by more than ±.",
    )


def test_the_sentence_itself_says_what_it_holds_for_and_follows_the_verdict() -> None:
    record = square()
    searched = replace(record.plan, search=replace(record.plan.search, trials=16))
    arms = tuple(replace(held, facts={**held.facts, "num_test": 300}) for held in record.arms)
    over = found(replace(record, plan=searched, arms=arms))
    assert over.around(["the verdict"])[0] == "the verdict"
    assert over.around(["the verdict"])[1].startswith(
        "On charlm, at the settings that this search chose and on these 300 test samples, soap instead of adamw alone "
    )


def test_a_group_of_the_config_that_is_not_named_is_none() -> None:
    plain = [cell(optimizer, "constant", BASE) for optimizer in ("adamw", "muon")]
    averaged = [
        replace(
            held, name=f"{held.name},ema", choices={**held.choices, "averaging": "ema"}, run_id=f"{held.run_id}-ema"
        )
        for held in plain
    ]
    factorial, _ = crossed(sweep(*plain, *averaged))
    assert (factorial.factors, factorial.instead_of) == (("ema", "muon"), ("none", "adamw"))


def test_other_arms_are_no_square() -> None:
    arms = square().arms
    assert not found(sweep(*arms[:3])).factorials
    assert not found(sweep(*arms[:3], cell("lion", "schedule_free", BASE))).factorials
    assert not found(sweep(*arms[:3], cell("soap", "schedule_free", [None, 1.6, 1.6, 1.6]))).factorials
    assert not found(sweep(*(cell("adamw", f"s{i}", BASE) for i in range(4)))).factorials


def test_the_finding_is_on_the_page_s_data_and_is_drawn() -> None:
    over = found(square(-0.05))
    (written,) = json.loads(json.dumps(across_results(over)))["factorials"]
    assert written["arms"]["both"].endswith("soap,400,schedule_free")
    assert written["interaction"]["mean"] == pytest.approx(-0.05)
    ((plan,),) = across_plans(over)
    with style():
        figure = plan.draw()
    assert next(text.get_text() for text in figure.axes[0].get_yticklabels()) == "soap alone"
    assert "n = 4 seeds" in plan.caption
