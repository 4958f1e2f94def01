"""`optsweep check`: what a sweep would meet is found before it is started, and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optsweep
from arms import arm_with, names_in
from optsweep.cli.doorman import run
from optsweep.config.compose import cells
from optsweep.config.spoken import Spoken
from optsweep.launch.check.checked import Checked
from optsweep.launch.neighbours import said_of
from optsweep.launch.prepare.cost import Evaluations, cost_of
from optsweep.tasks.pieces import Pieces
from optsweep.train.own.running import RunningTrial
from own_loops import finish, loader, stepped, told, train
from own_pieces import X, Y, net

FEW: Any = {"steps": 40, "rungs": 2, "device": "cpu"}
NOISE = torch.Generator().manual_seed(0)


def checked(task: Pieces, arms: Sequence[Spoken] = ("adamw + cosine",), **options: Any) -> Checked:
    return optsweep.check(task, arms, **{"name": "small", "seconds": 0.0, "trainer": FEW, **options})


def fact(found: Checked, what: str) -> str:
    return dict(found.tasks[0].facts)[what]


class Spare(nn.Module):
    """Has a layer that it doesn't use."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


class Unseeded(nn.Module):
    """Draws from a generator that nobody seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x + torch.randn(x.shape, generator=NOISE))
        return out


def test_a_shipped_task_with_every_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ["task=iris_mlp", "optimizer=soap,sgd", "trainer.steps=50", "trainer.device=cpu", "search.trials=3"]
    assert run(["check", "-m", *keys, "hydra.launcher.workers=2", "--seconds", "3600"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    rows = [line.split()[0] for line in said.splitlines() if line.startswith(" ")]
    assert set(rows) >= {*names_in("optimizer")} - {"external"}
    assert "22 trials" in said
    assert "2 workers" in said
    assert said.endswith("Nothing was found that would fail.\n")
    assert not list(tmp_path.iterdir())


def test_times_and_memory_are_of_each_optimizer() -> None:
    found = checked(Pieces(net, (X, Y)), ("sgd + cosine", "adamw + cosine + optimizer.beta1=0.8"))
    (task,) = found.tasks
    by_label = {tried.label: tried for tried in task.optimizers}
    assert by_label.keys() == {"adamw", "sgd", "adamw + cosine + beta1=0.8"}  # the catalogue's others had no time
    parameters = 4 * (4 * 8 + 8 + 8 * 2 + 2)
    first, none, second = (tried.state_bytes or 0 for tried in task.optimizers)
    assert (none, first) == (0, second)
    assert 2 * parameters <= first < 3 * parameters  # rows are padded
    assert task.relative(by_label["adamw"]) == 1.0
    assert all(tried.finite and tried.ms_per_step for tried in task.optimizers)
    assert any("muon" in remark and "not tried" in remark for remark in found.remarks)
    assert found.ok


def test_a_parameter_without_gradient_is_named() -> None:
    found = checked(Pieces(Spare, (X, Y)))
    assert fact(found, "gradients") == "none for spare.weight and spare.bias"
    assert any("spare.weight, spare.bias no gradient" in remark for remark in found.remarks)
    assert found.ok


def test_a_gradient_of_zeros_is_named() -> None:
    class Muted(Spare):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x) + 0 * self.spare(x)
            return out

    assert fact(checked(Pieces(Muted, (X, Y))), "gradients") == "zeros for spare.weight and spare.bias"


def test_numbers_that_differ_from_run_to_run_are_found() -> None:
    found = checked(Pieces(Unseeded, (X, Y)))
    assert not found.ok
    assert found.findings[0].startswith("the same seed twice gives other numbers")
    assert fact(found, "same seed twice") == "other numbers from the start on"
    assert fact(checked(Pieces(net, (X, Y))), "same seed twice") == "the same numbers, bitwise"


def test_dropout_is_why_trials_train_one_after_the_other() -> None:
    dropping = checked(Pieces(lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 2)), (X, Y)))
    assert fact(dropping, "lanes") == "one trial after the other, because it draws random numbers (torch's generator)"
    assert fact(checked(Pieces(net, (X, Y))), "lanes") == "possible"
    assert dropping.ok


@pytest.mark.parametrize("cores", [1, 16])
def test_a_wrong_loss_is_the_last_line(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where few workers may share trials, so that lanes are tried before."""
    monkeypatch.setattr("optsweep.launch.prepare.devices.num_cores", lambda: cores)

    def wrong(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square()

    found = checked(Pieces(net, (X, Y), loss=wrong))
    assert len(found.findings) == 1
    assert found.findings[0].startswith("task.model: its first batch fails: test_check.py:")
    assert found.cost is None
    assert str(found).splitlines()[-1].endswith("dimension 1")


def test_the_loss_at_the_start_is_held_against_chance() -> None:
    assert f"costs {math.log(2):.4g}" in fact(checked(Pieces(net, (X, Y))), "loss at start")
    loud = checked(Pieces(net, (X * 1000, Y), loss=lambda out, y: nn.functional.cross_entropy(50 * out, y)))
    assert any("times that of a guess" in remark for remark in loud.remarks)
    regression = checked(Pieces(lambda: nn.Linear(4, 1), (X, X[:, :1]), loss=nn.MSELoss()))
    assert "isn't known" in fact(regression, "loss at start")


def test_a_stream_in_one_order_for_all_seeds_is_told() -> None:
    x, y = torch.tensor(X).float(), torch.tensor(Y)

    def stream() -> Any:
        return zip(x[:192].split(64), y[:192].split(64), strict=True)

    found = checked(Pieces(net, stream, (X, Y), samples=192))
    assert fact(found, "data order") == "the same for all seeds"
    assert fact(checked(Pieces(net, (X, Y))), "data order").startswith("seeded")


def test_a_rate_that_is_too_high_is_told() -> None:
    arms = ("adamw + cosine", {"optimizer": "sgd", "warmup": "none", "optimizer.lr": 1e38})
    found = checked(Pieces(net, (X, Y)), arms, search=0)
    assert any("isn't finite" in remark and "sgd" in remark for remark in found.remarks)


def test_an_optimizer_that_crashes_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the user's own, in a folder that the catalogue has too."""
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "crashing.yaml").write_text("name: crashing\n_target_: crashing.Crashing\nlr: 1")
    (tmp_path / "crashing.py").write_text(
        "from optsweep.optim.sgd import SGD\n\n\nclass Crashing(SGD):\n    def update(self, *arguments):\n"
        "        raise RuntimeError('it broke')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = checked(Pieces(net, (X, Y)), seconds=3600.0)
    assert found.findings == ("crashing: crashing.py:6, in update: RuntimeError: it broke",)


def test_a_loop_of_ones_own() -> None:
    found = optsweep.check(train, ("sgd + cosine",), seconds=0.0, trainer=FEW)
    assert [tried.label for tried in found.tasks[0].optimizers] == ["adamw", "sgd"]
    assert all(tried.finite and tried.ms_per_step for tried in found.tasks[0].optimizers)
    assert found.tasks[0].optimizers[1].state_bytes == 0
    assert fact(found, "data order") == "seeded, by trial.batches"
    assert fact(found, "same seed twice") == "the same numbers, bitwise"
    assert found.cost is not None
    assert found.ok


def test_what_a_loop_leaves_to_chance_or_unused_is_found() -> None:
    def careless(trial: RunningTrial) -> None:
        model = Unseeded()
        model.spare = nn.Linear(3, 3)
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader(trial.batch_size)):
            stepped(model, optimizer, batch)
            if trial.rung(step):
                told(trial, model)
        finish(trial, model)

    found = optsweep.check(careless, seconds=0.0, trainer=FEW)
    assert fact(found, "gradients") == "none for spare.weight and spare.bias"
    assert [finding[:35] for finding in found.findings] == ["the same seed twice gives other num"]


