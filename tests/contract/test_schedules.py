"""Schedules: golden vectors of the first, last and switching steps, torch's schedulers, and what all must hold to."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from drive import CONF
from multipliers import STEPS, golden, multipliers
from optsweep.optim.schedule_functions import Floats
from optsweep.optim.schedules import Schedule, schedule_names, schedule_options, traits_of, warmup_names

AVERAGING = ("averaging_beta", "decay_at")  # options in conf/schedule/ that are the iterate's


def options_of(path: Path) -> dict[str, Any]:
    config = yaml.safe_load(path.read_text())
    return {key: value for key, value in config.items() if key not in ("name", *AVERAGING)}


YAMLS = {path.stem: options_of(path) for path in sorted((CONF / "schedule").glob("*.yaml"))}


@pytest.mark.parametrize(
    ("name", "options", "warmup_steps", "steps", "expected"),
    [
        ("constant", {}, 0, [0, 99], [1, 1]),
        ("constant", {}, 4, [0, 1, 3, 4, 99], [0.25, 0.5, 1, 1, 1]),
        ("linear", {}, 0, [0, 33, 66, 99], [1, 2 / 3, 1 / 3, 0]),
        ("linear", {"final": 0.1}, 1, [0, 1, 50, 99], [1, 1, 0.55, 0.1]),
        ("cosine", {}, 0, [0, 33, 66, 99], [1, 0.75, 0.25, 0]),
        ("cosine", {"final": 0.01}, 19, [0, 18, 19, 59, 99], [1 / 19, 1, 1, 0.505, 0.01]),
        ("polynomial", {"power": 2.0, "final": 0.1}, 0, [0, 33, 99], [1, 0.1 + 0.9 * 4 / 9, 0.1]),
        ("exponential", {"final": 0.01}, 0, [0, 33, 99], [1, 0.01 ** (1 / 3), 0.01]),
        ("exponential", {"final": 0.01}, 10, [9, 10, 99], [1, 0.01 ** (10 / 99), 0.01]),
        ("step", {"step_size": 30, "gamma": 0.5}, 0, [0, 29, 30, 59, 60, 99], [1, 1, 0.5, 0.5, 0.25, 0.125]),
        ("step", {"step_size": 0.5, "gamma": 0.1}, 10, [9, 10, 49, 50, 99], [1, 1, 1, 0.1, 0.1]),
        ("multi_step", {"milestones": [20, 0.8], "gamma": 0.1}, 0, [19, 20, 79, 80], [1, 0.1, 0.1, 0.01]),
        ("cosine_restarts", {"first": 50}, 0, [0, 25, 50, 75, 99], [1, 0.5, 1, 0.5, 0]),
        ("cosine_restarts", {"first": 20, "factor": 4.0}, 0, [0, 10, 20, 60, 99], [1, 0.5, 1, 0.5, 0]),
        ("one_cycle", {"start": 0.1, "final": 0.0, "anneal": "linear"}, 0, [0, 29, 64, 99], [0.1, 1, 0.5, 0]),
        ("one_cycle", {"start": 0.1, "final": 0.0}, 0, [0, 29, 64, 99], [0.1, 1, 0.5, 0]),
        ("inverse_sqrt", {}, 25, [0, 24, 25, 99], [0.04, 1, 1, (25 / 99) ** 0.5]),
        ("inverse_sqrt", {"time_scale": 1}, 0, [0, 3, 99], [1, 0.5, 0.1]),
        ("wsd", {"shape": "linear"}, 0, [0, 79, 80, 89, 99], [1, 1, 0.95, 0.5, 0]),
        ("wsd", {"cooldown": 25, "final": 0.1}, 10, [9, 74, 75, 90, 99], [1, 1, 1 - 0.9 * 0.2, 1 - 0.9 * 0.8, 0.1]),
        ("plateau", {}, 0, [0, 99], [1, 1]),
        ("schedule_free", {}, 4, [0, 3, 4, 99], [0.25, 1, 1, 1]),
    ],
)
def test_golden_vectors(
    name: str, options: Mapping[str, Any], warmup_steps: int, steps: list[int], expected: list[float]
) -> None:
    warmup = "linear" if warmup_steps else "none"
    assert golden(name, options, steps, warmup=warmup, warmup_steps=warmup_steps) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        ("linear", [0.25, 0.5, 0.75, 1, 1]),
        ("cosine", [0.5 - 0.125**0.5, 0.5, 0.5 + 0.125**0.5, 1, 1]),
        ("exponential", [0.01**0.75, 0.1, 0.01**0.25, 1, 1]),
        ("none", [1, 1, 1, 1, 1]),
    ],
)
def test_warmups(warmup: str, expected: list[float]) -> None:
    assert golden("constant", {}, [0, 1, 2, 3, 4], warmup=warmup, warmup_steps=4) == pytest.approx(expected, abs=1e-15)


# -- torch.optim.lr_scheduler: where ours runs over T − 1 intervals to reach its final value at the last step, torch's
#    T_max, total_iters and so on are T − 1.


def of_torch(build: Callable[..., Any], num_steps: int = STEPS, lr: float = 1.0) -> Floats:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = build(optimizer)
    values = []
    for _ in range(num_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(values)


schedulers = torch.optim.lr_scheduler
LAST = STEPS - 1


@pytest.mark.parametrize(
    ("name", "options", "build"),
    [
        ("linear", {"final": 0.1}, lambda o: schedulers.LinearLR(o, 1.0, 0.1, LAST)),
        ("cosine", {"final": 0.1}, lambda o: schedulers.CosineAnnealingLR(o, LAST, 0.1)),
        ("polynomial", {"power": 3.0}, lambda o: schedulers.PolynomialLR(o, LAST, 3.0)),
        ("exponential", {"final": 0.05}, lambda o: schedulers.ExponentialLR(o, 0.05 ** (1 / LAST))),
        ("step", {"step_size": 30, "gamma": 0.3}, lambda o: schedulers.StepLR(o, 30, 0.3)),
        ("multi_step", {"milestones": [7, 60], "gamma": 0.3}, lambda o: schedulers.MultiStepLR(o, [7, 60], 0.3)),
    ],
)
def test_equals_torch(name: str, options: Mapping[str, Any], build: Callable[..., Any]) -> None:
    assert multipliers(name, options) == pytest.approx(of_torch(build), abs=1e-12)


def test_restarts_equal_torch_but_for_the_last_step() -> None:
    theirs = of_torch(lambda o: schedulers.CosineAnnealingWarmRestarts(o, 25, 1, eta_min=0.1))
    ours = multipliers("cosine_restarts", {"first": 25, "final": 0.1})
    assert ours[:-1] == pytest.approx(theirs[:-1], abs=1e-12)
    assert ours[-1] == 0.1


@pytest.mark.parametrize("first", [0.25, 1 / 3])
def test_restarts_by_a_fraction_end_at_the_final_multiplier_in_a_run_of_any_length(first: float) -> None:
    for total in range(100, 701):
        schedule = Schedule("cosine_restarts", {"first": first, "final": 0.01}, "linear", round(0.05 * total))
        assert schedule.multipliers(total, total)[-1] == 0.01, total


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_one_cycle_equals_torch(anneal: str) -> None:
    def build(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.OneCycleLR:
        return schedulers.OneCycleLR(
            optimizer,
            1.0,
            total_steps=STEPS + 1,  # torch raises on the step after its last
            pct_start=30 / (STEPS + 1),
            anneal_strategy="cos" if anneal == "cosine" else "linear",
            cycle_momentum=False,
        )

    # torch has one interval more here, so compare its run of 101 steps with ours of 101.
    theirs = of_torch(build)
    ours = multipliers("one_cycle", {"anneal": anneal, "rise": 30 / (STEPS + 1)}, num_steps=STEPS + 1)[:STEPS]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_plateau_equals_torch() -> None:
    losses = np.random.default_rng(0).choice([1.0, 0.9, 0.8, 0.5, 0.49999], 60)
    cases: list[dict[str, Any]] = [
        {"patience": 3, "factor": 0.5, "cooldown": 2, "final": 0.01},
        {"patience": 0, "factor": 0.3},
    ]
    for options in cases:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler = schedulers.ReduceLROnPlateau(
            optimizer,
            patience=options["patience"],
            factor=options["factor"],
            cooldown=options.get("cooldown", 0),
            min_lr=options.get("final", 0.0),
            eps=0.0,
        )
        trial = Schedule("plateau", options).start(60)
        for i, loss in enumerate(losses):
            trial.extend(i + 1)
            trial.observe(loss)
            assert trial.values[-1] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
            scheduler.step(loss)


def test_plateau_changes_nothing_that_was_applied_and_ignores_warmup() -> None:
    trial = Schedule("plateau", {"patience": 0, "factor": 0.5}, "linear", 10).start(40)
    trial.observe(1.0)  # before the first step
    for end, loss in ((10, 2.0), (20, 1.0), (30, 3.0), (40, 0.5)):
        trial.extend(end)
        trial.observe(loss)
    assert trial.values[[9, 10, 19, 20, 29, 30, 39]].tolist() == [1, 1, 1, 1, 1, 0.5, 0.5]


# -- what every schedule must hold to ----------------------------------------------------------------------------------


def test_every_schedule_and_warmup_has_its_yaml() -> None:
    assert sorted(YAMLS) == schedule_names()
    warmups = {path.stem for path in (CONF / "warmup").glob("*.yaml")}
    assert sorted(warmups - {"suggested"}) == warmup_names()


@pytest.mark.parametrize("name", schedule_names())
def test_yaml_holds_every_option_with_its_default(name: str) -> None:
    defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in schedule_options(name).items()}
    assert YAMLS[name] == pytest.approx(defaults) if name == "step" else YAMLS[name] == defaults


@pytest.mark.parametrize("name", schedule_names())
@pytest.mark.parametrize("warmup", warmup_names())
@pytest.mark.parametrize("num_steps", [2, 7, 100])
def test_every_combination_is_finite_and_extends_as_it_computes_at_once(name: str, warmup: str, num_steps: int) -> None:
    warmup = "none" if traits_of(name).own_warmup else warmup
    options = YAMLS[name] | ({"time_scale": 5} if name == "inverse_sqrt" else {})
    schedule = Schedule(name, options, warmup, 0 if warmup == "none" else max(1, num_steps // 5))
    assert schedule.notes(num_steps) == []
    whole = schedule.multipliers(num_steps, num_steps)
    assert whole.dtype == np.float64
    assert ((whole >= 0) & (whole <= 1 + 1e-12)).all()
    trial = schedule.start(num_steps)
    for end in sorted({1, num_steps // 3, num_steps // 2, num_steps} - {0}):
        trial.extend(end)
    assert np.array_equal(trial.values, whole)


@pytest.mark.parametrize(
    "name", [n for n in schedule_names() if "final" in schedule_options(n) and not Schedule(n).listens]
)
def test_final_multiplier_is_reached_exactly_at_the_last_step(name: str) -> None:
    warmup = ("none", 0) if traits_of(name).own_warmup else ("linear", 20)
    assert multipliers(name, {"final": 0.125}, *warmup)[-1] == pytest.approx(0.125, abs=1e-15)


@pytest.mark.parametrize("name", schedule_names())
def test_warmup_of_no_steps_is_no_warmup(name: str) -> None:
    options = {"time_scale": 5} if name == "inverse_sqrt" else {}
    assert np.array_equal(multipliers(name, options, "linear", 0), multipliers(name, options))


def test_multipliers_resume_from_their_state() -> None:
    schedule = Schedule("plateau", {"patience": 0, "factor": 0.5})
    trial = schedule.start(30)
    for end in (10, 20):
        trial.extend(end)
        trial.observe(1.0)
    resumed = trial.restored(schedule, 30, json.loads(json.dumps(trial.state())))
    pickled, copied = pickle.loads(pickle.dumps(trial)), trial.copy()
    for each in (trial, resumed, pickled, copied):
        each.extend(30)
        assert each.values[-1] == 0.5
    copied.observe(1.0)
    assert len(trial.observed) == 2


@pytest.mark.parametrize("patience", [0, 2, 5])
@pytest.mark.parametrize("warmup_steps", [0, 20])
def test_patience_is_the_number_of_bad_evaluations_after_which_the_lr_falls(patience: int, warmup_steps: int) -> None:
    schedule = Schedule("plateau", {"patience": patience, "cooldown": 1}, "linear", warmup_steps)
    trial = schedule.start(STEPS)
    trial.extend(50)
    observed = 0
    while trial.values[-1] == 1:
        trial.observe(1.0)
        observed += 1
        trial.extend(50 + observed)
    assert schedule.patience(STEPS) == observed == patience + 2  # the first is a new best
    assert Schedule("plateau", {"final": 1.0}).patience(STEPS) is None
    assert Schedule("cosine").patience(STEPS) is None
