"""Search spaces: any kind of value, numbers of the lane and choices of the program, from the config to the trial."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from scipy.stats import qmc

from arms import arm_with
from optsweep.build.assemble import build_arm, check_arm
from optsweep.build.named_task import build_task
from optsweep.build.variants import combinations
from optsweep.config.arm import Arm
from optsweep.config.search_space import ChoicesConfig, RangeConfig, opened, read_space
from optsweep.config.section import Section
from optsweep.errors import UserError
from optsweep.launch.worker.worker import trial_of
from optsweep.search.ownership import Claim
from optsweep.search.slots import SearchPlan, Slot, choose, seed_of, settings, suggest
from optsweep.search.space import Dimension, Params, Scope, Space, choices, number_of, numbers
from optsweep.search.studies import Studies, Work
from optsweep.tasks.base import Trainable
from optsweep.train.run import Silent
from optsweep.train.trial import Phase

PLAN = SearchPlan(trials=16, lag=2, sampler="tpe", pruner="none", reruns=0.25, seed=0, arm="a")
MIXED = Space(
    {
        "lr": numbers(1e-3, 1e-1, limits=(0.0, math.inf)),
        "task.batch_size": choices([8, 16, 32]),
        "task.width": numbers(4, 9, log=False, whole=True, scope=Scope.PROGRAM),
        "trainer.clip_norm": choices([0.5, 1.0, None]),
        "trainer.precision": choices(["fp32", "bf16"]),
        "optimizer.nesterov": choices([True, False]),
    },
    {"weight_decay": 0.0},
)


def searched(plan: SearchPlan, space: Space) -> list[Slot]:
    """A whole search; small batches and clipping at 1 are best, whatever the rest."""
    slots: list[Slot] = []
    for number in range(plan.trials):
        slot = suggest(plan, space, number, slots)
        away = abs(math.log10(number_of(slot.params, "lr") / 1e-2))
        loss = 1 + away + 0.1 * math.log2(number_of(slot.params, "task.batch_size"))
        slots.append(replace(slot, value=loss + (slot.params["trainer.clip_norm"] != 1.0)))
    return slots


# -- dimensions ----------------------------------------------------------------------------------------------------


def test_numbers_are_equally_dense_per_decade_and_whole_ones_and_choices_come_alike() -> None:
    units = [(n + 0.5) / 600 for n in range(600)]
    decades = Counter(math.floor(math.log10(number_of({"x": numbers(1e-6, 1.0).at(u)}, "x"))) for u in units)
    assert set(decades.values()) == {100}
    whole = Counter(numbers(3, 8, log=False, whole=True).at(u) for u in units)
    assert whole == dict.fromkeys(range(3, 9), 100)
    assert all(type(value) is int for value in whole)
    assert Counter(choices(["a", True, None]).at(u) for u in units) == {"a": 200, True: 200, None: 200}
    assert {numbers(1, 100, whole=True).at(u) for u in (0.0, 1 - 1e-12)} == {1, 100}
    assert {Dimension(FloatDistribution(0.0, 1.0, step=0.25)).at(u) for u in units} == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_quasi_random_settings_are_a_scrambled_sobol_sequence_over_the_keys_in_order() -> None:
    """Computed apart: the suggestions of float ranges are what they were before other kinds came."""
    space = Space({"lr": numbers(1e-4, 1e-2), "beta1": numbers(0.5, 0.9, log=False)})
    points = qmc.Sobol(2, scramble=True, rng=seed_of(0, "quasi-random") % 2**32).random_base2(3)
    for place in range(4):
        beta1, lr = points[place]
        expected = {"beta1": 0.5 + beta1 * (0.9 - 0.5), "lr": math.exp(math.log(1e-4) + lr * math.log(1e-2 / 1e-4))}
        assert suggest(PLAN, space, place, []).params == pytest.approx(expected, rel=1e-14)


# -- search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "gp", "quasi-random"])
def test_settings_of_mixed_kinds_are_searched_and_the_best_is_chosen(sampler: str) -> None:
    plan = replace(PLAN, sampler=sampler, trials=16)
    slots = searched(plan, MIXED)
    assert searched(plan, MIXED) == slots
    for slot in slots:
        assert slot.params["task.batch_size"] in (8, 16, 32)
        assert type(slot.params["task.batch_size"]) is int
        assert type(slot.params["task.width"]) is int
        assert 4 <= slot.params["task.width"] <= 9
        assert type(slot.params["lr"]) is float
        assert type(slot.params["optimizer.nesterov"]) is bool
        assert slot.params["trainer.precision"] in ("fp32", "bf16")
        assert slot.params["trainer.clip_norm"] in (0.5, 1.0, None)
        assert json.loads(json.dumps(dict(slot.params))) == slot.params
    assert len(settings(slots)) == 12
    choice = choose(plan, MIXED, slots)
    assert choice is not None
    assert choice.params["trainer.clip_norm"] == 1.0
    assert choice.count == 3
    assert choice.sides.keys() == {"lr"}
    assert choice.searched.keys() == {"lr", "task.width"}


def test_a_learning_rate_from_a_list_is_chosen_from_the_list_only() -> None:
    space = Space({"lr": choices([1e-3, 1e-2], scope=Scope.LANE)})
    slots: list[Slot] = []
    for number in range(PLAN.trials):
        slot = suggest(PLAN, space, number, slots)
        slots.append(replace(slot, value=number_of(slot.params, "lr")))
    assert {slot.params["lr"] for slot in slots} == {1e-3, 1e-2}
    choice = choose(PLAN, space, slots)
    assert choice is not None
    assert (choice.params, choice.sides) == ({"lr": 1e-3}, {})


@pytest.mark.parametrize("order", [[math.nan, 1.0, 2.0, 3.0], [3.0, math.nan, 1.0, 2.0], [2.0, 1.0, 3.0, math.nan]])
def test_a_nan_at_a_rung_counts_as_the_worst_wherever_it_stands(order: list[float]) -> None:
    slots = [
        Slot(i, {"lr": 1e-4 * (i + 1)}, 0, "quasi-random", value=2.0, rungs={10: loss, 20: 2.0})
        for i, loss in enumerate([*order, *[2.5] * 5])
    ]
    plan = replace(PLAN, pruner="median", trials=16)
    visible = replace(plan, lag=6)
    slot = suggest(visible, Space({"lr": numbers(1e-4, 1e-3)}), 9, slots)
    assert slot.prune_above == {10: 2.5}


def test_settings_keep_their_types_in_the_storage(tmp_path: Path) -> None:
    studies = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")
    params: Params = {"a": 1, "b": True, "c": None, "d": "full", "e": 1.0, "f": 0.1}
    studies.enqueue(studies.take_seat(["arm"], whole=True), "arm", Phase.SEARCH, Slot(0, params, 0, "model"))
    (work,) = studies.pop("arm", Phase.SEARCH, "w", 60.0, 1)
    assert work.slot.params == params
    assert [type(value) for value in work.slot.params.values()] == [type(value) for value in params.values()]


# -- the config's side ---------------------------------------------------------------------------------------------


def test_a_space_is_read_by_dotted_keys() -> None:
    given = {
        "lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "momentum": {"low": None, "high": None, "log": False},
        "weight_decay": {"low": None, "high": None, "log": True, "apply_to": ["matrices", "all"]},
        "task": {"dropout": {"low": 0, "high": 0.5}, "batch_size": [16, 32], "low": [1, 2]},
        "trainer": {"clip_norm": [0.5, 1, None]},
    }
    assert read_space(Section(given, "search.space")) == {
        "lr": RangeConfig(1e-4, 1e-2, True),
        "weight_decay.apply_to": ChoicesConfig(("matrices", "all")),
        "task.dropout": RangeConfig(0, 0.5, False),
        "task.batch_size": ChoicesConfig((16, 32)),
        "task.low": ChoicesConfig((1, 2)),
        "trainer.clip_norm": ChoicesConfig((0.5, 1, None)),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": {"width": []}}, "search.space.task.width: the list is empty"),
        ({"task": {"width": [8, 16, 8]}}, "search.space.task.width: 8 is given twice"),
        ({"task": {"width": [8, "a"]}}, "search.space.task.width: .* mixes kinds"),
        ({"task": {"width": [True, 0]}}, "search.space.task.width: .* mixes kinds"),
        ({"task": {"width": [[8], [16]]}}, r"search.space.task.width: \[8\] is no value"),
        ({"task": {"width": [math.nan, 1.0]}}, "search.space.task.width: nan is no value"),
        ({"task": {"width": 8}}, "search.space.task.width: 8 is not allowed; give a list, or low and high"),
        ({"lr": {"low": 1, "high": 1}}, "search.space.lr: low=1 is not below high=1"),
        ({"lr": {"low": 1}}, "search.space.lr.high: None is not allowed; give a number"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "search.space.lr.low: 0 is not > 0"),
        ({"lr": {"low": 1, "high": 2, "log": "yes"}}, "search.space.lr.log: 'yes' is not allowed; give true or false"),
        ({"lr": {"low": True, "high": 2}}, "search.space.lr.low: True is not allowed; give a number"),
    ],
)
def test_nonsense_is_refused_in_a_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        read_space(Section(given, "search.space"))


def test_entries_made_in_python_are_checked_alike() -> None:
    entries = {"task.width": ChoicesConfig((8, 16)), "lr": RangeConfig(1e-3, 1e-1, True)}
    assert read_space(Section(entries, "search.space")) == entries
    with pytest.raises(UserError, match=r"^search\.space\.task\.width: 8 is given twice"):
        read_space(Section({"task.width": ChoicesConfig((8, 8))}, "search.space"))
    with pytest.raises(UserError, match=r"^search\.space\.lr: low=1 is not below high=0\.1"):
        read_space(Section({"lr": RangeConfig(1.0, 0.1, True)}, "search.space"))


def test_any_key_under_search_space_may_be_given_without_a_plus() -> None:
    assert opened(["search.space.task.width=[8]", "search.trials=2", "+search.space.a=1"]) == [
        "++search.space.task.width=[8]",
        "search.trials=2",
        "+search.space.a=1",
    ]


# -- an arm --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Trainable:
    return build_task(arm_with({}).task)


def arm_over(space: dict[str, RangeConfig | ChoicesConfig], *over: str, **values: Any) -> Arm:
    arm = arm_with({"optimizer": "momentum", "weight_decay": "decoupled"}, trainer__steps=4, **values)
    keys = tuple(dict.fromkeys(("lr", *over, *space)))
    return replace(arm, search=replace(arm.search, trials=4, over=keys, space=space))


def test_a_program_is_built_once_for_each_combination(digits: Trainable) -> None:
    space: dict[str, RangeConfig | ChoicesConfig] = {
        "task.batch_size": ChoicesConfig((8, 16)),
        "trainer.clip_norm": ChoicesConfig((None, 0.5)),
        "momentum": RangeConfig(0.5, 0.9, False),
        "optimizer.lr": RangeConfig(1e-3, 1e-1, True),
    }
    built = build_arm(arm_over(space), digits)
    check_arm(built)
    scopes = {key: dimension.scope for key, dimension in built.space.dimensions.items()}
    assert scopes == {
        "lr": Scope.LANE,
        "momentum": Scope.LANE,
        "task.batch_size": Scope.PROGRAM,
        "trainer.clip_norm": Scope.PROGRAM,
    }
    params: dict[str, Any] = {"lr": 0.01, "momentum": 0.6, "task.batch_size": 16, "trainer.clip_norm": 0.5}
    program = built.program_for(params)
    assert program.batch_size == 16
    assert program.task is digits
    assert program is built.program_for({**params, "lr": 0.1})
    other = built.program_for({**params, "task.batch_size": 8})
    assert other is not program
    assert (other.batch_size, built.program.batch_size) == (8, 8)
    hyper = built.space.hyper(params)
    assert (hyper["lr"], hyper["momentum"]) == (0.01, 0.6)
    assert all(type(value) is float for value in hyper.values())
    assert not any("." in key for key in hyper)
    assert "task.batch_size" not in built.content
    assert built.fingerprint == build_arm(arm_over(space, task__batch_size=32), digits).fingerprint


def test_a_choice_reaches_the_trial_s_numbers(digits: Trainable) -> None:
    built = build_arm(arm_over({"trainer.clip_norm": ChoicesConfig((None, 1e-6))}), digits)

    def trained(clip: float | None) -> float:
        params: Params = {"lr": 0.1, "trainer.clip_norm": clip}
        work = Work("arm", Phase.SEARCH, Claim(0, 0), Slot(0, params, 0, "model"), 0)
        (outcome,) = built.workload_for(params).train([trial_of(arm_over({}), built, work)], Silent())
        return outcome.val_loss

    start = math.log(10)
    assert abs(trained(1e-6) - start) < 0.05
    assert trained(None) < start - 0.05


def test_a_range_of_a_whole_number_is_of_whole_numbers() -> None:
    arm = arm_over({"task.width": RangeConfig(4, 8, False), "optimizer.dampening": RangeConfig(0.0, 0.5, False)})
    space = build_arm(arm).space
    assert space.dimensions["task.width"] == numbers(
        4, 8, log=False, whole=True, scope=Scope.PROGRAM, source="given in search.space"
    )
    assert space.dimensions["dampening"].scope is Scope.LANE
    assert space.dimensions["dampening"].limits == (0.0, 1.0)
    with pytest.raises(UserError, match=r"^search\.space\.task\.width: low=4\.5 and high=8 are not both whole"):
        build_arm(arm_over({"task.width": RangeConfig(4.5, 8, False)}))


def test_ranges_grow_between_what_makes_sense() -> None:
    ranges: dict[str, RangeConfig | ChoicesConfig] = {
        "lr": RangeConfig(1e-3, 0.25, True),
        "weight_decay": RangeConfig(1e-3, 1.0, True),
    }
    arm = arm_over(ranges).with_values({"trainer.steps": 100, "weight_decay.mode": "decoupled"})
    dimensions = build_arm(arm).space.dimensions
    assert dimensions["lr"].limits == (0.0, math.inf)
    assert dimensions["weight_decay"].limits == pytest.approx((0.01 * 4 / 100, 4.0))  # λ·lr·steps = 1 %, λ·lr = 1
    wide = arm.with_values({"search.space": {**ranges, "weight_decay": RangeConfig(1e-6, 50.0, True)}})
    assert build_arm(wide).space.dimensions["weight_decay"].limits == (1e-6, 50.0)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("trainer.clipnorm", r"search\.over: there is no key trainer\.clipnorm \(did you mean trainer\.clip_norm\?\)"),
        ("trainer.device", r"search\.over: trainer\.device can't be searched: "),
        ("trainer.lanes", r"search\.over: trainer\.lanes can't be searched: "),
        ("trainer.steps", r"search\.over: trainer\.steps can't be searched: trials of an arm are equally long"),
        ("sweep.seed", r"search\.over: sweep\.seed can't be searched: it is no part of training"),
        ("weight_decay.mode", r"search\.over: weight_decay\.mode can't be searched: it tells arms apart"),
        ("trainer.clip_norm", r"search\.space\.trainer\.clip_norm: there is no suggested range for it"),
        ("clip_norm", r"search\.space\.clip_norm: this arm has no such hyperparameter"),
    ],
)
def test_a_key_that_can_t_be_searched_is_refused_in_a_line(digits: Trainable, key: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        build_arm(arm_over({}, key), digits)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        (
            "task.batch_size",
            (8, 9999),
            r"task\.batch_size: 9999 is more than .*\(search\.space tries task\.batch_size=9999",
        ),
        ("task.batch_size", (8, 0), r"task\.batch_size: 0 is not allowed.*search\.space tries task\.batch_size=0"),
        ("task.width", (8, -1), r"task\.width: -1 is not allowed.*search\.space tries task\.width=-1"),
        ("trainer.clip_norm", (None, -1.0), r"trainer\.clip_norm: -1\.0 is not allowed.*tries trainer\.clip_norm=-1"),
        (
            "trainer.precision",
            ("fp32", "fp8"),
            r"trainer\.precision: 'fp8' is not allowed.*tries trainer\.precision=fp8",
        ),
        ("trainer.accumulate", (1, 3), r"trainer\.accumulate: .*not divisible by 3.*tries trainer\.accumulate=3"),
        ("warmup.steps", (0.1, 7), r"warmup\.steps: 7.*tries warmup\.steps=7"),
        ("lr", (0.1, -1.0), r"search\.space\.lr: -1 is not > 0"),
    ],
)
def test_every_value_of_the_lists_is_tried_before_training(
    digits: Trainable, key: str, values: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        check_arm(build_arm(arm_over({key: ChoicesConfig(values)}), digits))


def test_of_too_many_combinations_every_value_is_tried_once() -> None:
    few = Space({"a": choices([1, 2]), "b": choices([1, 2, 3]), "lr": numbers(1.0, 2.0)})
    assert len(list(combinations(few))) == 6
    many = Space({key: choices(list(range(9))) for key in "abc"})
    tried = list(combinations(many))
    assert len(tried) == 27
    assert all({setting[key] for setting in tried} == set(range(9)) for key in "abc")


def test_trials_that_are_popped_together_are_of_one_program(tmp_path: Path) -> None:
    studies = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")
    seat = studies.take_seat(["arm"], whole=True)
    for n, size in enumerate((16, 8, 16, 8, 8)):
        studies.enqueue(seat, "arm", Phase.SEARCH, Slot(n, {"lr": 0.01, "task.batch_size": size}, 0, "model"))

    def pop() -> list[int]:
        works = studies.pop("arm", Phase.SEARCH, "w", 60.0, 4, lambda slot: slot.params["task.batch_size"])
        return [work.slot.number for work in works]

    assert [pop(), pop(), pop()] == [[0, 2], [1, 3, 4], []]
