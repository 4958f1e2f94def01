"""A sweep that goes on on another device: refused, then allowed, and said wherever its results are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import optsweep
from optsweep import api
from optsweep.build import machine
from optsweep.config.arm import Arm
from optsweep.config.sections import OptimizerConfig, SearchConfig, TaskConfig, TrainerConfig
from optsweep.errors import UserError

A, B = "NVIDIA A100", "Tesla T4"
IRIS = {"dataset": "iris", "layers": 1, "width": 4}


def arms(*optimizers: str, seeds: int, allow: tuple[str, ...]) -> list[Arm]:
    classes = {"sgd": "optsweep.optim.sgd.SGD", "adam": "optsweep.optim.adam.Adam"}
    return [
        Arm(
            task=TaskConfig(
                name="iris_mlp", target="optsweep.tasks.tabular.Table", batch_size=16, steps=8, options=IRIS
            ),
            optimizer=OptimizerConfig(name, classes[name], 1e-2),
            search=SearchConfig(trials=0),
            trainer=TrainerConfig(device="cpu", rungs=2, lanes=1),
            confirm_seeds=seeds,
            sweep="mixed",
            allow=allow,
        )
        for name in optimizers
    ]


def test_a_sweep_of_two_devices_says_so_in_verdict_results_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def run_on(device: str, *optimizers: str, seeds: int, allow: tuple[str, ...] = (), report: bool = False) -> None:
        monkeypatch.setattr(machine, "device_model", lambda _: device)
        api.run(arms(*optimizers, seeds=seeds, allow=allow), workers=0, report=report)

    run_on(A, "sgd", seeds=2)
    with pytest.raises(UserError, match=rf"the device was {A}, is {B}; sweep\.allow=\[device\] lets"):
        run_on(B, "adam", seeds=2)
    run_on(B, "adam", seeds=2, allow=("device",))
    apart = optsweep.load("mixed")
    assert "the seeds of adam + cosine ran on Tesla T4 (2), and those of sgd + cosine on NVIDIA A100 (2)." in str(apart)
    run_on(B, "sgd", "adam", seeds=3, allow=("device",), report=True)
    found = optsweep.load("mixed")
    said = "Trials ran on different devices: of sgd + cosine 2 on NVIDIA A100 and 1 on Tesla T4; of adam + cosine 3 on "
    assert f"{said}Tesla T4; compared across devices: 2 of 3 seeds." in str(found)
    content = json.loads((tmp_path / "reports" / "mixed" / "results.json").read_text())
    (group,) = content["groups"]
    assert [arm["device"] for arm in group["arms"]] == [A, B]
    assert [trial.get("device") for arm in group["arms"] for trial in arm["confirm"]] == [
        None,
        None,
        B,
        None,
        None,
        None,
    ]
    assert {arm["timing"]["device"] for arm in group["arms"]} == {A, B}
    assert group["comparisons"][0]["time_ratio"] is None
    with (tmp_path / "reports" / "mixed" / "results.csv").open() as file:
        assert sorted(row["device"] for row in csv.DictReader(file)) == [A, A, B, B, B, B]
    page = (tmp_path / "reports" / "mixed" / "index.html").read_text()
    assert f"{B} (4 trials)" in page
