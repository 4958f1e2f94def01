"""The worked example of docs/extending.md, as it stands there: its files are written, its command is run."""

from __future__ import annotations

import csv
import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from arms import arm_with
from drive import LAYOUT, defaults, largest, run
from optsweep.build.assemble import build_arm
from optsweep.config.sections import OptimizerConfig
from optsweep.errors import UserError
from optsweep.optim.iterate import Last
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.update import Decay, Update
from patience import PATIENCE_SECONDS

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FEW = ["trainer.steps=60", "trainer.rungs=4", "trainer.device=cpu", "hydra.launcher.workers=1"]


def files() -> dict[str, str]:
    """Path → content of every file that the page shows."""
    return dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def test_the_example_trains(tmp_path: Path) -> None:
    shown = files()
    assert len(shown) == 6
    for name, content in shown.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    command, _ = re.findall(r"^```sh\noptsweep (.*?)\n```$", PAGE.read_text(), re.M | re.S)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("optsweep")), *shlex.split(command), *FEW],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "reports" / "first" / "results.csv").open() as table:
        (trial,) = csv.DictReader(table)
    assert trial["arm"] == "task=waves optimizer=signum schedule=triangle"
    assert trial["status"] == "finished"
    assert float(trial["param:beta"]) == 0.9
    assert float(trial["train/lr"]) == 0.0  # the triangle's last step
    assert float(trial["val/loss"]) < 0.8  # a constant has 1


def test_the_rule_of_the_example_holds_to_what_every_rule_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "signum.py").write_text(files()["signum.py"])
    monkeypatch.syspath_prepend(tmp_path)
    signum = importlib.import_module("signum").Signum
    for iterate in (Last(), ScheduleFree()):
        update = Update(signum(), LAYOUT, decay=Decay.DECOUPLED, iterate=iterate)
        hypers = [defaults(update.floats, beta=beta, weight_decay=0.1) for beta in (0.8, 0.9)]
        lanes, _, _ = run(update, hypers, num_steps=20)
        for k, hyper in enumerate(hypers):
            single, _, _ = run(update, [hyper], num_steps=20)
            assert largest(lanes[k : k + 1], single) <= 1e-12


def test_a_comparison_with_the_example_needs_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "signum.py").write_text(files()["signum.py"])
    monkeypatch.syspath_prepend(tmp_path)
    base = arm_with({})
    optimizer = OptimizerConfig("signum", "signum.Signum", 0.01, {"beta": 0.9})
    built = build_arm(replace(base, optimizer=optimizer))
    assert built.space.fixed["lr"] == 0.01
    with pytest.raises(UserError, match=r"optimizer\.lr: there is no suggested value"):
        build_arm(replace(base, optimizer=replace(optimizer, lr=None)))
    decay = replace(base.decay, mode="decoupled", value=None)
    with pytest.raises(UserError, match=r"weight_decay\.value: there is no suggested value"):
        build_arm(replace(base, optimizer=optimizer, decay=decay))
