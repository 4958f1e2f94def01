"""Results as JSON, one file per benchmark and device, and all of them as one page of tables."""

from __future__ import annotations

import datetime
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Figure

from optsweep.launch.environment import environment

LIBRARIES = ("torch", "pytorch_optimizer", "heavyball", "ray")
MET = {None: "", True: "yes", False: "**no**"}


def line(figure: Figure) -> str:
    """A figure in one line of text."""
    verdict = {None: "", True: " met", False: " MISSED"}[figure.met]
    return (
        f"{figure.what}: {number(figure.value)}{figure.unit} [{number(figure.low)}, {number(figure.high)}] "
        f"{target(figure)}{verdict} ({figure.ours}; {figure.against})"
    )


def save(path: Path, name: str, device_name: str, device: str, figures: Sequence[Figure], seconds: float) -> None:
    """Write a benchmark's figures with the machine and the versions they were taken on."""
    content = {
        "benchmark": name,
        "description": (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip(),
        "device": device_name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "environment": {**asdict(environment(device)), "libraries": _versions()},
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_table(folder: Path) -> None:
    """Write README.md from all results in a folder."""
    parts = [
        "# Results of the benchmarks",
        "",
        "Written by `make bench`. Each figure is the median over rounds in which both sides ran in turn, with its "
        "quartiles; a ratio is ours ÷ theirs, so below 1 is faster, unless the line says otherwise.",
    ]
    for result in results(folder):
        parts += ["", f"## {result['benchmark']} on {result['device']}", "", result["description"], ""]
        parts += ["| what | ours | against | value | quartiles | rounds | expected | target | met |"]
        parts += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
        for figure in figures_of(result):
            cells = [
                figure.what,
                figure.ours,
                figure.against,
                f"**{number(figure.value)}{figure.unit}**",
                f"{number(figure.low)} – {number(figure.high)}" if figure.rounds > 1 else "",
                str(figure.rounds),
                figure.expected,
                target(figure),
                MET[figure.met],
            ]
            parts.append("| " + " | ".join(cells) + " |")
        parts += ["", machine(result)]
    (folder / "README.md").write_text("\n".join(parts) + "\n")


def results(folder: Path) -> list[dict[str, Any]]:
    """What is in a folder, by name of benchmark and device."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def figures_of(result: Mapping[str, Any]) -> list[Figure]:
    """A result's lines."""
    return [Figure(**{key: value for key, value in entry.items() if key != "met"}) for entry in result["figures"]]


def machine(result: Mapping[str, Any]) -> str:
    """What a result was measured on, and when."""
    found = result["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in found["libraries"].items())
    return (
        f"{found['platform']}, {found['processor']}, {found['cores']} cores, "
        f"{found['memory_bytes'] / 2**30:.0f} GiB; Python {found['python']}, {versions}; {result['date']}, "
        f"{result['seconds']:.0f} s."
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def target(figure: Figure) -> str:
    """What is aimed at."""
    if figure.target is None:
        return ""
    return f"{'≥' if figure.at_least else '≤'} {figure.target:g}{figure.unit}"


def number(value: float) -> str:
    """Four digits or so."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
