"""The config's dataclasses: YAML and Python have the same defaults, refuse the same values in the same line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import numpy as np
import pytest
from omegaconf import OmegaConf

from arms import arm_with
from optsweep import checks
from optsweep.build.named_task import build_task
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.config.fields import Key
from optsweep.config.search_space import RangeConfig
from optsweep.config.sections import (
    AveragingConfig,
    DecayConfig,
    OptimizerConfig,
    ScheduleConfig,
    SearchConfig,
    SuggestConfig,
    TaskConfig,
    TrainerConfig,
)
from optsweep.errors import UserError
from optsweep.launch.prepare.labels import labels_of

TASK = TaskConfig("digits_mlp", "optsweep.tasks.tabular.Table", 64, 600)
OPTIMIZER = OptimizerConfig("adamw", "optsweep.optim.adam.AdamW")


def arm_in_python(**values: Any) -> Arm:
    return Arm(**{"task": TASK, "optimizer": OPTIMIZER, "sweep": "test", **values})


def line_of(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def test_defaults_in_python_are_those_of_the_yaml() -> None:
    composed = arm_of(compose(["task=digits_mlp", "sweep.name=test"]))
    python = arm_in_python(choices=composed.choices, task=composed.task, optimizer=composed.optimizer)
    schedule = replace(python.schedule, options=composed.schedule.options)  # of the schedule: its function's defaults
    assert replace(python, schedule=schedule) == composed
    assert (python.trainer.steps, python.search.lag) == (600, 2), "the task's own, and at least two"


def test_an_arm_made_in_python_is_called_as_it_is() -> None:
    composed = arm_of(compose(["task=digits_mlp", "weight_decay=decoupled", "averaging=ema", "sweep.name=test"]))
    ema = AveragingConfig("ema", "optsweep.optim.averaging.EMA", composed.averaging.options)
    python = arm_in_python(decay=DecayConfig("decoupled"), averaging=ema)
    assert python.name == composed.name
    assert labels_of([python]) == {python.name: "adamw + cosine"}
    assert arm_in_python(choices={"optimizer": "mine"}).choices["optimizer"] == "mine"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"task": "digits_mlp"}, "task: 'digits_mlp' is not allowed; give a TaskConfig"),
        ({"trainer": {"lanes": 2}}, "trainer: {'lanes': 2} is not allowed; give a TrainerConfig"),
        ({"choices": ["adam"]}, "choices: ['adam'] is not allowed; give options by name"),
    ],
)
def test_what_is_no_section_is_one_line_too(wrong: dict[str, Any], line: str) -> None:
    assert line_of(lambda: arm_in_python(**wrong)) == line


MISTAKES: list[tuple[str, Callable[[], object], str]] = [
    (
        "trainer.lanes=0",
        lambda: TrainerConfig(lanes=0),
        "trainer.lanes: 0 is not allowed; give a whole number ≥ 1, or auto",
    ),
    (
        "trainer.lanes=1.5",
        lambda: TrainerConfig(lanes=1.5),  # type: ignore[arg-type]
        "trainer.lanes: 1.5 is not allowed; give a whole number ≥ 1, or auto",
    ),
    (
        "trainer.lanes=true",
        lambda: TrainerConfig(lanes=True),
        "trainer.lanes: True is not allowed; give a whole number ≥ 1, or auto",
    ),
    (
        "trainer.lanes=null",
        lambda: TrainerConfig(lanes=None),  # type: ignore[arg-type]
        "trainer.lanes: None is not allowed; give a whole number ≥ 1, or auto",
    ),
    (
        "trainer.steps=1",
        lambda: TrainerConfig(steps=1),
        "trainer.steps: 1 is not allowed; give a whole number ≥ 2, or null",
    ),
    (
        "trainer.device=gpu",
        lambda: TrainerConfig(device="gpu"),
        "trainer.device: 'gpu' is not allowed; give one of auto, cpu, cuda, cuda:N, mps",
    ),
    (
        "trainer.precision=bf15",
        lambda: TrainerConfig(precision="bf15"),
        "trainer.precision: 'bf15' is not allowed; give one of fp32, bf16 (did you mean bf16?)",
    ),
    (
        "trainer.clip_norm=-1",
        lambda: TrainerConfig(clip_norm=-1),
        "trainer.clip_norm: -1 is not allowed; give a number > 0, or null",
    ),
    (
        "trainer.divergence_factor=inf",
        lambda: TrainerConfig(divergence_factor=np.inf),
        "trainer.divergence_factor: inf is not allowed; give a number > 1",
    ),
    (
        "search.reruns=0.6",
        lambda: SearchConfig(reruns=0.6),
        "search.reruns: 0.6 is not allowed; give a number ≥ 0 and ≤ 0.5",
    ),
    (
        "search.lag=often",
        lambda: SearchConfig(lag="often"),  # type: ignore[arg-type]
        "search.lag: 'often' is not allowed; give a whole number ≥ 1, or auto",
    ),
    (
        "search.over=lr",
        lambda: SearchConfig(over="lr"),  # type: ignore[arg-type]
        "search.over: 'lr' is not allowed; give a list of hyperparameter names, such as [lr,weight_decay]",
    ),
    (
        "search.space.lr={low: 1, high: 0.1, log: true}",
        lambda: SearchConfig(space={"lr": RangeConfig(1, 0.1, True)}),
        "search.space.lr: low=1 is not below high=0.1",
    ),
    (
        "task.batch_size=some",
        lambda: replace(TASK, batch_size="some"),  # type: ignore[arg-type]
        "task.batch_size: 'some' is not allowed; give a whole number ≥ 1, or full",
    ),
    (
        "optimizer.lr=0",
        lambda: replace(OPTIMIZER, lr=0),
        "optimizer.lr: 0 is not allowed; give a number > 0, or null",
    ),
    (
        "warmup.steps=2.5",
        lambda: ScheduleConfig(warmup_steps=2.5),
        "warmup.steps: 2.5 is not allowed; give a whole number of steps ≥ 1, or a fraction of the run > 0.0 and ≤ 1.0, "
        "0, or suggested",
    ),
    (
        "weight_decay.mode=l3",
        lambda: DecayConfig(mode="l3"),
        "weight_decay.mode: 'l3' is not allowed; give one of none, l2, decoupled, independent (did you mean l2?)",
    ),
    (
        "weight_decay.value=-0.1",
        lambda: DecayConfig(value=-0.1),
        "weight_decay.value: -0.1 is not allowed; give a number ≥ 0, or null (searched or suggested)",
    ),
    (
        "averaging.name=ema",
        lambda: AveragingConfig("ema"),
        "averaging._target_: a value is missing",
    ),
    (
        "suggest.deep=1",
        lambda: SuggestConfig(deep=1),  # type: ignore[arg-type]
        "suggest.deep: 1 is not allowed; give true or false, or null",
    ),
    (
        "confirm.seeds=many",
        lambda: arm_in_python(confirm_seeds="many"),
        "confirm.seeds: 'many' is not allowed; give a whole number ≥ 1, or auto",
    ),
    (
        "confirm.delta=0",
        lambda: arm_in_python(confirm_delta=0),
        "confirm.delta: 0 is not allowed; give a number > 0, or null",
    ),
    (
        "sweep.name=a/b",
        lambda: arm_in_python(sweep="a/b"),
        "sweep.name: 'a/b' is not allowed; give 1 to 200 printable characters (bytes of UTF-8), without slashes and "
        "bars",
    ),
    (
        "sweep.seed=-1",
        lambda: arm_in_python(seed=-1),
        "sweep.seed: -1 is not allowed; give a whole number ≥ 0",
    ),
    (
        "tracking.storage=null",
        lambda: arm_in_python(storage=None),
        "tracking.storage: None is not allowed; give a string",
    ),
    (
        "warmup.steps=600",
        lambda: arm_in_python(schedule=ScheduleConfig(warmup_steps=600)),
        "warmup.steps: 600 is not allowed; give fewer steps than the run has (trainer.steps=600), or a fraction "
        "below 1",
    ),
    (
        "trainer.accumulate=7",
        lambda: arm_in_python(trainer=TrainerConfig(accumulate=7)),
        "trainer.accumulate: task.batch_size=64 is not divisible by 7",
    ),
]


@pytest.mark.parametrize(("override", "make", "line"), MISTAKES, ids=[override for override, _, _ in MISTAKES])
def test_a_wrong_value_in_python_gets_the_line_of_the_command_line(
    override: str, make: Callable[[], object], line: str
) -> None:
    assert line_of(make) == line
    typed = ["task=digits_mlp", *([] if override.startswith("sweep.name") else ["sweep.name=test"]), override]
    assert line_of(lambda: arm_of(compose(typed))) == line


def keyed_fields() -> Iterator[tuple[Any, str, str]]:
    """Every section, a field of it, and the field's key."""
    ema = AveragingConfig("ema", "optsweep.optim.averaging.EMA")
    rest = (ScheduleConfig(), DecayConfig(), ema, TrainerConfig(), SearchConfig(), SuggestConfig())
    for section in (TASK, OPTIMIZER, *rest, arm_in_python()):
        for name, hint in get_type_hints(type(section), include_extras=True).items():
            if get_origin(hint) is Annotated and type(hint.__metadata__[0]) is Key:
                yield section, name, hint.__metadata__[0].path


