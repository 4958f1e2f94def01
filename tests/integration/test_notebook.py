"""docs/examples/notebook.ipynb, run from its first cell to its last by a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "examples" / "notebook.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(PAGE, as_version=4)
    ran = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown: list[dict[str, Any]] = [
        output.get("data", {"text": output.get("text", "")})
        for cell in ran.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.get("name") != "stderr"
    ]
    result, arms, curves, figure, best, reached = shown
    assert "ends" in result["text/html"] or "no difference" in result["text/html"]
    assert "data:image/svg+xml;base64," in result["text/html"]
    assert "soap + schedule_free" in arms["text/html"]
    assert "adamw + cosine" in curves["text/html"]
    assert figure["image/png"]
    assert 'averaging="schedule_free"' in best["text/plain"]
    assert reached["text"] == "True\n"
    assert (tmp_path / "reports" / "notebook" / "index.html").is_file()
