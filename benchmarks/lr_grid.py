"""Where the best learning rate lies, by rule, task, width and length of the run: `python benchmarks/lr_grid.py [--fit]`.

Cosine with the suggested warm-up and λ, four LRs per decade, six seeds each, all trained together as lanes; the loss
is the mean validation loss at the last step. Losses go to benchmarks/measured/lr_grid.json, cell by cell, and a cell
that is there isn't trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.trials import arm, built

from optsweep.train.loop import train_all
from optsweep.train.trial import End, Trial

MEASURED = Path(__file__).parent / "measured" / "lr_grid.json"
PER_DECADE = 4
SEEDS = range(2_000_000, 2_000_006)  # far from the seeds of search and confirm
DECADES = {"sgd": (-1.5, 1.5), "momentum": (-2.5, 1.0), "lion": (-4.5, -1.0)}  # log10 of the lowest and the highest LR
OTHERS = (-3.5, 0.0)
RULES = ("adamw", "soap", "muon", "lion", "momentum", "adam", "sgd", "rmsprop")
WIDTHS = {"iris_mlp": (16, 64), "wine_mlp": (16, 64), "digits_mlp": (16, 64, 128), "charlm_tiny": (32,)}
LENGTHS = {
    "iris_mlp": (50, 100, 200, 400, 800, 1600),
    "wine_mlp": (50, 100, 200, 400, 800, 1600),
    "digits_mlp": (50, 100, 200, 400, 800),
    "charlm_tiny": (50, 200),
}


@dataclass(frozen=True)
class Cell:
    """One grid: a rule on a task, at a width and a length."""

    optimizer: str
    task: str
    width: int
    steps: int


def cells() -> Iterator[Cell]:
    """The grids, short runs first."""
    lengths = sorted({steps for found in LENGTHS.values() for steps in found})
    for steps in lengths:
        for task in (task for task in WIDTHS if steps in LENGTHS[task]):
            yield from (Cell(optimizer, task, width, steps) for optimizer in RULES for width in WIDTHS[task])


def losses(cell: Cell) -> dict[str, float]:
    """Mean validation loss at the last step, by LR; inf where a seed diverged."""
    options = (f"optimizer={cell.optimizer}", f"task.width={cell.width}", "optimizer.lr=0.01", "trainer.rungs=1")
    b = built(
        arm(cell.task, *options, "weight_decay.value=null", f"trainer.log_every={cell.steps}", steps=cell.steps),
        torch.device("cpu"),
    )
    low, high = DECADES.get(cell.optimizer, OTHERS)
    lrs = [10 ** (low + k / PER_DECADE) for k in range(round((high - low) * PER_DECADE) + 1)]
    hyper = b.space.hyper({})
    trials = [Trial({**hyper, "lr": lr}, seed) for lr in lrs for seed in SEEDS]
    outcomes = train_all(replace(b.program, vmapped=True), trials)
    found = [o.val_loss if o.end is End.FINISHED and o.val_loss is not None else math.inf for o in outcomes]
    return {
        f"{lr:.4g}": fmean(found[k * len(SEEDS) : (k + 1) * len(SEEDS)]) for k, lr in enumerate(lrs)
    }


def main() -> None:
    torch.set_num_threads(1)
    argparse.ArgumentParser(description=__doc__).parse_args()
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else []
    done = [Cell(**{key: entry[key] for key in asdict(Cell("", "", 0, 0))}) for entry in measured]
    for cell in cells():
        if cell in done:
            continue
        measured.append({**asdict(cell), "losses": losses(cell)})
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
        print(best(measured[-1]), flush=True)


def best(entry: Mapping[str, object]) -> str:
    return f"{entry['optimizer']} {entry['task']} {entry['width']} {entry['steps']} " + str(min(entry["losses"].items(), key=lambda p: p[1]))


if __name__ == "__main__":
    main()
