"""A loop of the user's that asks for it goes on where it was kept, bitwise; one that doesn't begins again."""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from keeping import CutError, Cutter
from optsweep.errors import UserError
from optsweep.optim.adam import AdamW
from optsweep.optim.averaging import EMA, LAWA
from optsweep.optim.external import ExternalComposition
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.rule import Rule
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP
from optsweep.train.own.loop import Loop
from optsweep.train.own.program import LoopProgram, train_loop
from optsweep.train.own.running import RunningTrial
from optsweep.train.trial import Rung, Trial
from own_loops import HYPER, VAL, Told, finish, loader, outcome, program, score, stepped, told

COSINE = Schedule("cosine", {}, "linear", 3)
PLATEAU = Schedule("plateau", {"patience": 0, "factor": 0.5}, "none", 0)
FREE = Schedule("schedule_free", {}, "none", 0)
KINDS: list[tuple[Rule, Iterate, Schedule]] = [
    (AdamW(), Last(), COSINE),
    (AdamW(), EMA(), PLATEAU),
    (SOAP(refresh=3), ScheduleFree(), FREE),
    (AdamW(), LAWA(window=2, every=3), PLATEAU),
]


class Counted:
    """A number that a loop keeps for itself."""

    def __init__(self) -> None:
        self.total = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


def going(trial: RunningTrial, inside: bool = False) -> None:
    """Dropout, batch norm, a number of its own; epochs are shorter than the way between two rungs."""
    model = nn.Sequential(nn.Dropout(0.3), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer, counted = trial.optimizer(model), Counted()
    trial.resume(counted)
    for step, batch in trial.batches(loader(trial.batch_size)):
        loss = stepped(model, optimizer, batch) + 0.01 * counted.total
        counted.total += float(loss.detach())
        trial.log(train_loss=loss)
        if not trial.rung(step):
            continue
        if not inside:
            told(trial, model)
            continue
        with trial.evaluating(model):
            value, accuracy = score(model, VAL)
            trial.report(val_loss=value, accuracy=accuracy)
    finish(trial, model)


def by_hand(trial: RunningTrial) -> None:
    """Batches of its own, from all generators; two models, one of which no optimizer of the trial's trains."""
    model, teacher = nn.Sequential(nn.Linear(4, 2)), nn.Linear(4, 2)
    optimizer = trial.optimizer(model)
    own = torch.optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9)
    for step in range(trial.resume(teacher, own) + 1, trial.steps + 1):
        inputs = torch.randn(8, 4) + random.gauss(0, 1) + np.random.normal()  # noqa: NPY002
        own.zero_grad()
        (teacher(inputs) - inputs[:, :2]).square().mean().backward()
        own.step()
        stepped(model, optimizer, (inputs, teacher(inputs).argmax(-1)))
        if trial.rung(step):
            told(trial, model)
    finish(trial, model)


def trained(p: LoopProgram, hyper: dict[str, float], cutter: Cutter) -> tuple[str, list[Rung]]:
    heard, found = Told(), ""
    with suppress(CutError):
        found = repr(replace(train_loop(p, Trial(hyper, seed=1, test=True), heard, cutter), train_seconds=0.0))
    return found, [replace(rung, ms_per_step=None, train_seconds=0.0, peak_bytes=0) for rung in heard.rungs]


def check(p: LoopProgram, hyper: dict[str, float], at: int) -> None:
    expected, curve = trained(p, hyper, Cutter())
    cut = Cutter(at)
    _, before = trained(p, hyper, cut)
    assert cut.kept
    second = Cutter(given=cut.kept)
    found, after = trained(p, hyper, second)
    assert not second.refused
    assert found == expected
    assert before + after == curve
    assert len(after) == 5 - at, "it has gone on"


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("rule", "iterate", "schedule"), KINDS)
def test_a_loop_goes_on(rule: Rule, iterate: Iterate, schedule: Schedule, inside: bool) -> None:
    hyper = {"lr": 1e-2, "weight_decay": 0.1}
    hyper |= {name: domain.default for name, domain in {**rule.floats, **iterate.floats}.items()}
    loop = Loop(going, steps=20, options={"inside": inside})
    p = program(loop, rule, iterate, schedule=schedule, num_steps=20, num_rungs=5)
    for at in (1, 3):
        check(p, hyper, at)


@pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.NAdam])
def test_a_loop_goes_on_with_an_optimizer_of_torch_s(cls: Any) -> None:
    external = ExternalComposition(cls=cls, schedule=COSINE, num_steps=20)
    p = replace(program(Loop(going, steps=20), schedule=COSINE, num_steps=20, num_rungs=5), composition=external)
    check(p, {"lr": 1e-2, "weight_decay": 0.1}, 2)


def test_a_loop_with_batches_of_its_own_goes_on_from_the_steps_that_it_is_told() -> None:
    check(program(Loop(by_hand, steps=20), num_steps=20, num_rungs=5), HYPER, 3)


def test_the_loop_of_the_documentation_goes_on() -> None:
    page = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (whole,) = (block for block in blocks if 'name="loop"' in block)
    (resuming,) = (block for block in blocks if "trial.resume(" in block)
    names: dict[str, Any] = {}
    exec(compile(whole.partition("result =")[0] + resuming, "own-model.md", "exec"), names)
    check(program(Loop(names["train"], steps=20), num_steps=20, num_rungs=5), HYPER, 3)


def silent(trial: RunningTrial) -> None:
    model = nn.Linear(4, 2)
    optimizer = trial.optimizer(model)
    for step, batch in trial.batches(loader()):
        stepped(model, optimizer, batch)
        if trial.rung(step):
            told(trial, model)
    finish(trial, model)


def test_a_loop_that_does_not_ask_begins_again_and_can_be_stopped() -> None:
    cut = Cutter(1)
    outcomes = trained(program(Loop(silent, steps=12)), HYPER, cut)
    assert outcomes[0] == "", "it was cut off"
    assert not cut.kept


def test_a_state_that_does_not_fit_begins_anew() -> None:
    p = program(Loop(going, steps=20), num_steps=20, num_rungs=5)
    expected, _ = trained(p, HYPER, Cutter())
    cut = Cutter(2)
    trained(p, HYPER, cut)
    cut.kept[0]["loop"]["others"] = []
    second = Cutter(given=cut.kept)
    assert trained(p, HYPER, second)[0] == expected
    assert "[0]: ValueError" in second.refused[0]


class Unkeepable(Counted):
    def state_dict(self) -> dict[str, Any]:
        return {"seen": deque([1])}


def twice(trial: RunningTrial) -> None:
    trial.optimizer(nn.Linear(4, 2))
    trial.resume()
    trial.resume()


def early(trial: RunningTrial) -> None:
    trial.resume()


def late(trial: RunningTrial) -> None:
    trial.optimizer(nn.Linear(4, 2))
    trial.resume()
    trial.optimizer(nn.Linear(4, 2))


def no_state(trial: RunningTrial) -> None:
    trial.optimizer(nn.Linear(4, 2))
    trial.resume([1])  # type: ignore[arg-type]


def a_deque(trial: RunningTrial) -> None:
    trial.optimizer(nn.Linear(4, 2))
    trial.resume(Counted(), Unkeepable())


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (twice, r"trial.resume\(\): call it once, after trial.optimizer\(model\) and before the first batch"),
        (early, r"trial.resume\(\): call it once, after"),
        (late, r"trial.optimizer\(model\): trial.resume\(\) was called before it"),
        (no_state, r"trial.resume\(\): argument 1 is list; give what has state_dict and load_state_dict"),
        (a_deque, r"trial.resume\(\): argument 2: state_dict\(\)\['seen'\] is deque, which can't be kept"),
    ],
)
def test_what_can_not_be_kept_is_said_in_the_rehearsal(function: Callable[..., None], said: str) -> None:
    with pytest.raises(UserError, match=rf"^task.train: .*{said}"):
        outcome(function)