def test_every_field_refuses_what_is_no_value_at_all_in_one_line_in_python_and_on_the_command_line() -> None:
    wrong, keys = {"no": "value"}, set()
    for section, name, key in keyed_fields():
        line = line_of(partial(replace, section, **{name: wrong}))
        typed: dict[str, Any] = {key.replace(".", "__", 1): wrong}
        assert line_of(partial(arm_with, {"averaging": "ema"}, **typed)) == line
        assert line.startswith(key)
        assert "\n" not in line
        keys.add(key)
    assert len(keys) > 40


def test_a_wrong_option_of_a_task_gets_its_whole_key_too() -> None:
    line = "task.width: 0 is not allowed; give a whole number ≥ 1"
    assert line_of(lambda: build_task(replace(TASK, options={"width": 0}))) == line


def test_numbers_of_numpy_become_plain() -> None:
    trainer = TrainerConfig(steps=np.int64(40), clip_norm=np.float32(0.5), lanes=np.int32(2))  # type: ignore[arg-type]
    assert (trainer.steps, trainer.clip_norm, trainer.lanes) == (40, 0.5, 2)
    assert {type(trainer.steps), type(trainer.clip_norm), type(trainer.lanes)} == {int, float}
    (width,) = replace(TASK, options={"width": np.int64(8)}).options.values()
    assert type(width) is int
    assert "lanes: 0 is not" in line_of(lambda: TrainerConfig(lanes=np.int64(0)))  # type: ignore[arg-type]
    assert line_of(lambda: TrainerConfig(clip_norm=float(np.float64("nan")))).startswith("trainer.clip_norm: nan")


