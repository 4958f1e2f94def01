"""How many points a curve of training has."""

from __future__ import annotations

from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.config.sections import steps_per_point


def test_a_curve_has_about_50_points_whatever_the_number_of_steps() -> None:
    every = {1: 1, 50: 1, 51: 2, 100: 2, 101: 5, 600: 20, 1000: 20, 1001: 50, 8000: 200, 10**7: 200_000}
    assert {steps: steps_per_point(steps) for steps in every} == every
    assert all(20 <= steps // steps_per_point(steps) <= 50 for steps in range(50, 10**5, 7))


def test_who_wants_more_points_of_a_curve_gets_them_and_the_arm_stays_what_it_is() -> None:
    auto, all_of_them = (build_arm(arm_with({}, **held)) for held in ({}, {"trainer__log_every": 1}))
    assert (auto.program.log_every, all_of_them.program.log_every) == (20, 1)
    assert auto.content == all_of_them.content
