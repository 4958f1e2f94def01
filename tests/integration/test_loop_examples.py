"""The scripts of docs/examples/loops: each runs in an empty folder, small, to its verdict; the docs quote them."""

from __future__ import annotations

import gc
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import optsweep
from glue import spoken_lines
from optsweep.cli.doorman import run

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "examples" / "loops"
ROW = r"^\| \[(\w+)\.py\]\(\1\.py\) \|.*\| (\d+) \| `(.*)` \|$"
ROWS = {name: (int(glue), command) for name, glue, command in re.findall(ROW, (FOLDER / "README.md").read_text(), re.M)}
FEW: Mapping[str, Any] = {"search": 1, "confirm": 2, "workers": 0, "quiet": True}
SMALL = {"steps": 4, "rungs": 2, "device": "cpu"}
FEW_WORDS = ["search.trials=1", "confirm.seeds=2", "hydra.launcher.workers=0"]
SMALL_WORDS = [f"trainer.{key}={value}" for key, value in SMALL.items()]


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """A Trainer collects garbage at its start, among all that is imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_the_table_has_all_scripts_and_their_glue() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(ROWS)
    for name, (lines, _) in ROWS.items():
        assert len(spoken_lines((FOLDER / f"{name}.py").read_text())) == lines, name
    assert all(lines + 2 <= 10 for name, (lines, _) in ROWS.items() if name != "accelerate_loop")


@pytest.mark.parametrize("name", ROWS)
def test_a_script_ends_in_a_verdict(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copy(FOLDER / f"{name}.py", tmp_path)
    whole = optsweep.compare

    def small(task: Any, arms: Any, *, trainer: Mapping[str, Any] | None = None, **settings: Any) -> Any:
        return whole(task, arms, **{**settings, **FEW}, trainer={**(trainer or {}), **SMALL})

    monkeypatch.setattr(optsweep, "compare", small, raising=False)
    program, *words = shlex.split(ROWS[name][1])
    if program == "optsweep":
        assert ROWS[name][1] in (FOLDER / f"{name}.py").read_text()
        assert run([*words[1:], *FEW_WORDS, *SMALL_WORDS]) == 0
    else:
        runpy.run_path(words[0], run_name="__main__")
    assert re.search(r"^ *On .+: mean test loss ", capsys.readouterr().out, re.M)
    assert list(tmp_path.glob("reports/*/index.html"))


def test_the_docs_quote_the_scripts() -> None:
    (section,) = re.findall(
        r"^## Lightning, Hugging Face.*?(?=^## |\Z)", (DOCS / "own-model.md").read_text(), re.M | re.S
    )
    quoted = re.findall(r"\[\w+\.py\]\(examples/loops/(\w+\.py)\)\)\.\n\n```python\n(.*?)^```$", section, re.M | re.S)
    assert [name for name, _ in quoted] == ["lightning_module.py", "hugging_face_trainer.py", "accelerate_loop.py"]
    for name, block in quoted:
        assert block in (FOLDER / name).read_text()