def test_words_that_stand_for_something_else() -> None:
    assert TaskConfig("t", "T", "full", 10).batch_size is None  # type: ignore[arg-type]
    assert ScheduleConfig(warmup_steps="suggested").warmup_steps is None  # type: ignore[arg-type]
    assert ScheduleConfig(warmup_steps=0).warmup_steps == 0
    for one in (1, 1.0):  # a step, and the whole run
        assert type(ScheduleConfig(warmup_steps=one).warmup_steps) is type(one)
    assert ScheduleConfig(warmup="none", warmup_steps=100).warmup_steps == 0.0
    assert DecayConfig("l2", "suggested").value is None  # type: ignore[arg-type]
    assert DecayConfig("none", 0.3).value == 0.0
    assert SearchConfig(space={"eps": RangeConfig(1e-9, 1e-7, True)}).over == ("lr", "eps")
    assert arm_in_python(trainer=TrainerConfig(lanes=3)).search.lag == 6
    of_trials = [
        arm_in_python(search=SearchConfig(trials=trials)).search.lag for trials in (0, 16, 47, 48, 131, 132, 400)
    ]
    assert of_trials == [2, 2, 2, 3, 8, 9, 76], "whatever number of lanes is found"
    found = arm_in_python(search=SearchConfig(trials=400))
    found = replace(found, trainer=replace(found.trainer, lanes=64))
    assert (found.search.lag, found.search.lag_found) == (76, True)
    both = SearchConfig(over=("lr", "weight_decay"))
    trials = [
        arm_in_python(search=search, repeats=n).search.trials for search in (SearchConfig(), both) for n in (1, 4)
    ]
    assert trials == [16, 16, 32, 16], "more only where one search of two keys decides"
    assert arm_in_python(search=replace(both, trials=9)).search.trials == 9


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["~trainer.lanes"], "trainer.lanes: a value is missing"),
        (["~confirm"], "confirm: a value is missing"),
        (["~trainer"], "trainer: a value is missing"),
        (["confirm=3"], "confirm: a group of keys is wanted, got 3"),
        (
            ["+trainer.lane=2"],
            "trainer.lane: no such key (did you mean lanes?); known: steps, device, lanes, precision",
        ),
        (["+tracking.url=x"], "tracking.url: no such key (did you mean uri?); known: uri, storage"),
        (["task=null"], "task=null: no such choice; there are breast_cancer, "),
        (["optimizer=null"], "optimizer=null: no such choice; there are adadelta, "),
        (["schedule=3"], "schedule=3: no such choice; there are constant, "),
        (["optimizer=adamw,null"], "optimizer=null: no such choice"),
    ],
)
def test_what_is_missing_unknown_or_no_section(overrides: list[str], line: str) -> None:
    assert line_of(lambda: arm_of(compose(["sweep.name=test", *overrides]))).startswith(line)


