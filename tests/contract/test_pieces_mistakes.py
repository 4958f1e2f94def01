"""What can be wrong with a task of one's own pieces: each is one line, with the user's own line of code in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import optsweep
from optsweep.errors import UserError
from optsweep.tasks.pieces import Pieces
from own_pieces import Noisy, X, Y, net, program, stream

# -- what is wrong, in a line ------------------------------------------------------------------------------------------


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Broken(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise KeyError("no such file")


class Ragged(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(1 + index % 3), 0


def nothing() -> nn.Module:
    return nn.Sequential(nn.Flatten())


def failing() -> nn.Module:
    raise ValueError("no weights here")


unseeded = np.random.default_rng()


class Unseeded(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor(unseeded.normal(size=4), dtype=torch.float32), 0


def loader() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, shuffle=True)


class Learned(nn.Module):
    """A loss that would learn its own scale, if anybody trained it."""

    def __init__(self, learn: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=learn)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.scale * outputs, targets)


MISTAKES: list[tuple[str, Callable[[], Pieces], str]] = [
    ("no data", lambda: optsweep.Task(net, None), r"^task\.train: there is no data"),
    ("empty", lambda: optsweep.Task(net, (X[:0], Y[:0])), r"^task\.train: it is empty"),
    ("an empty list", lambda: optsweep.Task(net, []), r"^task\.train: it is empty"),
    ("rows", lambda: optsweep.Task(net, (X, Y[:9])), r"^task\.train: its arrays have 9 and 200 rows"),
    (
        "strings",
        lambda: optsweep.Task(net, (X, np.array(["a"] * 200))),
        r"^task\.train: ndarray is no array of numbers \(but of <U1; classes are 0, 1, 2 …\)$",
    ),
    (
        "two arrays in a list",
        lambda: optsweep.Task(net, [X, Y]),
        r"^task\.train: a list is one of samples, .*: \(x, y\)",
    ),
    ("no data at all", lambda: optsweep.Task(net, 3.0), r"^task\.train: float is no data"),
    ("few", lambda: optsweep.Task(net, (X[:2], Y[:2])), r"^task\.val: 2 samples are too few"),
    ("a loader", lambda: optsweep.Task(net, loader()), r"^task\.train: a DataLoader shuffles .*train=loader\.dataset"),
    ("iterable", lambda: optsweep.Task(net, Endless()), r"^task\.train: an IterableDataset"),
    ("stream of unknown length", lambda: optsweep.Task(net, stream, (X, Y)), r"^task\.samples: train is a stream"),
    ("stream alone", lambda: optsweep.Task(net, stream, samples=9), r"^task\.val: train is a stream"),
    ("an instance", lambda: optsweep.Task(net(), (X, Y)), r"^task\.model: this is one model"),
    ("no module", lambda: optsweep.Task(lambda: 3, (X, Y)), r"^task\.model: it returns int"),  # type: ignore[arg-type,return-value]
    (
        "a model that fails",
        lambda: optsweep.Task(failing, (X, Y)),
        r"test_pieces_mistakes\.py:\d+, in failing: ValueError: no w",
    ),
    ("no parameter", lambda: optsweep.Task(nothing, (X, Y)), r"^task\.model: the model has no parameter"),
    ("loss of one", lambda: optsweep.Task(net, (X, Y), loss=lambda outputs: 0), r"^task\.loss: it takes 1 argument"),  # type: ignore[arg-type,misc]
    (
        "loss with parameters",
        lambda: optsweep.Task(net, (X, Y), loss=Learned()),
        r"^task\.loss: Learned has parameters of its own \(scale\), and only the model's are trained; .*f\(model, ba",
    ),
    (
        "loss per sample",
        lambda: optsweep.Task(net, (X, Y), loss=lambda outputs, targets: outputs[:, 0]),
        r"^task\.loss: it returns shape \[16\]",
    ),
    (
        "NaN",
        lambda: optsweep.Task(net, (X * np.nan, Y)),
        r"^task\.loss: it is nan for the first batch, before any training",
    ),
    ("labels", lambda: optsweep.Task(net, (X, Y + 1)), r"^task\.model: its first batch fails: IndexError: Target 2 is"),
    (
        "shapes",
        lambda: optsweep.Task(net, (X[:, :3], Y)),
        r"^task\.model: its first batch fails: RuntimeError: mat1 and mat2 shapes",
    ),
    (
        "outputs of several tensors",
        lambda: optsweep.Task(lambda: nn.LSTM(4, 2), (X, Y)),
        r"^task\.loss: not given, so cross-entropy, which wants the model to return logits .* not tuple; give loss=f",
    ),
    (
        "no logits",
        lambda: optsweep.Task(lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), (X, Y)),
        r"^task\.loss: not given, .* not shape \[16\]; give loss",
    ),
    (
        "a regression without its loss",
        lambda: optsweep.Task(net, (X, X[:, 0])),
        r"^task\.loss: not given, .* wants classes 0, 1, 2 … as targets, not float",
    ),
    (
        "their loss",
        lambda: optsweep.Task(net, (X, Y), loss=lambda outputs, targets: outputs["x"]),
        r"its first batch fails: test_pieces_mistakes\.py:\d+, in <lambda>: ",
    ),
    (
        "a sample",
        lambda: optsweep.Task(net, Broken()),
        r"^task: sample \d+ can't be read: test_pieces_mistakes\.py:\d+, in __get",
    ),
    ("ragged", lambda: optsweep.Task(net, Ragged()), r"^task: samples don't fit together in a batch: RuntimeError: st"),
    ("unseeded", lambda: optsweep.Task(net, Unseeded()), r"^task\.batch: the same samples come out differently"),
    (
        "a metric of each sample",
        lambda: optsweep.Task(net, (X, Y), metric=lambda outputs, targets: outputs.argmax(-1) == targets),
        r"^task\.metric: it returns shape \[40\] for a whole split; give one number$",
    ),
    (
        "metric of one class",
        lambda: optsweep.Task(net, (X, Y), metric=lambda outputs, targets: 1 / 0),
        r"^task\.metric: it fails for a whole split: test_pieces_mistakes\.py:\d+, in <lambda>: ZeroDivisionError",
    ),
    (
        "weights",
        lambda: optsweep.Task(net, (X, Y), weights={"9.x": torch.ones(1)}),
        r"^task\.weights: the model has no 9",
    ),
    (
        "no such group",
        lambda: optsweep.Task(net, (X, Y), groups={"a.*": {"lr_factor": 1}}),
        r"^task\.groups: no trainable",
    ),
    ("group", lambda: optsweep.Task(net, (X, Y), groups={"a": {"lr": 1}}), r"^task\.groups\.a: there is no lr;"),
    ("objective", lambda: optsweep.Task(net, (X, Y), objective="auc"), r"^task\.objective: 'auc' is not allowed"),
    (
        "short batches",
        lambda: optsweep.Task(net, lambda: DataLoader(Noisy(), 9), (X, Y), samples=9),
        r"^task\.train: a batch has 9 samples, not .* = 16",
    ),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_one_line(make: Callable[[], Pieces], message: str) -> None:
    def tried() -> None:
        made = program(make())
        _ = made.traits, made.layout

    with pytest.raises(UserError, match=message) as caught:
        tried()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"steps": 100}, "steps: no such key"),
        ({"trainer": {"stps": 100}}, "trainer.stps: no such key (did you mean trainer.steps?)"),
        ({"search": {"trails": 3}}, "search.trails: no such key (did you mean search.trials?)"),
        ({"search": {"space": [1]}}, "search.space: [1] is not allowed"),
    ],
)
def test_a_setting_of_compare_that_isn_t_one_is_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        optsweep.compare(optsweep.Task(net, (X, Y)), ["adamw"], name="x", quiet=True, workers=0, **settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_what_is_no_task_is_one_line() -> None:
    for given, line in (
        (net(), "task: Sequential is no task; give optsweep.Task(model, data)"),
        (net, "task._target_: own_pieces.net returns Sequential; return an optsweep.Task"),
    ):
        with pytest.raises(UserError) as caught:
            optsweep.compare(given, ["adamw"], name="x", quiet=True, workers=0)
        assert str(caught.value).startswith(line)
