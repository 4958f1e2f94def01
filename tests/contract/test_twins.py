"""The same algorithm under two names is allowed, and recognised."""

from __future__ import annotations

import pytest

from arms import arm_with
from optsweep.assemble import algorithm_of, build_arm, build_task
from optsweep.tasks.base import Task

EXTRA = {"optimizer__lr": 1e-2, "weight_decay__value": 0.01}


@pytest.fixture(scope="module")
def digits() -> Task:
    return build_task(arm_with({}).task)


def key(task: Task, optimizer: str, schedule: str, decay: str = "decoupled", **values: object) -> str:
    choices = {"optimizer": optimizer, "schedule": schedule, "weight_decay": decay}
    return algorithm_of(build_arm(arm_with(choices, **EXTRA, **values), task))


def test_twins_are_recognised(digits: Task) -> None:
    assert key(digits, "adam", "cosine") == key(digits, "adamw", "cosine")
    assert key(digits, "sgd", "schedule_free") == key(digits, "momentum", "schedule_free")
    assert key(digits, "momentum", "schedule_free") == key(digits, "nesterov", "schedule_free")
    assert key(digits, "adamw", "schedule_free", optimizer__beta1=0.5) == key(digits, "adamw", "schedule_free")


def test_others_are_not(digits: Task) -> None:
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
