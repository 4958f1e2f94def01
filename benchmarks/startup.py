"""Seconds until `optsweep --help` has answered, process start included, against an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys

import torch
from benchmarks.side_by_side import Figure, Round, spread, wall

ROUNDS = 20


def run(device: torch.device) -> list[Figure]:
    """One figure in seconds; the interpreter's own start beside it."""
    helping = _process("-m", "optsweep", "--help")
    nothing = _process("-c", "pass")
    pairs = [(helping(), nothing()) for _ in range(ROUNDS)]
    low, middle, high = spread([seconds for seconds, _ in pairs])
    idle = spread([seconds for _, seconds in pairs])[1]
    return [
        Figure(
            what="optsweep --help",
            ours=f"{middle:.3f} s",
            against=f"python -c pass: {idle:.3f} s",
            value=middle,
            low=low,
            high=high,
            rounds=ROUNDS,
            expected="0.1",
            target=0.5,
            unit="s",
        )
    ]


def _process(*arguments: str) -> Round:
    def call() -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    return lambda: wall(call, torch.device("cpu"))
