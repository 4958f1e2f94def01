"""Writes docs/performance.md and its pictures from benchmarks/results/*.json: python docs/performance.py.

The words are docs/performance.md.jinja; every number comes from a result. `make bench` runs this at its end.
tests/contract/test_performance.py fails if the page is not what this would write.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.side_by_side import Figure
from benchmarks.table import MET, figures_of, machine, number, results, target
from performance_pictures import lanes_picture, peers_picture

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
TEMPLATE = PAGE.with_suffix(".md.jinja")
PICTURES = ROOT / "docs" / "performance"
RESULTS = ROOT / "benchmarks" / "results"

CPU = "cpu"
DRAWN: Mapping[str, Callable[[Mapping[str, Any], str], str]] = {"peers": peers_picture, "lanes": lanes_picture}
"""Benchmarks that have a picture, drawn from a result and marked with a text."""


def page(folder: Path = RESULTS) -> str:
    """The page that these results give."""
    found = results(folder)

    def of(name: str) -> list[dict[str, Any]]:
        return [result for result in found if result["benchmark"] == name]

    def on_cpu(name: str) -> dict[str, Any]:
        return next(result for result in of(name) if result["device"] == CPU)

    def value(name: str, what: str) -> str:
        figure = next(figure for figure in figures_of(on_cpu(name)) if figure.what == what)
        return f"{number(figure.value)}{figure.unit}"

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    tables = {
        "table": lambda name: table(on_cpu(name)),
        "elsewhere": [table(result, result["benchmark"]) for result in found if result["device"] != CPU],
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(value=value, has=of, **tables)


def table(result: Mapping[str, Any], name: str = "") -> str:
    """A result as a table, with what it was measured on below; `name` goes above it, with the device."""
    rows = [f"**{name}, {result['device']}**", ""] if name else []
    rows += ["| what | ours | against | median | quartiles | rounds | target | met |"]
    rows += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    rows += [_row(figure) for figure in figures_of(result)]
    return "\n".join([*rows, "", f"<sub>{machine(result)}</sub>"])


def _row(figure: Figure) -> str:
    quartiles = f"{number(figure.low)} – {number(figure.high)}" if figure.rounds > 1 else ""
    cells = [figure.what, figure.ours, figure.against, f"**{number(figure.value)}{figure.unit}**", quartiles]
    return "| " + " | ".join([*cells, str(figure.rounds), target(figure), MET[figure.met]]) + " |"


def pictures(folder: Path = RESULTS) -> dict[str, tuple[Mapping[str, Any], str]]:
    """Name of each picture: the result that it shows, and the mark that says so in its file."""
    shown = {r["benchmark"]: r for r in results(folder) if r["device"] == CPU and r["benchmark"] in DRAWN}
    return {
        name: (result, "figures " + hashlib.sha256(json.dumps(result["figures"]).encode()).hexdigest()[:16])
        for name, result in shown.items()
    }


def stale() -> list[str]:
    """What is not as this would write it; of a picture its mark counts, since other fonts draw it otherwise."""
    found = [] if PAGE.read_text(encoding="utf-8") == page() else [PAGE.name]
    for name, (_, mark) in pictures().items():
        path = PICTURES / f"{name}.svg"
        if not path.is_file() or mark not in path.read_text(encoding="utf-8"):
            found.append(path.name)
    return found


def main() -> int:
    """Write page and pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, (result, mark) in pictures().items():
        (PICTURES / f"{name}.svg").write_text(DRAWN[name](result, mark), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