def test_a_loop_that_fails_is_a_finding() -> None:
    def silent(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for _, batch in trial.batches(loader(trial.batch_size)):
            stepped(model, optimizer, batch)

    found = optsweep.check(silent, seconds=0.0, trainer=FEW)
    assert len(found.findings) == 1
    assert found.cost is None
    assert "report" in found.findings[0]


def test_exit_codes_and_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong_loss.py").write_text(
        "import numpy as np, optsweep\nfrom torch import nn\n\n\ndef task():\n"
        "    x = np.zeros((200, 3), dtype=np.float32)\n"
        "    return optsweep.Task(lambda: nn.Linear(3, 1), (x, x[:, 0]), loss=lambda out, y: out.log().mean())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(["check", "task=own", "task._target_=wrong_loss.task", "trainer.device=cpu"])
    assert ended.value.code == 1
    said = capsys.readouterr().out.split("This would fail\n")[1]
    assert said.startswith("- task.loss: it is ")
    for wrong in (
        ["task=nothing"],
        ["task=own", "task._target_=absent.task"],
        ["--seconds", "soon"],
        ["--nonsense"],
        ["a=[1"],
    ):
        assert run(["check", *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["wrong_loss.py"]


def test_what_it_costs_is_trials_times_steps_times_time() -> None:
    arm = arm_with({}, search__trials=16, confirm__seeds=3, trainer__steps=100, sweep__repeats=2)
    cost = cost_of(arm, "a", ms_per_step=10.0, rungs=4, evaluations=Evaluations(val=0.5, test=2.0))
    assert cost.trials == (38, 38)
    assert cost.seconds == pytest.approx((38 * (1.0 + 5 * 0.5) + 6 * 2.0,) * 2)
    auto = arm_with({}, search__trials=16, confirm__seeds=3, sweep__repeats="auto")
    assert cost_of(auto, "a", None, 4, Evaluations()).trials == (3 * 19, 8 * 19)
    seeds = arm_with({}, confirm__seeds="auto")
    assert cost_of(seeds, "a", None, 4, Evaluations()).trials == (5, 20)


def test_a_grid_is_all_its_cells() -> None:
    found = cells(["optimizer=adamw,soap", "trainer.steps=10,20", "sweep.name=x"])
    assert [(config.optimizer.name, config.trainer.steps) for config in found] == [
        ("adamw", 10), ("adamw", 20), ("soap", 10), ("soap", 20),
    ]  # fmt: skip
    assert len(cells([], "soap_vs_adamw")) == 4  # two batch sizes


@pytest.mark.parametrize(
    ("busy", "own", "said"),
    [(1.0, 1.0, "1.0 of this machine's 2 cores"), (1.0, 2.0, ""), (0.6, 0.2, ""), (0.95, 1.8, "")],
)
def test_times_of_a_busy_machine_are_called_too_long(busy: float, own: float, said: str) -> None:
    found = said_of(busy, own, cores=2)
    assert said in found if said else not found
