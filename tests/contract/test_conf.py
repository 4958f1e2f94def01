"""Every YAML under conf/ and sweeps/ composes and passes the door; every row of the deck can be chosen and built."""

from __future__ import annotations

from itertools import cycle, product
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from arms import arm_with, names_in
from drive import CONF
from optsweep.build.assemble import Built, build_arm, check_arm
from optsweep.build.named_task import build_task
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.tasks.base import Trainable
from task_builder import OWN

SWEEPS = CONF.parent / "sweeps"

DECK = {
    "optimizer": "sgd momentum nesterov adagrad rmsprop adadelta adam adamw lion lamb soap muon external",
    "schedule": "constant step multi_step exponential linear polynomial cosine cosine_restarts one_cycle inverse_sqrt "
    "wsd plateau schedule_free",
    "warmup": "none linear cosine exponential suggested",
    "weight_decay": "none l2 decoupled independent suggested",
    "averaging": "none ema lawa",
    "recipe": "none adamw_cosine adamw_linear adamw_wsd sgd_step sgd_cosine momentum_onecycle lion_cosine lamb_linear "
    "soap_cosine muon_wsd schedulefree_sgd schedulefree_adamw soap_schedulefree muon_schedulefree adam_plateau",
    "task": "digits_logistic digits_mlp iris iris_mlp wine wine_mlp breast_cancer breast_cancer_mlp mnist5k_cnn "
    "mnist5k_resnet landscape charlm_tiny charlm charlm_1m charlm_10m charlm_50m charlm_124m text cifar10_resnet "
    "cifar10_wrn",
}
"""What has to be there, by group: the rows of the deck and those its readers expect beside them."""

NEEDS = {  # what a choice can't do without
    "optimizer=external": ["optimizer._target_=torch.optim.NAdam"],
    "schedule=one_cycle": ["warmup=none"],
    "weight_decay=l2": ["optimizer=adam"],
}


def choices() -> list[tuple[str, str]]:
    """Every YAML of every group as its override, with a task beside it; recipes have a test of their own."""
    files = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
    apart = (Path(), Path("recipe"), Path("task"))
    overrides = [f"{path.parent}={path.stem}" for path in files if path.parent not in apart]
    tasks = [name for name in names_in("task") if name != OWN]
    assert len(overrides) >= len(tasks)
    return list(zip(overrides, cycle(tasks), strict=False))


def arm(*overrides: str) -> Arm:
    return arm_of(compose([*overrides, "sweep.name=test"]))


@pytest.fixture(scope="module")
def digits() -> Trainable:
    return build_task(arm_with({}).task)


@pytest.mark.parametrize("group", DECK)
def test_every_row_of_the_deck_can_be_chosen(group: str) -> None:
    assert set(DECK[group].split()) <= set(names_in(group))


@pytest.mark.parametrize(("override", "task"), choices())
def test_every_choice_composes_and_passes_the_door(override: str, task: str) -> None:
    group, _, choice = override.partition("=")
    found = arm(override, f"task={task}", *NEEDS.get(override, []))
    assert found.choices["task"] == task
    if group in found.choices:
        assert found.choices[group] == choice


@pytest.mark.parametrize("group", ["optimizer", "schedule", "averaging", "task"])
def test_a_choice_is_called_as_its_file(group: str) -> None:
    for name in names_in(group):
        found = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())["name"]
        assert found == ("${._target_}" if name == OWN else name)


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS.glob("*.yaml")))
def test_every_sweep_composes_with_all_its_arms(name: str) -> None:
    config = compose([], name)
    axes = OmegaConf.to_container(config.hydra.sweeper.params)
    assert isinstance(axes, dict)
    assert axes, "a sweep compares something"
    assert (SWEEPS / f"{name}.yaml").read_text().startswith("#"), "a sweep says what it asks"
    grid = [[f"{key!s}={value}" for value in str(values).split(",")] for key, values in axes.items()]
    arms = [arm_of(compose(cell, name)) for cell in product(*grid)]
    assert len({found.name for found in arms}) == len(arms)
    assert {found.sweep for found in arms} == {name}


def checked(built: Built) -> None:
    """What must hold of an arm that can train."""
    check_arm(built)
    assert built.space.fixed["lr"] > 0
    assert len(built.program.schedule.start(built.program.num_steps).values) == 0


@pytest.mark.parametrize("recipe", names_in("recipe"))
def test_every_recipe_builds(recipe: str, digits: Trainable) -> None:
    found = arm(f"recipe={recipe}", "task=digits_mlp", "search=none")
    checked(build_arm(found, digits))
    if recipe != "none":
        optimizer = recipe.partition("_")[0]
        assert optimizer in ("schedulefree", found.optimizer.name)
        said = (CONF / "recipe" / f"{recipe}.yaml").read_text()
        assert "#" in said.partition("# @package _global_")[2], "a recipe says where it is from"


def test_a_recipes_choices_give_way_to_the_command_line() -> None:
    found = arm("recipe=sgd_step", "optimizer=momentum", "schedule.gamma=0.5")
    assert (found.optimizer.name, found.schedule.name) == ("momentum", "step")
    assert found.schedule.options["gamma"] == 0.5


@pytest.mark.parametrize("optimizer", sorted({*names_in("optimizer")} - {"external"}))
@pytest.mark.parametrize("schedule", names_in("schedule"))
def test_every_optimizer_builds_with_every_schedule(optimizer: str, schedule: str, digits: Trainable) -> None:
    warmup = "none" if schedule == "one_cycle" else "suggested"
    found = arm_with({"optimizer": optimizer, "schedule": schedule, "warmup": warmup, "weight_decay": "suggested"})
    built = build_arm(found, digits)
    checked(built)
    assert built.space.fixed["weight_decay"] > 0


def test_suggested_steps_of_a_schedule_are_resolved_and_part_of_the_fingerprint(digits: Trainable) -> None:
    built = build_arm(
        arm_with({"schedule": "step"}, schedule__step_size="suggested", schedule__gamma="suggested"), digits
    )
    assert built.program.schedule.options == {"step_size": 200, "gamma": 0.1}
    assert built.content["schedule.step_size"] == 200
    assert any("2000 – 4000" in warning for warning in built.warnings)
    long = arm_with({"schedule": "step"}, schedule__step_size="suggested", trainer__steps=9000)
    assert build_arm(long, digits).program.schedule.options["step_size"] == 2828


def test_suggested_final_is_that_of_its_source(digits: Trainable) -> None:
    built = build_arm(arm_with({"schedule": "linear"}, schedule__final="suggested"), digits)
    assert built.program.schedule.options["final"] == 0.001


def test_suggested_warmup_is_a_share_of_the_run(digits: Trainable) -> None:
    built = build_arm(arm_with({"warmup": "suggested"}), digits)
    assert (built.program.schedule.warmup, built.program.schedule.length) == ("linear", 24)  # 4 %: a small data set
