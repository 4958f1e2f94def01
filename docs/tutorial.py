"""Runs docs/tutorial.ipynb in a folder of its own, and writes what came out into it: `python docs/tutorial.py`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().with_name("tutorial.ipynb")
SECONDS = 240
_OF_JUPYTER = ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")


def ran(notebook: Any, folder: Path) -> Any:
    """The notebook with its outputs, run by a kernel in the folder; nothing is written elsewhere."""
    before = {name: os.environ.get(name) for name in _OF_JUPYTER}
    os.environ.update({name: str(folder / name) for name in _OF_JUPYTER})
    try:
        where = {"metadata": {"path": str(folder)}}
        return NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where).execute()
    finally:
        _put_back(before)


def _put_back(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def without_noise(notebook: Any) -> Any:
    """The notebook without what is of this run or machine alone."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> None:
    """Write the outputs."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
        done = without_noise(ran(notebook, Path(folder)))
    text = nbformat.writes(done)  # type: ignore[no-untyped-call]
    NOTEBOOK.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
