"""What a verdict rests on stands in its sentence: looks, choices, small differences, tuning, validation."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hand_verdicts import BASE, JITTER, arm, outcome, page, said, shifted, trial
from optsweep.inference.repeats import SEEDS_PER_REPEAT
from optsweep.report.comparison import Conclusion
from optsweep.report.table import table
from optsweep.report.verdict import Verdict
from optsweep.tracking import names
from optsweep.tracking.reader import ArmRecord, Curve
from optsweep.tracking.schema import Chosen, RangeRecord
from optsweep.train.trial import Phase


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


def of_samples(losses: Sequence[float], apart: float) -> dict[int, Curve]:
    """Parts of the test split by seed: the seed's loss, and what every second part is above and below it."""
    by = np.where(np.arange(8) % 2, apart, -apart)
    return {seed: Curve(np.arange(8), loss + by + 0.001 * (np.arange(8) == seed)) for seed, loss in enumerate(losses)}


def by_sample(name: str, losses: Sequence[float], apart: float) -> ArmRecord:
    held = of_samples(losses, apart)
    plain = arm(name, losses, facts={"metric": "accuracy", "loss_unit": "nats", "num_steps": 400, "num_test": 64})
    trials = (replace(t, curves={names.TEST_BLOCKS: held[t.seed]}) for t in plain.trials)
    return replace(plain, trials=tuple(trials))


def test_a_difference_that_only_these_samples_show_is_not_shown() -> None:
    ours = shifted(-0.05)
    v = said(by_sample("adamw", BASE, 0.0), by_sample("soap", ours, 0.6))
    assert outcome(v) is Conclusion.NO_DIFFERENCE
    assert "paired over 8 seeds and over 64 test samples)" in v.headline
    assert "On these test samples soap ends lower than adamw (95 % interval over seeds alone −0.0" in v.text
    assert v.text.count("other samples may say otherwise.") == 1
    alike = said(by_sample("adamw", BASE, 0.6), by_sample("soap", ours, 0.6))
    assert outcome(alike) is Conclusion.BETTER
    assert "other samples" not in alike.text
    without = said(arm("adamw", BASE), arm("soap", ours))
    assert outcome(without) is Conclusion.BETTER
    assert "paired over 8 seeds)" in without.headline


def test_of_one_search_the_settings_are_held_and_the_samples_are_not() -> None:
    v = said(by_sample("adamw", BASE, 0.0), by_sample("soap", shifted(-0.1), 0.01), search={"trials": 16})
    assert "paired over 8 seeds and over 64 test samples; settings held)" in v.headline


def test_over_searches_and_samples_the_page_claims_both_and_no_held_split() -> None:
    def searched(name: str, losses: Sequence[float]) -> ArmRecord:
        held = by_sample(name, losses, 0.01)
        trials = (replace(t, seed=t.seed // 4 * SEEDS_PER_REPEAT + t.seed % 4) for t in held.trials)
        return replace(held, trials=tuple(trials), chosen_again=(held.chosen,))

    v = said(searched("adamw", BASE), searched("soap", shifted(-0.1)), seeds=4, repeats=2)
    assert "with 4 seeds each and over 64 test samples)" in v.headline
    assert "The intervals hold for repeating search and seeds, and for other test samples of this kind." in v.caveats
    assert "test split" not in v.headline


def test_choices_that_the_search_made_are_shown_beside_the_rate() -> None:
    chosen = Chosen({"lr": 5e-4, "beta1": 0.85}, 2.0, 1, {}, {}, (), {"task.batch_size": 64, "trainer.clip_norm": None})
    v = said(arm("adamw", BASE), arm("soap", shifted(-0.1), chosen=chosen))
    words = "beta1 0.85, task.batch_size 64 and trainer.clip_norm null"
    columns, rows = table([v.group])
    assert [row[columns.index("also chosen")] for row in rows] == [words, ""], "the lowest loss first"
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
    several = said(base, soap, arm("sgd", BASE)).headline
    assert "On charlm (paired over 8 seeds, 30 test samples), against adamw: " in several
    fewer = said(base, soap, arm("sgd", [*shifted(-0.1)[:6], None, None])).headline
    assert "On charlm (30 test samples), against adamw: " in fewer, "each sentence has its own"


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


def test_one_search_of_several_that_ends_at_an_edge_does_not_leave_an_arm_unbracketed() -> None:
    open_, closed = (
        Chosen({"lr": 5e-4}, 2.0, 1, {"lr": {"low": True, "high": high}, "beta1": {"low": high, "high": True}}, {}, ())
        for high in (False, True)
    )
    for chosen, again, edges in (
        (open_, (), (("lr", "high"), ("beta1", "low"))),
        (open_, (closed, open_, closed), (("lr", "high"), ("beta1", "low"))),
        (open_, (closed, closed, closed), ()),
    ):
        held = said(replace(arm("adamw", BASE, chosen=chosen), chosen_again=again))
        assert held.group.arms[0].unbracketed == edges


def test_a_task_without_a_metric_has_no_column_of_one() -> None:
    plain, scored = (
        page(said(*(arm(name, BASE, facts={"metric": metric, "num_steps": 400}) for name in "ab")))
        .partition('id="arms-h"')[2]
        .partition("</table>")[0]
        for metric in ("mean loss", "accuracy")
    )
    assert "Test accuracy" in scored
    assert "mean loss" not in plain
    assert plain.count('data-th="Test loss') == scored.count('data-th="Test loss') > 0
