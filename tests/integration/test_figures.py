"""Every figure of a group on hand-made sweeps: drawn when there is data, absent when not, whatever the data."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsweep.report import (
    figures,
    figures_curves,
    figures_grid,
    figures_heat,
    figures_importance,
    figures_paths,
    figures_schedules,
    figures_search,
    write,
)
from optsweep.report.comparison import Group, compare
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve, SweepRecord, TrialRecord
from optsweep.tracking.schema import Chosen, Environment, RangeRecord, SweepPlan, Timing
from optsweep.train.trial import Phase

HOSTILE = "_<b>&\"$\\frac{1}{2}$_λ→∞'"
FINISHED, DIVERGED, PRUNED = Status.FINISHED, Status.DIVERGED, Status.PRUNED


def trial(
    phase: Phase,
    slot: int,
    loss: float | None,
    status: Status = FINISHED,
    params: Mapping[str, float] | None = None,
    **known: Any,
) -> TrialRecord:
    metrics = {} if loss is None else {names.VAL_LOSS: loss}
    if phase is Phase.CONFIRM and status is FINISHED and loss is not None:
        metrics[names.TEST_LOSS] = loss + 0.01 * slot
    return TrialRecord(
        run_id=f"{phase}{slot}",
        arm="",
        phase=phase,
        slot=slot,
        seed=slot,
        origin="quasi-random",
        status=status,
        error="",
        params={key: repr(value) for key, value in (params or {}).items()},
        metrics=metrics,
        train_seconds=1.0,
        state_bytes=8.0,
        lanes=1,
        **known,
    )


def made(choices: Mapping[str, str], trials: Sequence[TrialRecord], label: str = "", **known: Any) -> ArmRecord:
    choices = {"task": "t", "optimizer": "sgd", "schedule": "constant", **choices}
    name = " ".join(f"{key}={value}" for key, value in choices.items()) + label
    held: dict[str, Any] = {
        "run_id": "r",
        "fingerprint": "",
        "space": {},
        "fixed": {},
        "chosen": None,
        "timing": None,
        "facts": {"loss_unit": "nats", "num_steps": 100},
        "warnings": (),
    }
    return ArmRecord(name=name, label=label or name, choices=choices, trials=tuple(trials), **(held | known))


def group(*arms: ArmRecord) -> Group:
    (found,) = compare([SweepRecord("s", "0", None, SweepPlan(), Environment(), "", (), arms)])
    return found


def confirmed(*losses: float, **known: Any) -> list[TrialRecord]:
    """Confirm trials by seed; infinity: it diverged."""
    return [
        trial(Phase.CONFIRM, seed, loss, FINISHED if math.isfinite(loss) else DIVERGED, **known)
        for seed, loss in enumerate(losses)
    ]


def searched(losses: Mapping[float, float], **others: Sequence[float]) -> list[TrialRecord]:
    """Search trials by learning rate."""
    return [
        trial(
            Phase.SEARCH,
            slot,
            loss,
            FINISHED if math.isfinite(loss) else DIVERGED,
            {"lr": lr} | {key: values[slot] for key, values in others.items()},
        )
        for slot, (lr, loss) in enumerate(losses.items())
    ]


VALLEY = {10 ** (-4 + i / 3): 1.0 + (i - 5) ** 2 / 10 for i in range(9)} | {2.0: math.inf}


def rates(optimizer: str, *losses: Sequence[float], **choices: str) -> list[ArmRecord]:
    """Arms that differ in optimizer.lr; losses of the confirm seeds of each."""
    return [
        made({"optimizer": optimizer, "optimizer.lr": f"{10.0 ** (place - 3)}", **choices}, confirmed(*held))
        for place, held in enumerate(losses)
    ]


def warmups(lengths: Sequence[str] = ("0", "0.05", "0.2")) -> list[ArmRecord]:
    return [made({"warmup": "linear", "warmup.steps": length}, searched(VALLEY)) for length in lengths]


def modes(*found: str, losses: Sequence[float] = (1.0, 1.1, 1.2)) -> list[ArmRecord]:
    return [
        made(
            {} if mode == "none" else {"weight_decay": mode},
            confirmed(*losses),
            fixed={"weight_decay": 0.0 if mode == "none" else 0.1},
        )
        for mode in found
    ]


def descents(number: int, surface: str = "valley", points: Any = None, **known: Any) -> list[ArmRecord]:
    down = np.linspace((-9.0, 1.5), (-0.5, 0.0), 30)
    path = down if points is None else np.asarray(points, dtype=float)
    return [
        made({"optimizer": f"o{i}"}, confirmed(0.5, path=path if i == 0 else down), surface=surface, **known)
        for i in range(number)
    ]


def scheduled(*schedules: str, value: float = 0.1) -> list[ArmRecord]:
    steps = np.arange(10, 101, 10)
    curves = {names.LR: Curve(steps, value * (1 - steps / 100))}
    return [made({"schedule": name}, confirmed(1.0, 1.1, curves=curves), fixed={"lr": value}) for name in schedules]


def both(key: str = "momentum", *, log: bool = False, trials: int = 10) -> list[ArmRecord]:
    space = {"lr": RangeRecord(1e-4, 1.0, True, ""), key: RangeRecord(0.1, 0.9, log, "")}
    values = np.linspace(0.1, 0.9, 10).tolist()
    held = searched(dict(list(VALLEY.items())[-trials:]), **{key: values})
    chosen = Chosen({"lr": 0.01, key: 0.5}, 1.0, 1, {}, {}, ())
    return [made({}, held, space=space, chosen=chosen)]


CASES: list[tuple[str, Callable[[Group], list[figures.Plan]], list[ArmRecord], list[str]]] = [
    ("search", figures_search.plans, both(), ["lr_sensitivity", "lr_momentum", "tuning"]),
    ("decay", figures_search.plans, both("weight_decay", log=True), ["lr_sensitivity", "lr_decay", "tuning"]),
    ("odd key", figures_search.plans, both("Odd/K\u00e9y"), ["lr_sensitivity", "lr_odd_k_y", "tuning"]),
    ("one key", figures_search.plans, warmups(["0"]), ["lr_sensitivity", "tuning"]),
    ("heat of a search", figures_heat.plans, warmups(), ["heat_warmup_steps"]),
    ("heat of one row", figures_heat.plans, warmups(["0"]), []),
    (
        "heat of a grid",
        figures_heat.plans,
        [a for w in "012" for a in rates("adamw", (1.0, 1.1), (0.5,), (math.inf,), **{"warmup.steps": w})],
        ["heat_warmup_steps"],
    ),
    (
        "kind of warm-up",
        figures_heat.plans,
        [made({}, searched(VALLEY)), made({"warmup": "linear"}, searched(VALLEY))],
        ["heat_warmup"],
    ),
    (
        "words as an axis",
        figures_heat.plans,
        [made({"schedule.anneal": word}, searched(VALLEY)) for word in ("linear", "cosine")],
        ["heat_anneal"],
    ),
    (
        "batch size",
        figures_heat.plans,
        [made({"task.batch_size": word}, searched(VALLEY)) for word in ("1", "32", "full")],
        ["heat_batch_size"],
    ),
    (
        "another task",
        figures_heat.plans,
        [made({"task.surface": word}, searched(VALLEY)) for word in ("valley", "beale")],
        [],
    ),
    (
        "heat where all diverged",
        figures_heat.plans,
        [a for w in "01" for a in rates("sgd", (math.inf,), (math.inf,), **{"warmup.steps": w})],
        [],
    ),
    ("modes", figures_grid.plans, modes("none", "l2", "decoupled", "independent"), ["decay_modes"]),
    ("one seed", figures_grid.plans, modes("none", "l2", losses=(1.0,)), ["decay_modes"]),
    ("one mode", figures_grid.plans, modes("l2"), []),
    ("diverged modes", figures_grid.plans, modes("none", "l2", losses=(math.inf,)), []),
    ("no confirm trials", figures_grid.plans, modes("none", "l2", losses=()), []),
    ("rates", figures_grid.plans, rates("sgd", (3.0, 3.1), (1.0, 1.2), (math.inf, 1.4), (math.inf,)), ["lr_response"]),
    ("rates of one seed", figures_grid.plans, rates("sgd", (3.0,), (1.0,), (1e30,)), ["lr_response"]),
    ("two rates", figures_grid.plans, rates("sgd", (3.0,), (1.0,)), []),
    ("diverging rates", figures_grid.plans, rates("sgd", *[(math.inf,)] * 4), []),
    (
        "two families, one of which diverged",
        figures_grid.plans,
        [*rates("adamw", (3.0,), (1.0,), (2.0,)), *rates("muon", *[(math.inf,)] * 3)],
        ["lr_response"],
    ),
    ("paths together", figures_paths.plans, descents(2), ["paths"]),
    ("paths apart", figures_paths.plans, descents(7), ["paths"]),
    ("rosenbrock", figures_paths.plans, descents(1, "rosenbrock", [(-1.2, 1.0), (0.5, 0.2)]), ["paths"]),
    (
        "a path that leaves",
        figures_paths.plans,
        descents(2, points=[(-9, 1.5), (-9, -7), (1e30, 0), (math.nan, 0)]),
        ["paths"],
    ),
    ("a path of NaN", figures_paths.plans, descents(1, points=[(-9, 1.5), (math.nan, math.nan)]), ["paths"]),
    ("a path from nowhere", figures_paths.plans, descents(1, points=[(1e9, 1e9), (1e9, 1e9)]), ["paths"]),
    ("an unknown surface", figures_paths.plans, descents(2, "sphere"), []),
    ("no path", figures_paths.plans, modes("none", "l2"), []),
    ("schedules", figures_schedules.plans, scheduled("cosine", "linear", "wsd", "step"), ["schedules"]),
    ("two schedules", figures_schedules.plans, scheduled("cosine", "linear"), []),
    ("schedules at rate 0", figures_schedules.plans, scheduled("cosine", "linear", "wsd", value=0.0), []),
    ("importance", figures_importance.plans, both(), ["importance"]),
    ("importance of few trials", figures_importance.plans, both(trials=4), []),
    ("importance of one key", figures_importance.plans, warmups(), []),
]


@pytest.mark.parametrize(("plans", "arms", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_drawn_where_there_is_data(
    plans: Callable[[Group], list[figures.Plan]], arms: list[ArmRecord], expected: list[str]
) -> None:
    found = plans(group(*arms))
    assert [plan.name for plan in found] == expected
    for plan in found:
        assert write._place(plan.name) >= 0
        assert plan.caption.endswith(".")
        assert not plan.alt.endswith("..")
        assert "nan" not in plan.alt.split()
        with figures.style():
            plan.draw().savefig(io.BytesIO(), format="svg")


@pytest.mark.parametrize(
    ("plans", "arms"),
    [
        (figures_search.plans, both()),
        (figures_heat.plans, warmups()),
        (figures_grid.plans, [*modes("none", "l2"), *rates("adamw", (3.0,), (1.0,), (2.0,))]),
        (figures_paths.plans, descents(7)),
        (figures_schedules.plans, scheduled("a", "b", "c")),
        (figures_importance.plans, both()),
    ],
)
def test_any_name_is_safe_and_the_bytes_repeat(
    plans: Callable[[Group], list[figures.Plan]], arms: list[ArmRecord], tmp_path: Path
) -> None:
    strange = [
        replace(arm, label=f"{HOSTILE}{i}", choices={**arm.choices, "averaging": HOSTILE}) for i, arm in enumerate(arms)
    ]
    strange += [replace(arm, name=arm.name + HOSTILE, choices={**arm.choices, "averaging": "_$x"}) for arm in arms]
    found = plans(group(*strange))
    assert found
    for plan in found:
        first = figures.save(plan, "a-", tmp_path)
        figures.save(plan, "b-", tmp_path)
        assert "<b>" not in first.svg
        for kind in ("svg", "png"):
            assert (tmp_path / f"a-{plan.name}.{kind}").read_bytes() == (
                tmp_path / f"b-{plan.name}.{kind}"
            ).read_bytes()


def test_a_heat_map_says_where_the_lowest_cell_is() -> None:
    arms = [
        arm
        for row, length in enumerate(("0", "0.2"))
        for arm in rates(
            "adamw", (3.0, 3.2, 9.0), (2.0 - row, 2.0 - row), (math.inf, 1.0, math.inf), **{"warmup.steps": length}
        )
    ]
    (plan,) = figures_heat.plans(group(*arms))
    assert "lowest, 1, at warm-up length 0.2 and learning rate 0.01" in plan.alt
    cells = figures_heat._table(group(*arms).arms[:3], "warmup.steps", ["0"], [5e-4, 5e-3, 5e-2, 0.5], gridded=True)
    np.testing.assert_array_equal(cells, [[3.2, 2.0, math.inf]])  # medians; two of three diverged


def test_columns_of_a_heat_map_hold_every_trial() -> None:
    rates_tried = sorted(VALLEY)
    edges = figures_heat._bins(rates_tried, len(rates_tried))
    assert edges[0] < rates_tried[0]
    assert rates_tried[-1] < edges[-1]
    between = figures_heat._between([0.01, 0.1, 1.0])
    np.testing.assert_allclose(between, [10**-2.5, 10**-1.5, 10**-0.5, 10**0.5])


def test_families_are_named_by_what_tells_them_apart() -> None:
    held = group(*modes("none", "l2"), *rates("adamw", (1.0,))).arms
    assert set(figures_grid.families(held, "weight_decay")) == {"sgd", "adamw + lr=0.001"}
    assert set(figures_grid.families(held[:2], "weight_decay")) == {""}


def test_labels_keep_what_tells_arms_apart() -> None:
    long = [made({"optimizer.lr": lr}, [], f"adamw + cosine + lr={lr}") for lr in ("0.1", "1")]
    arms = group(*long).arms
    assert figures.labels(arms) == ["adamw + cosine + lr=0.1", "adamw + cosine + lr=1"]
    assert figures.labels(arms, 20) == ["lr=0.1", "lr=1"]
    assert figures.labels(arms[:1], 12) == ["adamw + cos…"]
    by_recipe = group(
        *(made({"recipe": name}, [], f"{name} with a long warm-up") for name in ("lion_cosine", "muon_wsd"))
    ).arms
    assert figures.labels(by_recipe, 12) == ["lion_cosine", "muon_wsd"]
    assert figures.labels(by_recipe)[0] == "lion_cosine with a long warm-up"


@pytest.mark.parametrize(("lowest", "log"), [(1e-9, True), (0.5, False), (0.0, False)])
def test_losses_decades_apart_are_on_a_log_axis(lowest: float, log: bool) -> None:
    ends = [
        confirmed(end, curves={names.VAL_LOSS: Curve(np.array([0, 50, 100]), np.array([2.0, 1.0, end]))})
        for end in (lowest, 1.0)
    ]
    arms = [made({"optimizer": f"o{place}"}, trials) for place, trials in enumerate(ends)]
    (plan,) = [plan for plan in figures_curves.plans(group(*arms)) if plan.name == "val_loss"]
    with figures.style():
        axes = plan.draw().axes[0]
    assert axes.get_yscale() == ("log" if log else "linear")
    assert ("log scale" in axes.get_ylabel()) is log


def test_a_loss_of_zero_is_a_loss() -> None:
    assert figures_search.last_loss(trial(Phase.SEARCH, 0, 0.0)) == 0
    assert figures_search.last_loss(trial(Phase.SEARCH, 0, math.nan)) == math.inf
    assert figures_search.last_loss(trial(Phase.SEARCH, 0, 1.0, DIVERGED)) == math.inf


def test_a_schedule_is_shown_relative_to_the_arms_own_rate() -> None:
    steps = np.array([50, 100])
    curves = {names.LR: Curve(steps, np.array([0.05, 0.02]))}  # logged after the peak
    arm = made({"schedule": "inverse_sqrt"}, confirmed(1.0, curves=curves), fixed={"lr": 0.1})
    (shape,) = figures_schedules._shapes(group(arm))
    np.testing.assert_allclose(shape.multiplier, [0.5, 0.2])


def test_seconds_need_two_timed_arms() -> None:
    curves = {names.VAL_LOSS: Curve(np.array([0, 50, 100]), np.array([2.0, 1.5, 1.0]))}
    timed = [
        made({"optimizer": o}, confirmed(1.0, 1.1, curves=curves), timing=Timing(ms, ms, ms, 5))
        for o, ms in (("a", 1.0), ("b", 3.0))
    ]
    drawn = {plan.name: plan for plan in figures_curves.plans(group(*timed))}
    assert "0.3 s" in drawn["val_loss_seconds"].alt
    assert "val_loss_seconds" not in {plan.name for plan in figures_curves.plans(group(timed[0]))}
