"""Figures of learning rates: what is known of a schedule is drawn at every step, and what is logged where it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hand_figures import WARMED, confirmed, group, known, made, scheduled
from optsweep.report.comparison import Group
from optsweep.report.figures import canvas, learning_rate, schedules
from optsweep.tracking import names
from optsweep.tracking.reader import Curve


def test_a_logarithmic_axis_ends_where_the_drawn_one_does_and_the_curves_go_on() -> None:
    (plan,) = learning_rate.plans(group(known("wsd", WARMED), known("cosine", [1.0, 0.5, 1e-7])))
    assert plan.touch is not None
    held = plan.touch.as_json({line.arm: 0 for line in plan.touch.lines})
    assert held["floor"] == pytest.approx(0.1 / 100)
    assert min(value for value in held["lines"][1]["y"] if value is not None) == pytest.approx(1e-8)


@pytest.mark.parametrize(("plans", "peak"), [(learning_rate.plans, 0.1), (schedules.plans, 1.0)])
def test_a_schedule_that_is_known_is_drawn_at_every_step_its_warm_up_included(
    plans: Callable[[Group], list[canvas.FigurePlan]], peak: float
) -> None:
    linear = [1 - step / 499 for step in range(500)]
    (plan,) = plans(group(known("wsd", WARMED), known("linear", linear), *scheduled("plateau")))
    drawn = [line for axes in plan.draw().axes for line in axes.lines]
    x, y = (np.asarray(values, dtype=float) for values in drawn[0].get_data())
    assert x.tolist() == list(range(500))
    np.testing.assert_allclose(y, peak * np.array(WARMED))
    assert y[0] == pytest.approx(peak / 20)
    assert np.asarray(drawn[2].get_xdata()).tolist() == list(range(9, 100, 10))  # logged, by the number of steps done
    assert "plateau" in plan.caption


def test_a_schedule_is_shown_relative_to_the_arms_own_rate() -> None:
    steps = np.array([50, 100])
    logged = {names.LR: Curve(steps, np.array([0.05, 0.02]))}  # logged after the peak
    arm = made({"schedule": "inverse_sqrt"}, confirmed(1.0, curves=logged), fixed={"lr": 0.1})
    (shape,) = schedules._shapes(group(arm))
    np.testing.assert_allclose(shape.multiplier, [0.5, 0.2])


def test_a_rate_that_was_held_falls_right_after_the_point_that_held_it() -> None:
    logged = {names.LR: Curve(np.array([20, 40, 50, 60, 80]), np.array([0.1, 0.1, 0.1, 0.01, 0.01]))}
    arm = made({"schedule": "plateau"}, confirmed(1.0, curves=logged), fixed={"lr": 0.1})
    trace = learning_rate.applied(group(arm).arms[0])
    assert trace is not None
    assert trace.steps.tolist() == [19, 39, 49, 50, 59, 79]
    assert trace.rates.tolist() == [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
