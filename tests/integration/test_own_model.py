"""The examples of docs/own-model.md, as they stand there: each is built, checked and trained for a few steps."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import optsweep
from optsweep.build.assemble import build_arm, check_arm
from optsweep.cli.doorman import run
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.config.spoken import Spoken, arms_of, search_of
from optsweep.tasks.base import Trainable
from optsweep.train.own.loop import Loop, is_loop
from optsweep.train.run import Silent
from optsweep.train.trial import End, Trial
from patience import PATIENCE_SECONDS

PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
(MINE,) = (block for block in BLOCKS if "def task(" in block)
COMMANDS = [line for line in re.findall(r"^optsweep (-m .*)$", PAGE.read_text(), re.M) if "mine.task" in line]
EXAMPLES = [block for block in BLOCKS if "optsweep.compare" in block]
FEW = ["trainer.steps=12", "trainer.rungs=2", "search.trials=1", "confirm.seeds=1", "hydra.launcher.workers=1"]


def name_of(example: str) -> str:
    (name,) = re.findall(r'name="(\w+)"\)', example)
    return str(name)


def tiny(given: Any, arms: Sequence[Spoken], *, name: str, search: Any = 0) -> Any:
    """As `compare`, but two steps of one trial of each arm."""
    loop = Loop(given) if is_loop(given) else given
    task = loop if isinstance(loop, Trainable) else None  # None: the function that mine.task names
    shared: dict[str, Any] = {"task": "own", "task._target_": "optsweep.Task" if task else "mine.task"}
    shared |= {"sweep.name": name, "trainer.steps": 4, "trainer.device": "cpu", **search_of(search)}
    for arm in arms_of(arms, shared):
        built = build_arm(arm, task)
        check_arm(built)
        params = {**built.space.first, "lr": 1e-3}
        trial = Trial(built.space.hyper(params), seed=1, test=True)
        (outcome,) = built.workload_for(params).train([trial], Silent())
        assert outcome.end is End.FINISHED
    return type("Result", (), {"verdict": "none", "best": str})


@pytest.mark.parametrize("example", EXAMPLES, ids=map(name_of, EXAMPLES))
def test_an_example_trains(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(optsweep, "compare", tiny, raising=False)
    exec(compile(example, "example.py", "exec"), {"__name__": "example"})


def test_there_are_all_kinds() -> None:
    assert [name_of(example) for example in EXAMPLES] == [
        "digits", "stream", "widths", "loop",
    ]  # fmt: skip


def test_the_first_example_is_a_program(tmp_path: Path) -> None:
    """In a script without a guard, by a worker process, to the verdict; again, nothing is left to do."""
    few = 'name="digits", search=1, confirm=2, workers=1, trainer={"steps": 12, "rungs": 2, "device": "cpu"}'
    script = EXAMPLES[0].replace('name="digits"', few) + "print(result.labels)\n"
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "On digits, " in done.stdout
    assert "mean test loss" in done.stdout
    assert 'averaging="schedule_free"' in done.stdout
    assert done.stdout.splitlines()[-1] == "('adamw + cosine', 'soap + schedule_free')"
    page = (tmp_path / "reports" / "digits" / "index.html").read_text()
    assert "359 samples of the training data were set aside for it" in page


def test_the_command_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    command, *others = COMMANDS
    optsweep_ = str(Path(sys.executable).with_name("optsweep"))

    command_line = [optsweep_, *shlex.split(command), *FEW, "hydra.launcher.report=false"]
    done = subprocess.run(
        command_line, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 trials ended" in done.stdout
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for other in others:
        check_arm(build_arm(arm_of(compose([*shlex.split(other)[1:], "sweep.name=any", "trainer.device=cpu"]))))
    for option, line in (
        ("task.width=abc", "task.width: 'abc' is not allowed; give a whole number"),
        ("task.widht=3", "task.widht: mine.task has no such option (did you mean width?); known: width, dropout"),
        (
            "task._target_=mine.tsak",
            "task._target_: 'mine.tsak' can't be imported (module 'mine' has no attribute",
        ),
        ("task._target_=mine.load_digits", "task._target_: mine.load_digits returns Bunch; return an optsweep.Task"),
    ):
        assert run(["task=own", "task._target_=mine.task", option, *FEW]) == 2
        assert capsys.readouterr().err.startswith(f"optsweep: {line}")