def test_a_grid_composes_as_its_first_cell() -> None:
    config = compose(["sweep.name=test", "task=iris,wine", "task.batch_size=8,16", "optimizer.lr=range(1,3)"])
    assert OmegaConf.select(config, "task.name") == "iris"
    assert (config.task.batch_size, config.optimizer.lr) == (8, 1)


def test_an_arm_with_other_values() -> None:
    arm = arm_with({}, trainer__clip_norm=1.0)
    values = {
        "trainer.clip_norm": np.float64(0.5),
        "task.batch_size": 32,
        "task.width": 16,
        "optimizer.beta1": 0.8,
        "weight_decay.mode": "decoupled",
        "warmup.steps": 20,
        "sweep.seed": 3,
    }
    other = arm.with_values(values)
    assert (other.trainer.clip_norm, other.task.batch_size, other.seed) == (0.5, 32, 3)
    assert other.task.options == {**arm.task.options, "width": 16}
    assert other.optimizer.options == {**arm.optimizer.options, "beta1": 0.8}
    assert (other.decay.mode, other.schedule.warmup_steps) == ("decoupled", 20)
    assert other.name == arm.name
    assert arm.with_values({}) == arm
    assert other.with_values({"task.batch_size": "full"}).task.batch_size is None


def test_another_default_length_of_the_task_is_the_length_of_the_run() -> None:
    arm = arm_with({})
    assert arm.with_values({"task.steps": 50}).trainer.steps == 50
    assert arm.with_values({"task.steps": 50, "trainer.steps": 70}).trainer.steps == 70
    assert arm.with_values({"trainer.steps": 70}).with_values({"task.steps": 50}).trainer.steps == 70


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("task.widht", 3, "task.widht: no such key (did you mean task.width?)"),
        ("trainer.lane", 3, "trainer.lane: no such key (did you mean trainer.lanes?)"),
        ("trainer.clip_norm", 0, "trainer.clip_norm: 0 is not allowed; give a number > 0, or null"),
        ("task.batch_size", 0, "task.batch_size: 0 is not allowed; give a whole number ≥ 1, or full"),
        ("warmup.steps", 600, "warmup.steps: 600 is not allowed; give fewer steps than the run has"),
    ],
)
def test_values_that_an_arm_refuses(key: str, value: object, line: str) -> None:
    assert line_of(lambda: arm_with({}).with_values({key: value})).startswith(line)


@pytest.mark.parametrize(
    ("value", "annotation", "line"),
    [
        ("no", bool, "give true or false"),
        (7.5, int, "give a whole number"),
        (True, int, "give a whole number"),
        ("x", float, "give a number"),
        (3, str, "give a string"),
        ("eig", Literal["identity", "eigh"], "give one of identity, eigh (did you mean eigh?)"),
        ("all", int | None, "give a whole number, or null"),
    ],
)
def test_a_value_of_another_type_than_its_annotation(value: object, annotation: object, line: str) -> None:
    said = line_of(lambda: checks.of_type("optimizer.key", value, annotation))
    assert said == f"optimizer.key: {value!r} is not allowed; {line}"


def test_a_value_of_its_annotation_s_type() -> None:
    assert checks.of_type("k", np.int64(7), int) == 7
    assert checks.of_type("k", 7, float) == 7.0
    assert checks.of_type("k", None, int | None) is None
    assert checks.of_type("k", "eigh", Literal["identity", "eigh"]) == "eigh"
    assert checks.of_type("k", [1, 2], list[int]) == [1, 2]


def test_the_config_imports_nothing_heavy() -> None:
    code = (
        "import sys, optsweep.config.door, optsweep.config.compose\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'torch', 'mlflow', 'optuna', 'scipy', 'numpy'})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_config_that_was_kept_before_keys_came_is_read_as_without_them() -> None:
    assert arm_with({}, ["trainer.ranks", "sweep.allow", "tracking.checkpoints"]) == arm_with({})
