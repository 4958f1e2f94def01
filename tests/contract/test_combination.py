"""What rules and schedules declare of themselves is what counts, not their names: a user's own are treated alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from arms import arm_with
from optsweep.build.assemble import algorithm_of, build_arm, check_arm
from optsweep.build.combination import ships_average
from optsweep.build.named_task import build_task
from optsweep.errors import UserError
from optsweep.optim.adam import Adam
from optsweep.optim.rule import Domain
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedule_functions import Floats, Steps, special
from optsweep.optim.sgd import SGD
from optsweep.tasks.base import Trainable


class Picky(Adam):
    """A user's rule that isn't defined with decoupled decay."""

    floats: ClassVar[Mapping[str, Domain]] = {**Adam.floats, "tilt": Domain(0.0, 1.0, 0.5)}
    momentum_floats: ClassVar[frozenset[str]] = frozenset({"beta1", "tilt"})
    refused_decays: ClassVar[Mapping[str, str]] = {"decoupled": "Picky has none; give weight_decay=l2"}


class Renamed(Adam):
    """Adam under a user's name."""

    @property
    def algorithm(self) -> str:
        return Adam.__qualname__


class Refusing(SGD):
    """A rule that can't take this model."""

    def update(self, *args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError("matrices of rank 7 only\nand a second line")


class RefusingToStep(torch.optim.SGD):
    """An optimizer that a small matrix suits, and vectors don't."""

    def step(self, closure: Any = None) -> Any:
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise RuntimeError("vectors have no place here\nand a second line")


class Float64Only(torch.optim.SGD):
    """An optimizer that goes by the type of a real model's parameters."""

    def __init__(self, params: Sequence[Tensor], lr: float = 0.1) -> None:
        params = list(params)
        if len(params) > 1 and params[0].dtype != torch.float64:
            raise TypeError("parameters must be float64")
        super().__init__(params, lr)


@special(own_warmup=True)
def climbing(steps: Steps, num_steps: int) -> Floats:
    return (steps + 1) / num_steps


@special(iterate=ScheduleFree)
def averaging(steps: Steps, num_steps: int, *, level: float = 1.0) -> Floats:
    return np.full(len(steps), level)


def listening(steps: Steps, num_steps: int, *, observed: Sequence[float] = ()) -> Floats:
    return np.full(len(steps), 0.5 if len(observed) > 5 else 1.0)


@pytest.fixture(scope="module")
def digits() -> Trainable:
    return build_task(arm_with({}).task)


def own(name: str) -> str:
    return f"{__name__}.{name}"


def refusal(task: Trainable, choices: dict[str, str], **values: object) -> str:
    with pytest.raises(UserError) as caught:
        check_arm(build_arm(arm_with(choices, optimizer__lr=0.01, **values), task))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_rule_s_refused_decay_is_one_line(digits: Trainable) -> None:
    picky = {"optimizer___target_": own("Picky")}
    said = refusal(digits, {"weight_decay": "decoupled"}, weight_decay__value=0.1, **picky)
    assert said == "weight_decay=decoupled: Picky has none; give weight_decay=l2"
    allowed = build_arm(arm_with({"weight_decay": "l2"}, optimizer__lr=0.01, weight_decay__value=0.1, **picky), digits)
    assert check_arm(allowed) == []


def test_what_a_rule_s_momentum_takes_with_it_is_not_searched_and_tells_no_arms_apart(digits: Trainable) -> None:
    def arm(**values: object) -> Any:
        return arm_with({"schedule": "schedule_free"}, optimizer___target_=own("Picky"), optimizer__lr=0.01, **values)

    keys = {algorithm_of(build_arm(arm(optimizer__tilt=tilt), digits)) for tilt in (0.1, 0.9)}
    assert len(keys) == 1
    with pytest.raises(UserError, match="schedule_free switches tilt off; search averaging_beta instead"):
        build_arm(arm(search__trials=4, search__over=["tilt"]), digits)


def test_one_algorithm_under_two_names_is_recognised_by_what_it_declares(digits: Trainable) -> None:
    keys = [
        algorithm_of(build_arm(arm_with({}, optimizer___target_=target, optimizer__lr=0.01), digits))
        for target in ("optsweep.optim.adam.AdamW", own("Renamed"), own("Picky"))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_schedule_s_own_warm_up_refuses_another(digits: Trainable) -> None:
    target = {"schedule___target_": own("climbing")}
    said = refusal(digits, {"schedule": "constant", "warmup": "linear"}, schedule__name="climbing", **target)
    assert said == "warmup=linear: climbing has its own warm-up; give warmup=none"


def test_a_schedule_brings_its_average_and_the_average_s_options(digits: Trainable) -> None:
    values: dict[str, object] = {"schedule__name": "averaging", "schedule___target_": own("averaging")}
    values |= {"schedule__averaging_beta": 0.5, "schedule__decay_at": "z", "schedule__level": 0.5}
    built = build_arm(arm_with({"schedule": "constant"}, optimizer__lr=0.01, **values), digits)
    assert built.space.fixed["averaging_beta"] == 0.5
    assert built.program.schedule.options == {"level": 0.5}
    assert "z" in built.program.build_update(built.program.layout).init(torch.zeros(1, built.program.layout.size))
    assert "give one of y, z" in refusal(digits, {"schedule": "constant"}, **{**values, "schedule__decay_at": "x"})
    assert "averaging averages already" in refusal(digits, {"schedule": "constant", "averaging": "ema"}, **values)
    external = {"optimizer___target_": "torch.optim.NAdam"}
    assert "keeps momentum of its own" in refusal(
        digits, {"optimizer": "external", "schedule": "constant"}, **values, **external
    )


def test_a_schedule_that_listens_needs_evaluations(digits: Trainable) -> None:
    values: dict[str, object] = {"schedule__name": "listening", "schedule___target_": own("listening")}

    def notes(rungs: int) -> list[str]:
        arm = arm_with({"schedule": "constant"}, optimizer__lr=0.01, trainer__rungs=rungs, **values)
        return check_arm(build_arm(arm, digits))

    assert notes(7) == []
    assert "never reduces the LR with 4 evaluations; give trainer.rungs=7" in notes(4)[0]
    assert "goes by them" in refusal(digits, {"schedule": "constant"}, trainer__rungs=1, **values)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("torch.optim.Muon", "Muon only supports 2D parameters"),
        (own("RefusingToStep"), "vectors have no place here"),
        (own("Float64Only"), "parameters must be float64"),
    ],
)
def test_what_an_external_optimizer_refuses_of_the_real_model_is_found_before_training(
    digits: Trainable, target: str, said: str
) -> None:
    line = refusal(digits, {"optimizer": "external"}, optimizer___target_=target)
    assert line.startswith("optimizer: ")
    assert said in line


def test_a_rule_that_can_not_step_on_the_real_model_is_found_before_training(digits: Trainable) -> None:
    assert refusal(digits, {"optimizer": "sgd"}, optimizer___target_=own("Refusing")) == (
        "optimizer: Refusing refuses this model: matrices of rank 7 only"
    )


@pytest.mark.parametrize(
    ("choices", "averaged"), [({}, False), ({"schedule": "schedule_free"}, True), ({"averaging": "ema"}, True)]
)
def test_what_ships_an_average_is_declared(choices: dict[str, str], averaged: bool) -> None:
    assert ships_average(arm_with({"optimizer": "adamw", **choices})) is averaged
