"""Run benchmarks: `python benchmarks/run.py [NAME …] [--all] [--device DEVICE] [--out DIR]`.

Writes DIR/NAME-DEVICE.json for each, and DIR/README.md, a table of all results in the folder.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # benchmarks/report.py takes its store there
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.side_by_side import Figure, SkippedError
from benchmarks.table import line, save, write_table

NAMES = (
    "startup",
    "loop",
    "own",
    "checkpoints",
    "rules",
    "library",
    "lanes",
    "sampler",
    "gpu",
    "gpu_trials",
    "aa",
    "sweep",
    "report",
    "page",
    "live",
    "peers",
)
MINUTES = ("aa", "sweep", "report", "page", "live", "peers")
"""Run only by name or with --all."""

QUICK = ("peers",)
"""Have a short form, to try them out."""


def main() -> int:
    parser = argparse.ArgumentParser(description="optsweep's benchmarks: ratios, side by side in one run.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; none: all but {' and '.join(MINUTES)}"
    )
    parser.add_argument("--all", action="store_true", help=f"all, {' and '.join(MINUTES)} too, which take minutes")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} with few trials; nothing is saved")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name}; there are {', '.join(NAMES)}")
    if options.quick and not set(options.names) <= set(QUICK):
        parser.error(f"--quick is for {', '.join(QUICK)}")
    torch.set_num_threads(1)
    device = torch.device(options.device)
    label = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    options.out.mkdir(parents=True, exist_ok=True)
    missed = 0
    every = NAMES if options.all else [n for n in NAMES if n not in MINUTES]
    for name in options.names or (QUICK if options.quick else every):
        begin = time.perf_counter()
        print(f"{name} on {label}")
        figures: list[Figure] = []
        try:
            benchmark = importlib.import_module(f"benchmarks.{name}")
            for figure in (benchmark.quick if options.quick else benchmark.run)(device):
                print(f"  {line(figure)}", flush=True)
                missed += figure.met is False
                figures.append(figure)
        except SkippedError as reason:
            print(f"  skipped: {reason}")
            continue
        if options.quick:
            continue
        seconds = time.perf_counter() - begin
        slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
        save(options.out / f"{name}-{slug}.json", name, label, str(device), figures, seconds)
        write_table(options.out)
    if not options.quick:
        print(f"{options.out / 'README.md'}: {'all targets met' if not missed else f'{missed} targets missed'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
