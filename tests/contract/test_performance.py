"""docs/performance.md is what docs/performance.py would write of the committed results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import performance


def test_page_and_pictures_are_what_the_script_would_write() -> None:
    assert performance.stale() == [], "run `python docs/performance.py`"


def test_another_result_makes_another_page_and_another_picture(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(performance.RESULTS, tmp_path / "results"))
    path = folder / "lanes-cpu.json"
    result = json.loads(path.read_text())
    result["figures"][0]["value"] = 123456.0
    path.write_text(json.dumps(result))
    assert "123,456 /s" in performance.page(folder)
    assert performance.pictures(folder)["lanes"][1] != performance.pictures()["lanes"][1]


def test_a_benchmark_that_has_not_run_leaves_its_section_and_says_so(tmp_path: Path) -> None:
    shutil.copytree(performance.RESULTS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "peers-cpu.json").unlink(missing_ok=True)
    assert "`make bench ARGS=peers` measures it" in performance.page(tmp_path)
    assert "peers" not in performance.pictures(tmp_path)
