"""A rule's static options have the types that its constructor names."""

from __future__ import annotations

import pytest

from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.build.named_task import build_task
from optsweep.errors import UserError
from optsweep.tasks.base import Trainable


@pytest.fixture(scope="module")
def digits() -> Trainable:
    return build_task(arm_with({}).task)


@pytest.mark.parametrize(
    ("optimizer", "option", "value", "allowed"),
    [
        ("muon", "nesterov", "no", "'no' is not allowed; give true or false"),
        ("soap", "refresh", 7.5, "7.5 is not allowed; give a whole number"),
        ("muon", "bf16", 1, "1 is not allowed; give true or false"),
    ],
)
def test_a_static_option_of_another_type_is_refused(
    digits: Trainable, optimizer: str, option: str, value: object, allowed: str
) -> None:
    with pytest.raises(UserError, match=rf"^optimizer\.{option}: {allowed}"):
        build_arm(arm_with({"optimizer": optimizer}, **{f"optimizer__{option}": value}), digits)
