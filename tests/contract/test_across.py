"""What the report says across tasks, and where there is nothing to say, of made-up results with known answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hand_sweeps import HALVING, NOISE, arm, by_length, found, seeds, sweep
from optsweep.inference.statistics import performance_profile
from optsweep.report.across.findings import across
from optsweep.report.across.tasks import MOST_TAU, mean_ranks, over_tasks, scores
from optsweep.report.comparison import Conclusion, compare
from optsweep.report.figures.canvas import style
from optsweep.report.figures.ranks import plans as rank_plans
from optsweep.report.write import across_plans
from optsweep.tracking.reader import SweepRecord
from optsweep.tracking.schema import Environment, SweepPlan


def two_tasks(**known: Any) -> SweepRecord:
    """Of task a the target is the task's own, of task b nobody reaches it; soap takes half and twice the steps."""
    own, hopeless = {"target_loss": 2.5}, {"target_loss": 0.1}
    slow, fast = {100: 3.0, 200: 2.5, 400: 2.0}, {100: 2.4, 200: 2.3, 400: 1.9}
    return sweep(
        arm("adamw", seeds(2.0), task="a", reached=slow, facts=own, **known),
        arm("soap", seeds(1.0, NOISE[::-1]), task="a", reached=fast, facts=own),
        arm("adamw", seeds(2.0), task="b", reached={100: 2.4, 200: 2.0, 400: 2.0}, facts=hopeless),
        arm("soap", seeds(2.0, NOISE[::-1]), task="b", reached={100: 3.0, 200: 2.4, 400: 2.0}, facts=hopeless),
    )


def test_targets_profile_and_verdicts_over_tasks() -> None:
    (tasks,) = over_tasks(compare([two_tasks()]))
    a, b = tasks.tasks
    assert a.target is not None
    assert b.target is not None
    assert (a.target.loss, a.target.of_task) == (2.5, True)
    assert (b.target.loss, b.target.of_task) == (2.0, False)
    assert tasks.steps.tolist() == [[200, 100], [200, 400]]
    assert tasks.seconds is not None
    assert tasks.seconds.tolist() == [[0.4, 0.2], [0.4, 0.8]]
    assert performance_profile(tasks.steps, [1, 1.9, 2]).tolist() == [[0.5, 0.5, 1.0], [0.5, 0.5, 1.0]]
    assert dict(tasks.outcomes[1]) == {Conclusion.BETTER: 1, Conclusion.NO_DIFFERENCE: 1}
    assert [arm.label for arm in tasks.arms] == ["adamw", "soap"]
    ((_, finding),) = found(two_tasks()).tasks
    assert finding.sentences[0] == "Over 2 tasks, against adamw: soap better on 1 and no difference shown on 1."
    assert any("The target of b is adamw's median final validation loss" in note for note in finding.notes)


def test_an_even_number_of_seeds_leaves_the_baseline_its_own_target() -> None:
    arms = [arm(o, seeds(2.0), task=t) for t in "ab" for o in ("adamw", "soap")]
    (tasks,) = over_tasks(compare([sweep(*arms)]))
    assert np.isfinite(tasks.steps).all()


def test_seconds_need_every_arm_timed() -> None:
    (tasks,) = over_tasks(compare([two_tasks(ms=None)]))
    assert tasks.seconds is None


def test_score_is_the_mean_height_of_the_profile() -> None:
    times = np.array([[100, 150, math.inf], [400, 100, 1000], [math.inf] * 3])
    taus = np.linspace(1, MOST_TAU, 300_001)
    profile = performance_profile(times, taus)
    assert scores(times) == pytest.approx(profile.mean(1), abs=1e-4)
    assert scores(times) == pytest.approx([1 / 3, (2.5 / 3 + 1) / 3, 0])


def test_mean_ranks() -> None:
    clear = np.add.outer(np.array(NOISE), [0.0, 1.0, 2.0])
    turned = clear[:, ::-1]
    ranks = mean_ranks([clear, clear, turned])
    assert [rank.estimate for rank in ranks] == pytest.approx([5 / 3, 2, 7 / 3])
    assert [(rank.low, rank.high) for rank in ranks] == [pytest.approx((r.estimate,) * 2) for r in ranks]
    assert mean_ranks([[[1.0, 2.0]]])[0].low is None
    assert mean_ranks([]) == []
    lost = mean_ranks([[[1.0, 2.0], [math.inf, 2.1], [1.0, 2.2]]])
    assert [rank.estimate for rank in lost] == [2, 1]
    tight = mean_ranks([np.random.default_rng(0).normal(size=(6, 2))])[0]
    assert tight.low == 1
    assert tight.high == 2


