"""Options of one's own task, searched or as an axis, and options that are for one choice of a group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import optsweep
from optsweep import api
from optsweep.build.assemble import build_arm, check_arm
from optsweep.build.named_task import task_for, task_of, with_searched
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.config.spoken import arms_of, search_of
from optsweep.errors import UserError
from optsweep.train.own.loop import Loop
from optsweep.train.program import Program
from own_pieces import X, Y, net, sized

OWN = ["task=own", "task._target_=own_pieces.sized", "sweep.name=test", "trainer.device=cpu"]


def line_of(*overrides: str) -> str:
    with pytest.raises(UserError) as raised:
        build_arm(arm_of(compose([*OWN, *overrides])))
    return str(raised.value)


def test_options_are_searched_though_no_yaml_lists_them() -> None:
    space = [
        "task.dropout={low: 0, high: 0.5}",
        "task.width={low: 4, high: 16, log: true}",
        "task.activation=[ReLU,Tanh]",
    ]
    built = build_arm(arm_of(compose([*OWN, *(f"search.space.{entry}" for entry in space)])))
    assert built.space.program["task.dropout"].content == [0, 0.5, False]
    assert built.space.program["task.width"].content == [4, 16, True]
    assert built.space.program["task.activation"].choices == ("ReLU", "Tanh")
    check_arm(built)
    chosen = {**built.space.first, "task.dropout": 0.25, "task.width": 12, "task.activation": "ReLU"}
    program = built.program_for(chosen)
    assert isinstance(program, Program)
    model = program.model(0)
    assert [type(layer) for layer in model.children()] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [layer.p for layer in model.children() if isinstance(layer, nn.Dropout)] == [0.25]
    assert next(p.shape[0] for p in model.parameters()) == 12


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("task.batch_size", "[16,32]"),
        ("trainer.clip_norm", "[0.5,1,null]"),
        ("trainer.precision", "[fp32,bf16]"),
        ("trainer.accumulate", "[1,2]"),
        ("schedule.final", "{low: 0, high: 0.1}"),
        ("warmup.steps", "{low: 0.01, high: 0.2}"),
        ("optimizer.eps", "{low: 1e-10, high: 1e-6, log: true}"),
    ],
)
def test_any_factor_is_searched(key: str, values: str) -> None:
    built = build_arm(arm_of(compose([*OWN, f"search.over=[lr,{key}]", f"search.space.{key}={values}"])))
    assert key in built.space.dimensions or key.rpartition(".")[2] in built.space.dimensions
    check_arm(built)


def test_a_search_that_names_no_option_says_which_there_are() -> None:
    assert line_of("search.space.task.widht=[4,8]") == (
        "task.widht: own_pieces.sized has no such option (did you mean width?); known: width, dropout, activation"
    )
    assert line_of("task.width=abc") == "task.width: 'abc' is not allowed; give a whole number"
    assert line_of("search.over=[lr,task.width]").startswith("search.space.task.width: there is no suggested range")


def test_a_task_is_called_by_its_name() -> None:
    def name(*overrides: str) -> str:
        arm = arm_of(compose([*OWN, *overrides]))
        assert arm.task.name == arm.choices["task"]
        return arm.choices["task"]

    assert name() == "own_pieces.sized"
    assert name("task.name=my digits") == "my digits"
    assert arm_of(compose(["task=iris_mlp", "sweep.name=test"])).choices["task"] == "iris_mlp"


def test_a_length_that_the_command_line_overrides_is_told() -> None:
    def told(*overrides: str) -> list[str]:
        return [line for line in build_arm(arm_of(compose([*OWN, *overrides]))).warnings if "counts" in line]

    assert told() == ["task.steps: 500 counts, not 40 of optsweep.Task"]
    assert told("task.steps=40") == []


def test_options_of_one_choice_reach_no_other() -> None:
    shared = ["task=iris_mlp", "sweep.name=test", "optimizer.external._target_=torch.optim.NAdam"]
    shared += ["optimizer.external.momentum_decay=0.01", "optimizer.adamw.beta2=0.95"]
    external, adamw = (arm_of(compose([*shared, f"optimizer={choice}"])) for choice in ("external", "adamw"))
    assert external.optimizer.target == "torch.optim.NAdam"
    assert external.optimizer.options == {"momentum_decay": 0.01}
    assert adamw.optimizer.options == {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    assert "NAdam" not in adamw.yaml
    assert "NAdam" in external.yaml
    check_arm(build_arm(external))


def test_options_of_a_choice_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "nadam.yaml").write_text("name: nadam\n_target_: torch.optim.NAdam\nlr: 1e-3\n")
    overrides = ["task=iris_mlp", "sweep.name=test", "optimizer.nadam.momentum_decay=0.01"]
    nadam, adamw = (arm_of(compose([*overrides, f"optimizer={name}"], folder=tmp_path)) for name in ("nadam", "adamw"))
    assert nadam.optimizer.options == {"momentum_decay": 0.01}
    assert "nadam" not in adamw.optimizer.options


def test_an_option_of_no_choice_is_refused() -> None:
    arm = arm_of(compose(["task=iris_mlp", "sweep.name=test", "optimizer.externl.lr=1"]))
    with pytest.raises(UserError, match=r"optimizer.externl: AdamW has no such option"):
        build_arm(arm)


def test_any_torch_optimizer_by_its_path_is_an_arm() -> None:
    adamw, nadam = arms_of(["adamw + cosine", "torch.optim.NAdam + cosine"], {"task": "iris_mlp", "sweep.name": "x"})
    assert nadam.optimizer.target == "torch.optim.NAdam"
    assert adamw.optimizer.name == "adamw"


def test_a_search_in_python_is_a_number_or_a_section() -> None:
    assert search_of(8) == {"search.trials": 8}
    assert search_of(0) == {"search": "none"}
    given: dict[str, Any] = {"trials": 8, "space": {"task.dropout": {"low": 0, "high": 0.5}, "task.width": [8, 16]}}
    (arm,) = arms_of(["adamw"], {"task": "iris_mlp", "sweep.name": "x", **search_of(given)})
    assert arm.search.trials == 8
    assert arm.search.over == ("lr", "task.dropout", "task.width")


def test_an_argument_without_a_default_is_searched() -> None:
    overrides = ["task=own", "task._target_=own_pieces.of_width", "sweep.name=test", "search.space.task.width=[4,8]"]
    arm = arm_of(compose([*overrides, "trainer.device=cpu"]))
    built = build_arm(arm, task_for(arm))  # as workers do
    assert built.space.program["task.width"].choices == (4, 8)
    assert api.suggest(arm).facts.num_steps == 500


def _loop(trial: optsweep.RunningTrial, data: Any, width: int = 4, steps: int = 7) -> None:
    """A loop with an argument that no config can hold, and one that is called as a key of every task."""


def test_what_no_config_holds_travels_with_the_loop() -> None:
    data = object()
    given = task_of(optsweep.Loop(_loop, options={"data": data, "width": 8}, steps=20))
    assert isinstance(given.task, Loop)
    assert (given.task.steps, given.options) == (20, {"width": 8})
    assert given.task.given({"width": 16}, None, 30).options == {"data": data, "width": 16, "steps": 7}


def test_an_option_of_a_loop_is_where_its_search_begins() -> None:
    shared = {"task": "own", "task._target_": "own_pieces.narrow", "sweep.name": "x"}
    (arm,) = arms_of(["adamw"], {**shared, **search_of({"space": {"task.width": [4, 8]}})})
    assert with_searched(arm).task.options == {"width": 8}


@pytest.mark.parametrize("text", [r"\d+", "it's", "a\\", r"\'", "'\\\\'x", "ünï [✓], =", " "])
def test_words_from_python_reach_the_config_as_they_are(text: str) -> None:
    (arm,) = arms_of(["adamw"], {"task": "own", "task._target_": "x.y", "task.word": text, "sweep.name": "x"})
    assert arm.task.options == {"word": text}


def test_a_value_that_is_no_yaml_is_a_line() -> None:
    with pytest.raises(UserError, match=r"arms: 'trainer.clip_norm=\[1' of .* can't be read, line 1: "):
        arms_of(["adamw + trainer.clip_norm=[1"], {"task": "iris_mlp", "sweep.name": "x"})


@pytest.mark.parametrize("kind", ["Task", "Loop"])
def test_what_a_script_made_is_known_there_alone(kind: str) -> None:
    arm = arm_of(compose(["task=own", f"task._target_=optsweep.{kind}", "sweep.name=test"]))
    with pytest.raises(UserError, match=rf"task._target_: optsweep.{kind} was made by a script"):
        build_arm(arm)


def test_a_name_is_no_task() -> None:
    with pytest.raises(UserError, match="task: str is no task"):
        optsweep.check("mine.task")  # type: ignore[arg-type]


def test_a_task_that_is_built_has_no_options_to_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = (
        r"task.dropout: a task that is built already has no options; give a function that returns it: def task\(dropout"
    )
    for arms, search in ((["adamw + task.dropout=0.1"], 1), (["adamw"], {"space": {"task.dropout": [0.0, 0.1]}})):
        with pytest.raises(UserError, match=line):
            optsweep.compare(optsweep.Task(net, (X, Y)), arms, name="x", search=search, quiet=True, workers=0)
    assert not list(tmp_path.glob("mlruns/optuna.db"))


def test_a_function_with_options_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search = {"trials": 2, "over": ["lr"], "space": {"task.dropout": {"low": 0, "high": 0.5}}}
    arms = ["adamw + task.width=4", "adamw + task.width=8"]
    small = {"steps": 4, "rungs": 2, "device": "cpu"}
    found = optsweep.compare(sized, arms, name="sizes", search=search, confirm=2, workers=0, quiet=True, trainer=small)
    assert found.labels == ("adamw + cosine + width=4", "adamw + cosine + width=8")
    assert found.verdict.startswith("On sizes, ")
