"""The scripts of docs/examples: each runs in an empty folder, small, to its verdict and its report."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import optsweep

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
FEW: Mapping[str, Any] = {"search": 1, "confirm": 2, "workers": 0, "quiet": True}
SMALL = {"steps": 4, "rungs": 2, "device": "cpu"}
MOST = 10
"""Commands and lines of glue, `pip install` and the script's own start among them."""


def glue(script: Path) -> int:
    """Lines that speak of optsweep or of a trial, with the rest of their statements, and the last paragraph."""
    text = script.read_text()
    lines = text.splitlines()
    last = text.rstrip().rfind("\n\n")
    found = set(range(text[: last + 2].count("\n") + 1, len(lines) + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and not _is_text(node):
            spoken = range(node.lineno, _end(node) + 1)
            if re.search(r"\b(optsweep|trial)\b", "\n".join(lines[spoken.start - 1 : spoken.stop - 1])):
                found |= {*spoken}
    return len(found)


def _end(node: ast.stmt) -> int:
    """Last line of a statement; of one that has a body, the line before that."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try)):
        return max(node.lineno, node.body[0].lineno - 1)
    return node.end_lineno or node.lineno


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


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
