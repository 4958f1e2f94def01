"""Several searches per arm: what a test pairs, and what may be said of one search and of many."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from scipy import stats

from arms import arm_with
from hand_sweeps import arm, seeds, sweep
from hand_sweeps import trial as confirm_trial
from optsweep.errors import UserError
from optsweep.inference.repeats import SEEDS_PER_REPEAT, independent, repeat_of, seed_index
from optsweep.launch.standing import search_plan
from optsweep.report.across.findings import across
from optsweep.report.comparison import Conclusion, Group, compare
from optsweep.report.results import as_json, results
from optsweep.report.table import table
from optsweep.report.verdict import Verdict, verdict
from optsweep.search.slots import suggest
from optsweep.search.space import Dimension, Space
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, TrialRecord
from optsweep.tracking.schema import ConfirmTerms, SearchTerms
from optsweep.train.trial import Phase

LOSSES = {  # by search, three seeds each
    "adamw": [[2.00, 2.01, 1.99], [2.06, 2.04, 2.05], [1.97, 1.98, 1.96], [2.02, 2.03, 2.01]],
    "soap": [[1.90, 1.92, 1.91], [1.93, 1.92, 1.94], [1.88, 1.86, 1.87], [1.91, 1.90, 1.92]],
}
TRIALS = 2
AT_CHOSEN = "at the settings that this search chose"
AGAIN = "A repeat may move this by more than the interval; sweep.repeats=4 measures it."


def searched(name: str, repeat: int, status: Status = Status.FINISHED) -> list[TrialRecord]:
    one = confirm_trial(name, 0, 2.0, None)
    return [
        replace(
            one, run_id=f"{name}-{repeat}-s{n}", phase=Phase.SEARCH, slot=n, seed=seed_index(repeat, 0), status=status
        )
        for n in range(TRIALS)
    ]


def repeated(optimizer: str, losses: Sequence[Sequence[float | None]]) -> ArmRecord:
    """An arm with these test losses, by search and seed; a search without any found nothing."""
    bare = arm(optimizer, [])
    trials = []
    for repeat, held in enumerate(losses):
        trials += searched(bare.name, repeat, Status.FINISHED if held else Status.DIVERGED)
        trials += [confirm_trial(bare.name, seed_index(repeat, seed), loss, None) for seed, loss in enumerate(held)]
    chosen = tuple(bare.chosen if held else None for held in losses)
    return replace(bare, trials=tuple(trials), chosen=chosen[0], chosen_again=chosen[1:])


def of(*arms: ArmRecord, repeats: int = 1, num_seeds: int = 3, delta: float | None = None) -> Group:
    bare = sweep(*arms)
    plan = replace(
        bare.plan,
        repeats=repeats,
        search=SearchTerms(trials=TRIALS),
        confirm=ConfirmTerms(seeds=num_seeds, delta=delta),
    )
    (group,) = compare([replace(bare, plan=plan)])
    return group


def said(*arms: ArmRecord, **terms: Any) -> Verdict:
    return verdict(of(*arms, **terms))


def single(by: float, noise: Sequence[float] = (0.01, -0.012, 0.004, -0.006, 0.009, -0.005)) -> Verdict:
    """Of one search with six seeds."""
    base = [2.0, 2.05, 1.95, 2.02, 1.98, 2.01]
    candidate = [loss + by + more for loss, more in zip(base, noise, strict=True)]
    return said(repeated("adamw", [base]), repeated("soap", [candidate]), num_seeds=6)


def test_seeds_of_repeats_are_disjoint_and_those_of_the_first_are_as_they_were() -> None:
    assert [seed_index(0, seed) for seed in range(3)] == [0, 1, 2]
    assert repeat_of(seed_index(3, SEEDS_PER_REPEAT - 1)) == 3
    assert independent({0: 1.0, 1: 3.0}) == {0: 1.0, 1: 3.0}
    assert independent({0: 1.0, 1: 3.0, seed_index(2, 0): 5.0}) == {0: 2.0, 2: 5.0}


def test_points_are_those_of_the_repeat_and_the_same_for_all_arms() -> None:
    space = Space({"lr": Dimension(FloatDistribution(1e-4, 1e-1, log=True))})
    arms = [replace(arm_with({}), choices={"optimizer": name}) for name in ("a", "b")]
    points = [[suggest(search_plan(a, repeat), space, 0, ()).params for a in arms] for repeat in range(2)]
    assert search_plan(arms[0], 0).seed == arms[0].seed
    assert points[0][0] == points[0][1] != points[1][0] == points[1][1]


def test_the_interval_is_student_s_over_the_differences_of_searches() -> None:
    (found,) = of(*(repeated(name, losses) for name, losses in LOSSES.items()), repeats=4).comparisons
    by_hand = np.mean(LOSSES["soap"], axis=1) - np.mean(LOSSES["adamw"], axis=1)
    assert found.differences == pytest.approx(dict(enumerate(by_hand)))
    expected = stats.ttest_1samp(by_hand, 0.0)
    low, high = expected.confidence_interval(0.95)
    assert found.test is not None
    assert (found.test.n, found.searches, found.seeds) == (4, 4, (3, 3, 3, 3))
    assert (found.test.p, found.test.low, found.test.high) == pytest.approx((expected.pvalue, low, high))
    own = stats.ttest_1samp(np.mean(LOSSES["soap"], axis=1), 0.0).confidence_interval(0.95)
    mean = found.candidate.test
    assert mean is not None
    assert (mean.n, mean.low, mean.high) == pytest.approx((4, *own))


def test_over_several_searches_an_arm_is_better() -> None:
    found = said(*(repeated(name, losses) for name, losses in LOSSES.items()), repeats=4)
    assert "charlm + soap is better than charlm + adamw: mean test loss lower by" in found.headline
    assert "paired over 4 searches of 2 trials with 3 seeds each)" in found.headline
    assert AT_CHOSEN not in found.headline
    assert "repeating search and seeds" in " ".join(found.caveats)
    assert not any("Provisional" in text or "Partial" in text or "Few" in text for text in found.caveats)


def test_a_split_that_repeats_draw_anew_is_said() -> None:
    drawn = [repeated(name, losses) for name, losses in LOSSES.items()]
    found = said(*(replace(one, facts={**one.facts, "resplit": True}) for one in drawn), repeats=4)
    assert "4 searches of 2 trials with 3 seeds each, train/validation split redrawn)" in found.headline
    assert "repeating search, train/validation split and seeds; the test split is the same" in " ".join(found.caveats)


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (-0.1, f"{AT_CHOSEN}, charlm + soap ends lower than charlm + adamw: mean test loss lower by"),
        (0.1, f"{AT_CHOSEN}, charlm + soap ends higher than charlm + adamw: mean test loss higher by"),
        (0.0, f"{AT_CHOSEN}, no difference between charlm + soap and charlm + adamw is shown: mean test loss"),
    ],
)
def test_of_one_search_nothing_is_called_better(by: float, words: str) -> None:
    found = single(by)
    assert words in found.headline
    assert "paired over 6 seeds; settings and test split held)" in found.headline
    assert AGAIN in found.headline
    assert "is better" not in found.headline
    assert "is worse" not in found.headline


def test_nor_in_the_headline_of_several_arms() -> None:
    arms = [repeated("adamw", [seeds(2.0)]), repeated("soap", [seeds(1.8, (0.01, -0.01, 0.0, 0.005, -0.004, 0.002))])]
    worse = repeated("lion", [seeds(2.3, (0.002, 0.01, -0.01, 0.004, 0.003, -0.001))])
    headline = said(*arms, worse, num_seeds=6).headline
    assert f"{AT_CHOSEN}, against charlm + adamw: charlm + soap ends lower; charlm + lion ends higher" in headline
    assert headline.endswith(AGAIN)


def test_without_a_search_there_is_no_tuning_to_be_lucky_in() -> None:
    fixed = sweep(arm("adamw", seeds(2.0)), arm("soap", seeds(1.8, (0.01, -0.01, 0.0, 0.005, -0.004, 0.002))))
    (group,) = compare([fixed])
    assert "charlm + soap is better than charlm + adamw" in verdict(group).headline


def test_equal_within_delta_says_which_settings_are() -> None:
    base = [2.0, 2.05, 1.95, 2.02]
    arms = [repeated("adamw", [base]), repeated("soap", [[loss + 1e-4 * n for n, loss in enumerate(base)]])]
    assert f"{AT_CHOSEN}, charlm + soap and charlm + adamw are equal within ±0.1" in said(*arms, delta=0.1).headline


def test_a_sweep_stopped_early_is_judged_on_its_complete_searches_and_says_how_many() -> None:
    adamw = repeated("adamw", LOSSES["adamw"][:3])
    soap = repeated("soap", [*LOSSES["soap"][:2], [9.0]])  # the third has one seed yet
    found = said(adamw, soap, repeats=4)
    (comparison,) = found.group.comparisons
    assert list(comparison.differences) == [0, 1]
    assert "paired over 2 of 4 searches of 2 trials with 3 seeds each" in found.headline
    assert found.headline.startswith("Provisional: 2 of 4 repeats. On charlm, ")
    assert any("to stop here because of what is seen would err more often" in text for text in found.conditions)
    assert comparison.candidate.test is not None
    assert comparison.candidate.test.estimate < 2


def test_after_the_first_search_it_is_as_of_one_and_says_what_is_planned() -> None:
    found = said(*(repeated(name, losses[:1]) for name, losses in LOSSES.items()), repeats=4)
    assert found.headline.startswith("Provisional: 1 of 4 repeats. On charlm, ")
    assert AT_CHOSEN in found.headline
    assert not any("to stop here" in text for text in found.conditions)  # nothing is called better yet
    assert "paired over 3 seeds of the first complete search of 4; settings and test split held" in found.headline
    assert "4 searches are planned, and will tell" in found.headline


def test_a_search_in_which_all_diverged_counts_as_diverged_seeds() -> None:
    soap = repeated("soap", [*LOSSES["soap"][:3], []])
    found = said(repeated("adamw", LOSSES["adamw"]), soap, repeats=4)
    (comparison,) = found.group.comparisons
    assert comparison.candidate.diverged_seeds == 3
    assert comparison.outcome is Conclusion.UNTESTED
    assert "charlm + soap diverged on 3 of 12 seeds" in found.headline


def test_page_terminal_and_json_say_the_same() -> None:
    arms = [repeated(name, losses) for name, losses in LOSSES.items()]
    again = replace(arms[1].chosen, params={"lr": 8e-4}) if arms[1].chosen else None
    group = of(arms[0], replace(arms[1], chosen_again=(again, *arms[1].chosen_again[1:])), repeats=4)
    found = verdict(group)
    (comparison,) = json.loads(as_json(results([group.sweep], [found], across([group]), [])))["groups"][0][
        "comparisons"
    ]
    assert comparison["sentence"] == found.headline
    assert (comparison["over"], comparison["searches"], comparison["at_chosen_settings"]) == ("searches", 4, False)
    columns, rows = table([group])
    assert rows[0][columns.index("lr")] == "5e-4 – 8e-4"
    assert math.isclose(comparison["paired_t"]["mean"], float(np.mean(list(comparison["differences"].values()))))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"sweep.repeats": 0}, "sweep.repeats: 0 is not allowed; give a whole number ≥ 1"),
        ({"sweep.repeats": "often"}, "sweep.repeats: 'often' is not allowed; give a whole number ≥ 1, or auto"),
        *(
            ({"sweep.repeats": repeats, "confirm.seeds": "auto"}, "confirm.seeds: auto adds seeds to one setting")
            for repeats in (1, 2, "auto")
        ),
        ({"sweep.repeats": 2, "search.trials": 0}, "sweep.repeats: 2 repeats searches, and search.trials=0 has none"),
        ({"sweep.repeats": "auto", "search.trials": 0}, "sweep.repeats: auto repeats searches, and search.trials=0"),
    ],
)
def test_repeats_that_mean_nothing_are_refused_in_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        arm_with({}).with_values({"search.trials": 4, **values})
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
