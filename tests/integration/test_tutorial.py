"""docs/tutorial.ipynb: run from its first cell to its last by a kernel, small; and what it shows as it lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
tutorial = pytest.importorskip("tutorial")

SMALL = {
    "steps=150": "steps=20",
    "seconds=20": "seconds=0",
    "quiet=True": 'quiet=True, search=2, confirm=2, workers=0, trainer={"rungs": 4}',
}
LARGEST = 150_000
"""Bytes of the notebook with its outputs."""


def kinds(notebook: Any) -> list[list[str]]:
    """Of each cell of code, what kinds of output it has."""
    return [
        [kind for output in cell.outputs for kind in sorted(output.get("data", {"stream": ""}))]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def text_of(cell: Any) -> str:
    """What a cell has printed."""
    return "".join(output.get("text", "") for output in cell.outputs)


def test_it_runs_to_a_verdict_and_an_optimizer(tmp_path: Path) -> None:
    there = nbformat.read(tutorial.NOTEBOOK, as_version=4)
    notebook = nbformat.read(tutorial.NOTEBOOK, as_version=4)
    for large, few in SMALL.items():
        assert sum(cell.source.count(large) for cell in notebook.cells) >= 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(large, few) if cell.cell_type == "code" else cell.source
    ran = tutorial.without_noise(tutorial.ran(notebook, tmp_path))
    assert kinds(ran) == kinds(there)
    _, _, check, compare, arms, _, _, best, loop = (cell for cell in ran.cells if cell.cell_type == "code")
    assert text_of(check).endswith("Nothing was found that would fail.\n")
    shown = compare.outputs[0]["data"]["text/html"]
    assert "mean test loss" in shown
    assert "data:image/svg+xml;base64," in shown
    assert "optsweep ui tutorial" in shown
    assert "soap + schedule_free" in arms.outputs[0]["data"]["text/html"]
    assert 'averaging="schedule_free"' in text_of(best)
    assert float(text_of(loop).removeprefix("test accuracy ")) > 0.8
    assert (tmp_path / "reports" / "tutorial" / "index.html").is_file()


def test_what_lies_there_is_a_whole_run_without_noise() -> None:
    notebook = nbformat.read(tutorial.NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert tutorial.NOTEBOOK.stat().st_size < LARGEST
    text = tutorial.NOTEBOOK.read_text(encoding="utf-8")
    assert not any(noise in text for noise in ("\\u001b[", "stderr", "/tmp/", "/home/", "Traceback"))
