"""Options of schedules: what is refused and how, whole numbers and fractions, and schedules of the user's own."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from multipliers import STEPS, golden, multipliers
from optsweep.optim.schedule_functions import Floats, Steps, special
from optsweep.optim.schedules import Schedule, schedule_names, traits_of


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "cosin"}, "schedule=cosin doesn't exist"),
        ({"warmup": "slow"}, "warmup=slow doesn't exist"),
        ({"name": "cosine", "options": {"end": 1}}, "schedule.end is no option"),
        ({"name": "constant", "options": {"end": 1}}, "it has none"),
        ({"warmup": "linear", "warmup_steps": -1}, "must not be negative"),
        ({"name": "one_cycle", "warmup": "linear", "warmup_steps": 3}, "its own warm-up"),
    ],
)
def test_what_does_not_exist_is_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Schedule(**arguments)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"warmup": "linear", "warmup_steps": 101}, "longer than the run"),
        ({"name": "cosine_restarts", "options": {"first": 101}}, "longer than"),
        ({"name": "inverse_sqrt"}, "needs schedule.time_scale"),
        ({"name": f"{__name__}.negative"}, "negative"),
        ({"name": f"{__name__}.mistyped"}, "wrong type"),
    ],
)
def test_what_makes_no_sense_in_a_run_is_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Schedule(**arguments).notes(STEPS)


LENGTH = "a whole number of steps ≥ 1, or a fraction of the run > 0.0 and ≤ 1.0"
SHARE = "a number ≥ 0 and ≤ 1"


@pytest.mark.parametrize(
    ("name", "key", "value", "allowed"),
    [
        *(("plateau", "factor", value, "a number > 0 and < 1") for value in (2, 1.0, 0, -0.1, "0.1", True, np.nan)),
        *(("plateau", "patience", value, "a whole number ≥ 0") for value in (-1, 1.5, "2", None)),
        ("plateau", "cooldown", -1, "a whole number ≥ 0"),
        *(("plateau", "threshold", value, "a number ≥ 0 and < 1") for value in (-1e-4, 1.0)),
        *(
            (name, "final", value, SHARE)
            for name in ("plateau", "linear", "cosine", "polynomial", "cosine_restarts", "one_cycle", "wsd")
            for value in (-0.1, 1.5, "low")
        ),
        *(("exponential", "final", value, "a number > 0 and ≤ 1") for value in (0.0, 2)),
        *((name, "gamma", value, "a number > 0 and ≤ 1") for name in ("step", "multi_step") for value in (0, 1.1)),
        ("polynomial", "power", -2.0, "a number > 0"),
        ("one_cycle", "start", 2.0, SHARE),
        ("one_cycle", "rise", 1.0, "a number > 0 and < 1"),
        ("one_cycle", "anneal", "round", "one of cosine, linear"),
        ("wsd", "shape", "round", "one of sqrt, linear"),
        ("cosine_restarts", "factor", 0.5, "a number ≥ 1"),
        *(("cosine_restarts", "first", value, LENGTH) for value in (0, 0.0, -0.5, 2.5, "all", True)),
        *(("wsd", "cooldown", value, LENGTH) for value in (0, 1.5)),
        ("step", "step_size", 0, LENGTH),
        ("inverse_sqrt", "time_scale", -1.0, f"{LENGTH}, or null"),
        ("multi_step", "milestones", 0.5, "a list of steps or of fractions of the run, such as [0.5,0.75]"),
    ],
)
def test_a_value_without_sense_is_refused_in_a_line_that_names_its_key(
    name: str, key: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        Schedule(name, {key: value})
    assert str(error.value) == f"schedule.{key}: {value!r} is not allowed; give {allowed}"


@pytest.mark.parametrize(
    ("name", "key", "whole_run", "one_step"),
    [
        ("cosine_restarts", "first", [1, 0.5, 0], [1, 1, 0]),  # a cycle is a step long, and begins at 1
        ("wsd", "cooldown", [0.99, 0.5, 0], [1, 1, 0]),
        ("step", "step_size", [1, 1, 1], [1, 0, 0]),
        ("multi_step", "milestones", [1, 1, 1], [1, 0.1, 0.1]),
        ("inverse_sqrt", "time_scale", [1, (2 / 3) ** 0.5, (100 / 199) ** 0.5], [1, 51**-0.5, 0.1]),
    ],
)
def test_one_is_a_step_and_with_a_decimal_point_the_whole_run(
    name: str, key: str, whole_run: list[float], one_step: list[float]
) -> None:
    options = {"shape": "linear"} if name == "wsd" else {}
    for value, expected in ((1.0, whole_run), (1, one_step)):
        found = golden(name, {**options, key: [value] if key == "milestones" else value}, [0, 50, 99])
        assert found == pytest.approx(expected, abs=0.02), value
    assert np.array_equal(
        multipliers("cosine_restarts", {"first": 1.0}), multipliers("cosine_restarts", {"first": STEPS})
    )
    assert np.array_equal(multipliers("wsd", {"cooldown": 1.0}), multipliers("wsd", {"cooldown": STEPS}))
    assert np.array_equal(multipliers("step", {"step_size": 30.0}), multipliers("step", {"step_size": 30}))


def test_options_of_a_users_schedule_have_the_types_that_it_states() -> None:
    with pytest.raises(ValueError, match=r"schedule\.peak: 'high' is not allowed; give a number"):
        Schedule(f"{__name__}.triangle", {"peak": "high"})


def test_a_step_size_beyond_the_run_gets_a_line() -> None:
    assert "never reduces" in Schedule("step", {"step_size": 2000}).notes(STEPS)[0]
    assert "never reduces" in Schedule("multi_step", {"milestones": [200]}).notes(STEPS)[0]
    assert Schedule("linear", {"final": 1.0}).notes(STEPS) == []


# -- schedules of the user's own ---------------------------------------------------------------------------------------


def triangle(steps: Steps, num_steps: int, *, peak: float = 0.5) -> Floats:
    """A user's own schedule, in a module of theirs."""
    return np.interp(steps.astype(np.float64), [0, peak * (num_steps - 1), num_steps - 1], [0, 1, 0])


