"""After how many search trials the order of arms is stable: held against the other searches, never against itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hand_figures import confirmed, made, searched
from optsweep.inference.ranking import Stability, chosen_so_far, stability
from optsweep.inference.repeats import SEEDS_PER_REPEAT
from optsweep.report.comparison import Group, compare
from optsweep.report.figures import canvas, ranking
from optsweep.report.ranking import ranking_over_trials, said_from
from optsweep.tracking.reader import ArmRecord, SweepRecord
from optsweep.tracking.schema import Chosen, ConfirmTerms, Environment, SearchTerms, SweepPlan

LATE = (9.0, 8.0, 7.0, 3.0, 6.0, 6.5, 7.5, 8.5)
STEADY = (8.5, 5.0, 7.0, 6.0, 6.0, 6.5, 7.5, 8.5)


def test_what_would_be_chosen_is_the_best_mean_of_those_run_most() -> None:
    results = [("a", 0, math.inf), ("b", 0, 2.0), ("c", 0, 3.0), ("b", 1, 5.0), ("c", 1, 3.0), ("d", 0, 1.0)]
    assert chosen_so_far(results) == [math.inf, 2.0, 2.0, 3.5, 3.0, 3.0]


def test_the_same_trial_twice_is_one_result() -> None:
    assert chosen_so_far([("a", 0, 2.0), ("b", 0, 1.0), ("a", 0, 2.0)]) == [2.0, 1.0, 1.0]


def test_a_setting_that_diverged_once_is_not_chosen() -> None:
    assert chosen_so_far([("a", 0, 1.0), ("b", 0, 2.0), ("a", 1, math.inf)]) == [1.0, 1.0, 2.0]


def test_an_order_is_that_of_the_other_searches() -> None:
    """Of a search whose own confirm seeds say the reverse, the others decide."""
    best = np.array([[[1.0, 1.0]] * 3, [[2.0, 2.0]] * 3])
    others_agree = stability(best, [[1.0, 1.0, 9.0], [2.0, 2.0, 2.0]], [(0, 1)])
    assert others_agree.in_order[:, 0, 0].tolist() == [False, False, True]


def test_stable_is_from_where_on_no_pair_leaves_its_order() -> None:
    lower = [[5, 1, 1, 1], [1, 1, 1, 1], [1, 9, 1, 1]]
    found = stability(np.array([lower, np.full((3, 4), 4)], dtype=float), [[1] * 3, [2] * 3], [(0, 1)])
    assert found.stable_from == (2, 1, 3)
    assert found.agreeing == (2, 2, 3, 3)
    assert found.after.estimate == pytest.approx(6 ** (1 / 3))
    third = found.share(3)
    assert third.low == pytest.approx(0.025 ** (1 / 3))
    assert third.high == 1.0


def test_an_order_that_is_lost_at_the_end_is_never_stable() -> None:
    lost = stability([[[1.0, 3.0]] * 3, [[2.0, 2.0]] * 3], [[1.0] * 3, [2.0] * 3], [(0, 1)])
    assert lost.stable_from == (math.inf,) * 3
    assert math.isinf(lost.after.estimate)


def test_ties_and_missing_losses_are_in_no_order() -> None:
    found = stability([[[math.inf, 2.0]] * 3, [[math.inf, 2.0]] * 3], [[1.0] * 3, [2.0] * 3], [(0, 1)])
    assert not found.in_order.any()


def arm(optimizer: str, test: float, losses: Sequence[float], repeats: int, noise: float = 0.001) -> ArmRecord:
    """An arm whose searches all went alike, and whose confirm seeds end near `test`."""
    trials = []
    for repeat in range(repeats):
        held = [
            *searched({10.0 ** (slot - 5): loss for slot, loss in enumerate(losses)}),
            *confirmed(test + noise * repeat, test - noise * repeat**2),
        ]
        trials += [replace(trial, seed=repeat * SEEDS_PER_REPEAT + trial.seed) for trial in held]
    chosen = Chosen({"lr": 0.1}, 1.0, 1, {}, {}, (0,))
    return made({"optimizer": optimizer}, trials, chosen=chosen, chosen_again=(chosen,) * (repeats - 1))


def over(repeats: int = 4, trials: int = 8, tests: Sequence[float] = (1.0, 2.0), noise: float = 0.001) -> Group:
    arms = tuple(
        arm(name, test, losses[:trials], repeats, noise * (place + 1))
        for place, (name, test, losses) in enumerate(zip(("adamw", "soap"), tests, (LATE, STEADY), strict=True))
    )
    plan = SweepPlan(repeats=repeats, search=SearchTerms(trials=trials), confirm=ConfirmTerms(seeds=2))
    (found,) = compare([SweepRecord("s", "0", None, plan, Environment(), "", (), arms)])
    return found


def test_what_is_said_of_a_group() -> None:
    found = ranking_over_trials(over())
    assert found is not None
    assert found.stability.stable_from == (4,) * 4
    assert found.sentence == (
        "The pair of arms told apart is in the order that the other searches' confirm seeds give from trial 4 of 8 "
        "on in each of 4 searches: after 2 trials in 0 of 4 (95 % interval 0 to 60 %) and after 4 trials in 4 of 4 "
        "(95 % interval 40 to 100 %)."
    )


@pytest.mark.parametrize(
    ("worst", "said"),
    [
        (
            [2, 2, 8],
            "from trial 3.2 of 8 on (geometric mean over 3 searches, 95 % interval 1.0 to 8.0; in each from 2, 2 and "
            "8)",
        ),
        ([2, 9, 9], "by trial 8 in fewer than half of 3 searches (from 2, never and never)"),
        (
            [2, 3, 9],
            "from trial 3.0 of 8 on (median over 3 searches, without an interval; in each from 2, 3 and never)",
        ),
        ([9, 9, 9], "from no trial of 8 on"),
    ],
)
def test_from_which_trial_on_in_words(worst: list[int], said: str) -> None:
    """Searches whose pair is in order from a trial on; of 9 of 8, never."""
    in_order = np.array([[[trial >= first for trial in range(1, 9)]] for first in worst])
    assert said_from(Stability(in_order)) == said


@pytest.mark.parametrize(
    "group",
    [over(repeats=2), over(trials=7), over(tests=(1.0, 1.0), noise=0.1)],
    ids=["two searches", "seven trials", "nothing told apart"],
)
def test_nothing_is_said_of_too_little(group: Group) -> None:
    assert ranking_over_trials(group) is None
    assert ranking.plans(group) == []


def test_the_figure_says_n_and_what_its_bands_are() -> None:
    (plan,) = ranking.plans(over())
    assert "n = 4 searches" in plan.caption
    assert "t interval over searches" in plan.caption
    assert "Clopper–Pearson" in plan.caption
    with canvas.style():
        above, below = plan.draw().axes
    assert below.get_xlabel() == "search trials"
    (shares,) = below.get_lines()
    assert np.asarray(shares.get_ydata()).tolist() == [0, 0, 0, 100, 100, 100, 100, 100]
    assert [np.asarray(line.get_ydata())[-1] for line in above.get_lines()] == [0.0, 2.0]
