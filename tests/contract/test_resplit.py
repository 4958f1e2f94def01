"""The split into training and validation that further repeats draw anew, and the test split that they don't."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.build.named_task import build_task
from optsweep.build.resplit import divided
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch.worker.builds import Builds
from optsweep.tasks.base import Split, Task
from optsweep.tasks.classification import redrawn, stratified
from optsweep.tasks.shipped import table


def samples(task: Task, split: Split) -> torch.Tensor:
    return task.batch(split, torch.arange(task.size(split)))[0]


def classes(task: Task, split: Split) -> list[int]:
    found = task.batch(split, torch.arange(task.size(split)))[1]
    return torch.bincount(found).tolist()


def iris(**values: object) -> Arm:
    return arm_with({"task": "iris_mlp"}).with_values({"sweep.repeats": 2, "search.trials": 2, **values})


def test_rows_move_between_training_and_validation_only_and_classes_stay_in_their_shares() -> None:
    _, targets = table("iris")
    rows = stratified(targets)
    again, other = redrawn(targets, rows, 1), redrawn(targets, rows, 2)
    assert np.array_equal(again[Split.TEST], rows[Split.TEST])
    assert sorted([*again[Split.TRAIN], *again[Split.VAL]]) == sorted([*rows[Split.TRAIN], *rows[Split.VAL]])
    for split in (Split.TRAIN, Split.VAL):
        assert np.array_equal(np.bincount(targets[again[split]]), np.bincount(targets[rows[split]]))
        assert set(again[split]) != set(rows[split])
        assert set(again[split]) != set(other[split])


def test_the_first_repeat_has_the_split_that_is_there_without_any() -> None:
    arm = iris()
    task = build_task(arm.task)
    assert divided(arm, task, 0) is task
    again = divided(arm, task, 1)
    assert isinstance(task, Task)
    assert isinstance(again, Task)
    assert again.digest() != task.digest()
    assert again.digest() == divided(replace(arm, axes={"another": "arm"}), task, 1).digest()  # so that they pair
    assert again.digest() != divided(replace(arm, seed=1), task, 1).digest()
    assert all(classes(again, split) == classes(task, split) for split in Split)
    train = samples(again, Split.TRAIN)
    torch.testing.assert_close(train.mean(0), torch.zeros(4), atol=1e-6, rtol=0)  # standardised by its own rows


def test_asked_for_or_not() -> None:
    task = build_task(iris().task)
    assert divided(iris(**{"task.resplit": False}), task, 1) is task
    language = arm_with({"task": "charlm_tiny"})
    text = build_task(language.task)
    assert divided(language, text, 1) is text
    with pytest.raises(UserError, match=r"^task.resplit: charlm_tiny has no split into training and validation"):
        divided(language.with_values({"task.resplit": True}), text, 1)


def test_it_belongs_to_what_identifies_a_trial() -> None:
    assert build_arm(iris()).content["task.resplit"] is True
    assert build_arm(iris(**{"task.resplit": False})).content["task.resplit"] is False
    assert build_arm(iris()).fingerprint == build_arm(iris(**{"sweep.repeats": 1})).fingerprint  # which may grow


@pytest.mark.parametrize(("resplit", "same"), [(None, False), (False, True)])
def test_a_worker_trains_each_repeat_on_its_own_split(resplit: bool | None, same: bool) -> None:
    arm, builds = iris(**{"task.resplit": resplit}), Builds()
    digests = [builds.of(arm, repeat).program.task.digest() for repeat in (1, 0, 1, 2)]
    assert digests[0] == digests[2]
    assert (digests[0] == digests[1]) is same
    assert (digests[0] == digests[3]) is same
