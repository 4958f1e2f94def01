"""The scripts of docs/examples: each runs in an empty folder, small, to its verdict and its report."""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import optsweep
from glue import spoken_lines

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
FEW: Mapping[str, Any] = {"search": 1, "confirm": 2, "workers": 0, "quiet": True}
SMALL = {"steps": 4, "rungs": 2, "device": "cpu"}
MOST = 10
"""Commands and lines of glue, `pip install` and the script's own start among them."""


def glue(script: Path) -> int:
    """Lines that are there for optsweep's sake, and the last paragraph."""
    text = script.read_text()
    last = text.rstrip().rfind("\n\n")
    return len(spoken_lines(text) | {*range(text[: last + 2].count("\n") + 1, len(text.splitlines()) + 1)})


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_ends_in_a_verdict(
    script: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = optsweep.compare

    def small(task: Any, arms: Any, *, trainer: Mapping[str, Any] | None = None, **settings: Any) -> Any:
        return whole(task, arms, **{**settings, **FEW}, trainer={**(trainer or {}), **SMALL})

    monkeypatch.chdir(folder)
    monkeypatch.setattr(optsweep, "compare", small, raising=False)
    runpy.run_path(str(script), run_name="__main__")
    verdict, _, last = capsys.readouterr().out.strip().rpartition("\n")
    assert re.match(r"On .+: mean test (loss|1 − auc) ", verdict), verdict
    page = Path(last.removeprefix("report: "))
    assert page.is_file()
    if "1 − auc" in verdict:  # which decides; loss and metric stand beside it
        text = page.read_text()
        assert all(title in text for title in ("Test 1 − auc", "Test loss", "Test auc", "Validation loss"))
        assert (page.parent / "figures" / "val_aside.svg").is_file()


def test_the_table_has_all_scripts_and_their_glue() -> None:
    row = r"^\| \[(\w+\.py)\]\(\1\) \|.*\| (\d+) \| `python (\S+)` \|$"
    rows = re.findall(row, (FOLDER / "README.md").read_text(), re.M)
    assert rows == [(script.name, str(glue(script)), script.name) for script in SCRIPTS]
    assert all(glue(script) + 2 <= MOST for script in SCRIPTS)
