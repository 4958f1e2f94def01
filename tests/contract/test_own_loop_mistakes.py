"""What a loop of the user's can do wrong: each is one line, with the user's own line of code where there is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from optsweep.build.assemble import build_arm
from optsweep.config.arm import Arm
from optsweep.config.spoken import arms_of
from optsweep.errors import UserError, located
from optsweep.train.own.faults import LoopError
from optsweep.train.own.loop import Loop
from optsweep.train.own.running import RunningTrial
from own_loops import CLASSES, INPUTS, TRAIN, finish, loader, outcome, stepped, told, train
from own_pieces import net

HERE = r"test_own_loop_mistakes\.py:\d+"


class Shuffled(Sampler[int]):
    generator = torch.Generator()

    def __len__(self) -> int:
        return 120

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(120, generator=self.generator).tolist())


def plain(trial: RunningTrial, loader: Any) -> None:
    """A loop over a loader that may be wrong."""
    model = net()
    optimizer = trial.optimizer(model)
    for step, batch in trial.batches(loader):
        stepped(model, optimizer, batch)
        if trial.rung(step):
            told(trial, model)
    finish(trial, model)


def silent(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for _, batch in trial.batches(loader()):
        stepped(model, optimizer, batch)


def silent_counting(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for _ in range(trial.steps):
        stepped(model, optimizer, (INPUTS, CLASSES))


def twice(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for step, batch in trial.batches(loader()):
        stepped(model, optimizer, batch)
        if trial.rung(step):
            told(trial, model)
            told(trial, model)


def anywhere(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for _, batch in trial.batches(loader()):
        stepped(model, optimizer, batch)
        told(trial, model)


def early(trial: RunningTrial) -> None:
    stepped(model := net(), trial.optimizer(model), (INPUTS, CLASSES))


def from_zero(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for step in range(trial.steps):
        stepped(model, optimizer, (INPUTS, CLASSES))
        if trial.rung(step):
            told(trial, model)


def without_loss(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for step, batch in trial.batches(loader()):
        stepped(model, optimizer, batch)
        if trial.rung(step):
            trial.report(accuracy=0.5)


def reporting(value: Any) -> Callable[[RunningTrial], None]:
    def reports(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            stepped(model, optimizer, batch)
            if trial.rung(step):
                trial.report(val_loss=value)

    return reports


def own_optimizer(trial: RunningTrial) -> None:
    model = net()
    stepped(model, torch.optim.SGD(model.parameters(), lr=0.1), (INPUTS, CLASSES))


def idle(trial: RunningTrial) -> None:
    trial.optimizer(net())
    for _ in trial.batches(loader()):
        pass


def frozen(trial: RunningTrial) -> None:
    trial.optimizer(net().requires_grad_(False))


def crashing(trial: RunningTrial) -> None:
    trial.optimizer(net())
    nn.Linear(3, 2)(INPUTS)


def averaging(trial: RunningTrial) -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), net())
    optimizer = trial.optimizer(model)
    for _ in range(trial.steps):
        stepped(model, optimizer, (INPUTS, CLASSES))
        if trial.rung():
            told(trial, model)


def by_the_other(trial: RunningTrial) -> None:
    model = net()
    stepped(model, trial.optimizer(model, steps=3), (INPUTS, CLASSES))


UNSEEDED = DataLoader(TensorDataset(INPUTS[TRAIN], CLASSES[TRAIN]), 16, sampler=Shuffled())

MISTAKES: list[tuple[str, Callable[..., None], str]] = [
    ("never reports", silent, rf"^task\.train: {HERE}, silent: it never reports; call trial\.report"),
    ("never reports, counting", silent_counting, r"^task\.train: .*py:\d+, in stepped: .*step 2 is a rung and nothing"),
    ("reports twice", twice, r"^task\.train: .*py:\d+, in told: trial\.report\(\): step 2 was reported already"),
    ("reports anywhere", anywhere, r"^task\.train: .*step 1 is no rung; report where trial\.rung\(step\) is true"),
    ("ends early", early, rf"^task\.train: {HERE}, early: it returned after 1 of 500 steps"),
    ("counts from 0", from_zero, rf"^task\.train: {HERE}, in from_zero: trial\.rung\(0\): optimizer steps done: 1"),
    ("no loss", without_loss, rf"^task\.train: {HERE}, in without_loss: trial\.report\(\): val_loss=… is missing"),
    ("no scalar", reporting(torch.ones(3)), rf"^task\.train: {HERE}, in reports: .*val_loss has shape \[3\]"),
    ("no number", reporting("low"), rf"^task\.train: {HERE}, in reports: .*val_loss is str; give a number"),
    ("not finite", reporting(float("nan")), r"^task\.train: trial\.report\(\): val_loss is nan after 2 steps"),
    ("own optimizer", own_optimizer, rf"^task\.train: {HERE}, own_optimizer: it never asked for trial\.optimizer"),
    ("no step", idle, rf"^task\.train: {HERE}, in idle: .*1000 batches and no step"),
    ("no parameter", frozen, rf"^task\.train: {HERE}, in frozen: .*Sequential has no trainable parameter"),
    ("crash", crashing, rf"^task\.train: {HERE}, in crashing: RuntimeError: mat1 and mat2"),
    ("no batches", averaging, r"^task\.train: .*in told: trial\.evaluating\(model\): 0 is a batch norm.*give batches="),
    ("no budget", by_the_other, r"^task\.train: .*one optimizer has to go by the budget"),
    ("unseeded", lambda trial: plain(trial, UNSEEDED), r"^task\.train: .*its order isn't seeded"),
    ("empty", lambda trial: plain(trial, []), r"^task\.train: .*in plain: trial\.batches\(loader\): list has no batch"),
    ("generator", lambda trial: plain(trial, iter([(INPUTS, CLASSES)])), r"begins no second time; give a DataLoader"),
]


@pytest.mark.parametrize(("name", "function", "line"), MISTAKES, ids=[name for name, _, _ in MISTAKES])
def test_a_mistake_is_a_line_before_anything_is_written(name: str, function: Callable[..., None], line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        _ = Loop(function).rehearsed
    assert "\n" not in str(error.value)


def test_a_metric_that_isn_t_told_is_a_line() -> None:
    with pytest.raises(
        UserError, match=r"^task\.train: trial\.report\(\): the metric f1 is missing; there is accuracy"
    ):
        _ = Loop(train, metric="f1").rehearsed


# -- what only a trial shows -------------------------------------------------------------------------------------------


def too_long(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for step in range(1, trial.steps + 2):
        try:
            stepped(model, optimizer, (INPUTS, CLASSES))
        except Exception:
            continue
        if trial.rung(step):
            told(trial, model)


def too_short(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for step in range(1, trial.steps - 1):
        stepped(model, optimizer, (INPUTS, CLASSES))
        if trial.rung(step):
            told(trial, model)


def untested(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for step in range(1, trial.steps + 1):
        stepped(model, optimizer, (INPUTS, CLASSES))
        if trial.rung(step):
            told(trial, model)


def changing(trial: RunningTrial) -> None:
    model = net()
    optimizer = trial.optimizer(model)
    for step, batch in trial.batches(loader()):
        stepped(model, optimizer, batch)
        if trial.rung(step):
            trial.report(val_loss=1.0, **({"f1": 0.5} if step < 12 else {"auc": 0.5}))


LATER: list[tuple[Callable[..., None], str]] = [
    (too_long, r"in stepped: LoopError: optimizer\.step\(\): the budget of 12 steps is used up"),
    (too_short, r"too_short: it returned after 10 of 12 steps"),
    (untested, r"untested: it ended without trial\.finish\(test_loss=…\)"),
    (changing, r"in changing: LoopError: trial\.report\(\): f1 is missing at step 12; there is auc"),
]


@pytest.mark.parametrize(("function", "line"), LATER)
def test_a_trial_s_mistake_is_a_line(function: Callable[..., None], line: str) -> None:
    with pytest.raises(LoopError) as error:
        outcome(function)
    assert re.search(line, located(error.value))


def test_a_loop_that_says_that_it_has_no_test_split_rests_on_validation_data() -> None:
    found = outcome(untested, loop={"test": False})
    assert found.test_loss == found.val_loss
    assert "rests on the validation data" in " ".join(Loop(untested, test=False).notes)


# -- the function and its arguments ------------------------------------------------------------------------------------


def test_what_is_no_function_of_a_trial() -> None:
    with pytest.raises(UserError, match=r"^task\.train: 3 is no function"):
        Loop(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^task\.train: the function takes no argument"):
        Loop(lambda: None)
    with pytest.raises(UserError, match=r"^task\.widht: the loop has no such argument \(did you mean width\?\)"):
        Loop(lambda trial, width=3: None, options={"widht": 4})
    with pytest.raises(UserError, match=r"^task\.width: the loop needs it"):
        Loop(lambda trial, width: None)


def arm_of(**settings: Any) -> Arm:
    keys = {"task": "own", "task._target_": "own_loops.train", "search": "none", "sweep.name": "x", **settings}
    (arm,) = arms_of(["adamw + cosine"], keys)
    return arm


def test_a_dotted_path_names_a_loop_with_its_options() -> None:
    built = build_arm(arm_of(**{"task.dropout": 0.25, "task.batch_size": 16}))
    task = built.task
    assert isinstance(task, Loop)
    assert (task.function, task.options, task.batch_size) == (train, {"dropout": 0.25}, 16)
    assert built.program.batch_size == 16
    assert built.content["task.dropout"] == 0.25


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "trainer.precision",
            "bf16",
            r"^trainer\.precision: bf16 is for optsweep's loop; use torch\.autocast in yours",
        ),
        ("trainer.accumulate", 2, r"^trainer\.accumulate: 2 is for optsweep's loop"),
        ("task.width", 2, r"^task\.width: the loop has no such argument"),
        ("task._target_", "own_loops.score", r"^task\.model: own_loops\.score needs it, .*is called trial\)"),
    ],
)
def test_settings_that_a_loop_doesn_t_have(key: str, value: object, line: str) -> None:
    with pytest.raises(UserError, match=line):
        build_arm(arm_of(**{key: value}))


def test_code_options_and_data_are_part_of_what_a_trial_is() -> None:
    first = build_arm(arm_of()).identity
    other = build_arm(arm_of(**{"task.batch_size": 8})).identity
    assert any("own_loops.py" in key for key in first.exact)
    assert any("first batch" in said for said in other.differences(first))
    assert not build_arm(arm_of()).identity.differences(first)


def test_a_tensor_of_the_batch_is_where_the_trial_is() -> None:
    devices: list[str] = []

    def looking(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            devices.extend(tensor.device.type for tensor in batch if isinstance(tensor, Tensor))
            stepped(model, optimizer, batch)
            if trial.rung(step):
                told(trial, model)
        finish(trial, model)

    outcome(looking)
    assert set(devices) == {"cpu"}
