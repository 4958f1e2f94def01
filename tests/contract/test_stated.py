"""What a task says of itself is checked before training: one line, or it is made to fit; never a crash of trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kinds
from optsweep import api
from optsweep.build.assemble import build_arm, check_arm
from optsweep.build.stated import stated
from optsweep.config.arm import Arm
from optsweep.config.sections import OptimizerConfig, SearchConfig, TaskConfig, TrainerConfig
from optsweep.errors import UserError
from optsweep.tasks.base import Facts, Split


def saying(**said: Any) -> kinds.Plain:
    """The plain task with other attributes."""
    task: kinds.Plain = type("Saying", (kinds.Plain,), said)()
    return task


class OneEmpty(kinds.Plain):
    """Has no sample in one split."""

    def __init__(self, split: Split) -> None:
        super().__init__()
        x, y = self._data[split]
        self._data[split] = (x[:0], y[:0])


@pytest.mark.parametrize("split", list(Split))
def test_an_empty_split_is_refused(split: Split) -> None:
    with pytest.raises(UserError, match=rf"^task\.size\({split}\): the {split} split is empty; [^\n]*$"):
        stated(OneEmpty(split))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"metric": "MAP@5 (%)"}, r"task\.metric: 'MAP@5 \(%\)' is not allowed; give letters, digits"),
        ({"metric": "../error"}, r"task\.metric: '\.\./error' is not allowed"),
        ({"metric": ""}, r"task\.metric: '' is not allowed"),
        ({"metric": "loss"}, r"task\.metric: 'loss' is the name of the loss"),
        ({"metric": None}, r"task\.metric: None is not allowed; give a string"),
        ({"higher_is_better": "yes"}, r"task\.higher_is_better: 'yes' is not allowed; give true or false"),
        ({"target_loss": float("nan")}, r"task\.target_loss: nan is not allowed; give a number"),
        ({"facts": None}, r"task\.facts: they are missing"),
        ({"facts": Facts("mlp", "complex", 0)}, r"task\.facts\.reference_batch_size: 0 is not allowed"),
        ({"digest": lambda self: 5}, r"task\.digest: 5 is not allowed; give a string"),
        ({"size": lambda self, split: 2.5}, r"task\.size\(train\): 2\.5 is not allowed; give a whole number"),
    ],
)
def test_what_cannot_be_said_is_refused_in_a_line(said: Mapping[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}[^\n]*$"):
        stated(saying(**said))


@pytest.mark.parametrize("metric", ["accuracy", "f1/macro", "top-5 error", "R_2: all", "Fehler ü"])
def test_what_mlflow_takes_is_allowed(metric: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert stated(saying(metric=metric)).metric == metric
    _validate_metric_name(f"val/{metric}")


def test_numbers_of_numpy_become_plain_ones() -> None:
    said = stated(
        saying(
            size=lambda self, split: np.int64(len(self._data[split][0])),
            target_loss=np.float32(0.25),
            higher_is_better=np.bool_(False),
        )
    )
    assert said.higher_is_better is False
    assert json.loads(json.dumps([*said.sizes.values(), said.target_loss])) == [144, 48, 48, 0.25]


class Column(kinds.Plain):
    """A metric of every sample."""

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs()


class LossPerSample(kinds.Plain):
    """A loss of every sample."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square()


class Number(kinds.Plain):
    """A metric that is no tensor."""

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 1.0  # type: ignore[return-value]


class NoTestBatch(kinds.Plain):
    """Data that are not there."""

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        if split is Split.TEST:
            raise FileNotFoundError("test.npy")
        return super().batch(split, indices)


class Scalars(kinds.Plain):
    """Numbers of numpy and a long digest."""

    target_loss = np.float32(0.2)  # type: ignore[assignment]

    def size(self, split: Split) -> int:
        return np.int64(super().size(split))  # type: ignore[return-value]

    def digest(self) -> str:
        return hashlib.sha256(super().digest().encode()).hexdigest()


def arm(task: str, folder: Path | None = None) -> Arm:
    """An arm made in Python."""
    where = f"sqlite:///{folder}" if folder else "sqlite:///never"
    return Arm(
        task=TaskConfig(name=task, target=f"test_stated.{task}", batch_size=32, steps=4),
        optimizer=OptimizerConfig("adam", "optsweep.optim.adam.Adam", 1e-2),
        search=SearchConfig(trials=0),
        trainer=TrainerConfig(device="cpu", rungs=2),
        confirm_seeds=1,
        sweep="stated",
        tracking_uri=f"{where}/mlflow.db",
        storage=f"{where}/optuna.db",
    )


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("Column", r"task\.score: it returns shape \[2, 1\] for a batch"),
        ("LossPerSample", r"task\.loss: it returns shape \[32, 1\] for a batch"),
        ("Number", r"task\.score: it returns float for a batch"),
        (
            "NoTestBatch",
            r"task\.model: its first batch of the test split fails: test_stated\.py:\d+, in batch: File",
        ),
    ],
)
def test_what_would_crash_every_trial_is_refused_before_any(task: str, line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}[^\n]*$"):
        check_arm(build_arm(arm(task)))


def test_a_sweep_of_a_task_with_numpys_numbers_and_a_long_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, threads = arm("Scalars", tmp_path), torch.get_num_threads()
    more = replace(plain, trainer=replace(plain.trainer, threads=threads + 1))
    assert api.run([more], workers=0).result.trials == 1
    assert torch.get_num_threads() == threads  # of the process that calls, which may go on with something else
    found = json.loads((tmp_path / "reports" / "stated" / "results.json").read_text())
    (trial,) = found["groups"][0]["arms"][0]["confirm"]
    assert trial["status"] == "finished"


def test_lanes_are_in_the_fingerprint_as_they_are_and_not_as_they_were_asked_for() -> None:
    def lanes_of(kind: str, lanes: int) -> object:
        task = TaskConfig(name="x", target=f"kinds.{kind}", batch_size=32, steps=4)
        plain = arm("Scalars")
        return build_arm(replace(plain, task=task, trainer=replace(plain.trainer, lanes=lanes))).content[
            "trainer.lanes"
        ]

    assert [lanes_of("Plain", lanes) for lanes in (1, 2)] == ["one", "several"]
    assert [lanes_of("Dropout", lanes) for lanes in (1, 2)] == ["one", "one"]