def negative(steps: Steps, num_steps: int) -> Floats:
    """One that goes the wrong way."""
    return -np.ones(len(steps))


def mistyped(steps: Steps, num_steps: int, *, levels: Any = 3) -> Floats:
    """One that can't do with its own default."""
    multipliers: Floats = np.ones(len(steps)) * levels[0]
    return multipliers


@special(own_warmup=True)
def climbing(steps: Steps, num_steps: int) -> Floats:
    """One that declares a warm-up of its own."""
    return (steps + 1) / num_steps


def test_what_a_schedule_declares_holds_wherever_it_is_defined() -> None:
    assert Schedule(f"{__name__}.climbing").traits.own_warmup
    with pytest.raises(ValueError, match="climbing has its own warm-up"):
        Schedule(f"{__name__}.climbing", warmup="linear", warmup_steps=3)
    assert {name for name in schedule_names() if traits_of(name).own_warmup} == {"one_cycle"}
    assert {name for name in schedule_names() if traits_of(name).iterate} == {"schedule_free"}
    assert {name for name in schedule_names() if Schedule(name).listens} == {"plateau"}


def test_a_dotted_name_is_a_function_elsewhere() -> None:
    name = f"{__name__}.triangle"
    assert golden(name, {}, [0, 50, 100], num_steps=101) == [0, 1, 0]
    assert golden(name, {"peak": 0.25}, [4, 29, 104], num_steps=105, warmup="linear", warmup_steps=4) == [0, 1, 0]
    assert pickle.loads(pickle.dumps(Schedule(name))) == Schedule(name)
    assert Schedule(name).notes(10) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.such.schedule", "can't be imported"),
        ("math.sqrt", "which a config may not name"),
        (f"{__name__}.golden", "must be a function of"),
        (f"{__name__}.nothing", "can't be imported"),
    ],
)
def test_a_dotted_name_that_is_no_schedule_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schedule(name)
