"""What a task of pieces says of its model, and an optimizer of torch that it is trained with."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import optsweep
from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.errors import UserError
from optsweep.tasks.base import Facts
from own_pieces import X, Y, net


def test_an_unknown_architecture_says_what_it_costs() -> None:
    facts = Facts("rnn", "complex", reference_batch_size=16)
    tasks = optsweep.Task(net, (X, Y), facts=facts), optsweep.Task(net, (X, Y))
    warned, silent = (build_arm(arm_with({}), task).warnings for task in tasks)
    assert "no published range is for 'rnn'" in warned[2]
    assert "Facts(…, like='mlp')" in warned[2]
    assert len(silent) == 2
    like = replace(facts, like="mlp")
    assert len(build_arm(arm_with({}), optsweep.Task(net, (X, Y), facts=like)).warnings) == 2
    with pytest.raises(UserError, match=r"task\.facts\.like: 'gru' is not allowed; give one of mlp, cnn"):
        build_arm(arm_with({}), optsweep.Task(net, (X, Y), facts=replace(facts, like="gru")))


def test_a_recurrent_network_is_seen_as_one() -> None:
    facts = optsweep.Task(lambda: nn.LSTM(4, 8), (X, Y)).facts
    assert (facts.architecture, facts.like) == ("rnn", "mlp")


def test_torch_s_optimizer_beside_a_rule_has_a_yaml_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    page = Path(__file__).parents[2] / "docs" / "extending.md"
    (content,) = re.findall(r"```yaml\n(name: nadam\n.*?)```", page.read_text(), re.S)
    (tmp_path / "optimizer" / "nadam.yaml").write_text(content)
    found = arm_of(compose(["optimizer=nadam", "task=iris_mlp", "search=none", "sweep.name=g"], folder=tmp_path))
    assert build_arm(found).rule.startswith("torch.optim.nadam.NAdam(")