def test_only_arms_of_every_task_count_and_the_others_are_named() -> None:
    arms = [arm(o, seeds(2.0), task=t) for t in "abc" for o in ("adamw", "soap")]
    lonely = [arm(o, seeds(2.0), task="d") for o in ("adamw", "muon")]
    ((tasks, finding),) = found(sweep(*arms, arm("lion", seeds(2.0), task="a"), *lonely)).tasks
    assert [task.task for task in tasks.tasks] == ["a", "b", "c"]
    assert "Too few arms ran on d as well, so it is left out." in finding.notes
    assert "Left out for want of a result on every task: lion." in finding.notes


def test_of_several_run_lengths_the_longest_stands_for_its_task() -> None:
    arms = [arm(o, seeds(2.0), task=t, steps=n, axis=True) for t in "ab" for n in (100, 400) for o in ("adamw", "soap")]
    result = found(sweep(*arms))
    assert [lengths.title for lengths, _ in result.run_lengths] == ["a", "b"]
    ((tasks, finding),) = result.tasks
    assert [task.group.title for task in tasks.tasks] == ["a, steps 400", "b, steps 400"]
    assert "left out: demo's a, steps 100 and demo's b, steps 100" in finding.notes[0]


def test_of_two_sweeps_with_the_same_task_the_one_left_out_is_named() -> None:
    first = two_tasks()
    ((tasks, finding),) = found(first, replace(first, name="again")).tasks
    assert {task.group.sweep.name for task in tasks.tasks} == {"demo"}
    assert finding.notes[0].endswith("left out: again's a and again's b.")


# -- what isn't there ----------------------------------------------------------------------------------------------


def test_one_group_says_nothing_across() -> None:
    assert not found(sweep(arm("adamw", seeds(2.0)), arm("soap", seeds(1.0))))
    assert not found(SweepRecord("none", "1", None, SweepPlan(), Environment(), "", (), ()))


@pytest.mark.parametrize("losses", [[None, None], [2.0], [2.0, 2.0], [], [2.0, None]])
def test_poor_results_crash_nothing(losses: list[float | None]) -> None:
    for axis, tasks in ((True, "a"), (False, "ab"), (True, "ab")):
        arms = [
            arm(o, losses, task=t, steps=n, axis=axis, schedule=s, ms=None)
            for t in tasks
            for n in ((100, 200) if axis else (100,))
            for o, s in (("adamw", "cosine"), ("soap", "schedule_free"), ("lion", "cosine"), ("muon", "wsd"))
        ]
        groups = compare([sweep(*arms)])
        result = across(groups)
        with style():
            for plan in [plan for held in across_plans(result) for plan in held]:
                plan.draw()
            for group in groups:
                for plan in rank_plans(group):
                    plan.draw()
        assert all(text.endswith(".") for text in result.around([]))


def test_ranks_are_drawn_from_four_arms_on() -> None:
    four = [arm(o, seeds(2.0 + place)) for place, o in enumerate("abcd")]
    (group,) = compare([sweep(*four)])
    (plan,) = rank_plans(group)
    assert plan.name == "ranks"
    assert "charlm + a 1 (1 to 1)" in plan.alt
    (group,) = compare([sweep(*four[:3])])
    assert rank_plans(group) == []


def test_figures_name_what_is_drawn() -> None:
    result = found(sweep(*by_length("adamw", HALVING), *by_length("soap", {100: 3.0, 200: 2.0, 400: 1.0})), two_tasks())
    drawn = [[plan.name for plan in held] for held in across_plans(result)]
    assert drawn[0] == ["frontier", "speedup"]
    assert drawn[1:] == [["profile", "ranks"]]
    speedup = across_plans(result)[0][1]
    assert "Hollow" in speedup.caption
    assert "n = 6 seeds" in speedup.caption
    assert "0.5× at 100" in speedup.alt
