"""The same algorithm under two names is allowed, and recognised."""

from __future__ import annotations

from typing import Any

import pytest

from arms import arm_with
from optsweep.build.assemble import algorithm_of, build_arm, task_facts
from optsweep.build.named_task import build_task
from optsweep.tasks.base import Trainable

EXTRA = {"optimizer__lr": 1e-2, "weight_decay__value": 0.01}


@pytest.fixture(scope="module")
def digits() -> Trainable:
    return build_task(arm_with({}).task)


def key(task: Trainable, optimizer: str, schedule: str, decay: str = "decoupled", **values: Any) -> str:
    choices = {"optimizer": optimizer, "schedule": schedule, "weight_decay": decay}
    return algorithm_of(build_arm(arm_with(choices, **EXTRA, **values), task))


def test_twins_are_recognised(digits: Trainable) -> None:
    assert key(digits, "adam", "cosine") == key(digits, "adamw", "cosine")
    assert key(digits, "sgd", "schedule_free") == key(digits, "momentum", "schedule_free")
    assert key(digits, "momentum", "schedule_free") == key(digits, "nesterov", "schedule_free")
    assert key(digits, "adamw", "schedule_free", optimizer__beta1=0.5) == key(digits, "adamw", "schedule_free")


def test_suggestions_assume_what_they_are_told(digits: Trainable) -> None:
    def lr(**values: object) -> float:
        return build_arm(arm_with({}, **values), digits).space.fixed["lr"]

    assert lr(suggest__fine_tuning=True) == pytest.approx(0.1 * lr())
    assert lr(suggest__fine_tuning=False) == lr()
    facts = task_facts(arm_with({}, suggest__deep=True, suggest__unstable=True), digits)
    assert (facts.deep, facts.unstable, facts.transfer_learning) == (True, True, digits.facts.transfer_learning)


def test_what_schedule_free_switches_off_makes_no_difference(digits: Trainable) -> None:
    for optimizer, name in (("momentum", "dampening"), ("lion", "beta1"), ("lion", "beta2"), ("muon", "aux_beta1")):
        values: dict[str, Any] = {f"optimizer__{name}": 0.5}
        changed = key(digits, optimizer, "schedule_free", **values)
        assert changed == key(digits, optimizer, "schedule_free"), name


def test_options_of_muon_s_parts_tell_arms_apart(digits: Trainable) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"optimizer__nesterov": False},
        {"optimizer__ns_steps": 3},
        {"optimizer__scale": "original"},
        {"optimizer__bf16": True},
    ]
    assert len({key(digits, "muon", "cosine", **values) for values in options}) == len(options)


def test_others_are_not(digits: Trainable) -> None:
    different = [
        key(digits, "sgd", "cosine"),
        key(digits, "momentum", "cosine"),
        key(digits, "nesterov", "cosine"),
        key(digits, "momentum", "linear"),
        key(digits, "adam", "cosine", decay="l2"),
        key(digits, "adam", "cosine"),
        key(digits, "adam", "cosine", optimizer__beta2=0.95),
        key(digits, "lion", "schedule_free"),
        key(digits, "sgd", "schedule_free"),
    ]
    assert len(set(different)) == len(different)
