"""A rule's static options have the types that its constructor names."""

from __future__ import annotations

import pytest
import torch

from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.build.named_task import build_task
from optsweep.build.targets import construct, pickled, unpickled
from optsweep.errors import UserError, first_line, located
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


def test_a_class_of_a_script_travels_though_its_attributes_are_called_as_modules_of_torch() -> None:
    class Labelled:
        def __init__(self) -> None:
            self.classes, self.ops = torch.ones(2), 1

        def total(self) -> float:
            return float(torch.sum(self.classes)) + self.ops

    Labelled.__module__ = "__main__"
    assert unpickled(pickled(Labelled(), "task")).total() == 3


def test_an_error_without_words_is_told_by_its_kind() -> None:
    assert first_line(ValueError(" \n")) == "ValueError"
    with pytest.raises(UserError, match=r"^optimizer: ValueError$"):
        construct(_Wordless, {}, "optimizer")


class _Wordless:
    floats = ()

    def __init__(self) -> None:
        raise ValueError


def test_an_error_in_what_travelled_is_told_with_its_file() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        unpickled(pickled(lambda: 1 / 0, "task"))()
    assert located(caught.value).startswith("test_targets.py:")
