"""Where the best LR lies, by rule, task, width and length of the run: `python benchmarks/lr_grid.py [--fit]`.

Cosine with the suggested warm-up and λ, four LRs per decade, six seeds each, all trained together as lanes; the loss
is the mean validation loss at the last step. Losses go to benchmarks/measured/lr_grid.json, cell by cell, and a cell
that is there isn't trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.trials import arm, built, program_of

from optsweep.build.measured import MEASURED_LR, STEPS, WIDTH
from optsweep.build.suggestions import TaskFacts, lr_range
from optsweep.train.loop import train_all
from optsweep.train.trial import End, Trial

MEASURED = Path(__file__).parent / "measured" / "lr_grid.json"
PER_DECADE = 4
SEEDS = range(2_000_000, 2_000_006)  # far from the seeds of search and confirm
DECADES = {"sgd": (-1.5, 1.5), "momentum": (-2.5, 1.0), "lion": (-4.5, -1.0)}  # log10 of the lowest and the highest LR
OTHERS = (-3.5, 0.0)
RULES = ("adamw", "soap", "muon", "lion", "momentum", "sgd", "rmsprop")
"""Adam with decoupled decay is AdamW; momentum stands for Nesterov's too."""
GRIDS: Mapping[str, Mapping[int, Sequence[int]]] = {  # task → length → widths
    "iris_mlp": dict.fromkeys((50, 100, 200, 400, 800, 1600), (16, 64)),
    "wine_mlp": dict.fromkeys((50, 100, 200, 400, 800, 1600), (16, 64)),
    "digits_mlp": {**dict.fromkeys((50, 100, 200), (16, 64, 128)), **dict.fromkeys((400, 800), (16, 64))},
    "charlm_tiny": {50: (32,)},
}
SCHEDULE_FREE = ("adamw", "soap")


@dataclass(frozen=True)
class Cell:
    """One grid: a rule on a task, at a width and a length."""

    optimizer: str
    task: str
    width: int
    steps: int
    schedule: str = "cosine"


def cells() -> Iterator[Cell]:
    """The grids, short runs first."""
    for steps in sorted({steps for lengths in GRIDS.values() for steps in lengths}):
        for task, lengths in GRIDS.items():
            yield from (Cell(rule, task, width, steps) for rule in RULES for width in lengths.get(steps, ()))
        if steps == 200:
            yield from (
                Cell(rule, t, 64, steps, "schedule_free") for rule in SCHEDULE_FREE for t in GRIDS if "mlp" in t
            )


def losses(cell: Cell) -> dict[str, float]:
    """Mean validation loss at the last step, by LR; inf where a seed diverged."""
    options = (
        f"optimizer={cell.optimizer}",
        f"task.width={cell.width}",
        f"schedule={cell.schedule}",
        "optimizer.lr=0.01",
        "trainer.rungs=1",
    )
    b = built(
        arm(cell.task, *options, "weight_decay.value=null", f"trainer.log_every={cell.steps}", steps=cell.steps),
        torch.device("cpu"),
    )
    low, high = DECADES.get(cell.optimizer, OTHERS)
    lrs = [10 ** (low + k / PER_DECADE) for k in range(round((high - low) * PER_DECADE) + 1)]
    hyper = b.space.hyper({})
    trials = [Trial({**hyper, "lr": lr}, seed) for lr in lrs for seed in SEEDS]
    outcomes = train_all(replace(program_of(b), vmapped=True), trials)
    found = [o.val_loss if o.end is End.FINISHED and o.val_loss is not None else math.inf for o in outcomes]
    return {f"{lr:.4g}": fmean(found[k * len(SEEDS) : (k + 1) * len(SEEDS)]) for k, lr in enumerate(lrs)}


@dataclass(frozen=True)
class Optimum:
    """A grid with its best LR: the lowest loss over three neighbours, the middle one twice."""

    cell: Cell
    lr: float

    @property
    def constant(self) -> float:
        """The same for a run of 200 steps and width 64, if the best LR is proportional to 1/√(steps · width)."""
        return self.lr * math.sqrt(self.cell.steps * self.cell.width / (STEPS * WIDTH))

    @property
    def suggested(self) -> bool:
        """Whether the suggested range holds it."""
        task = compose_task(self.cell)
        found = lr_range(self.cell.optimizer, self.cell.schedule, task)
        return found is not None and found.low <= self.lr * (1 + 1e-3) and self.lr * (1 - 1e-3) <= found.high


def compose_task(cell: Cell) -> TaskFacts:
    """What the suggestion asks about a cell."""
    architecture = "transformer" if cell.task.startswith("charlm") else "mlp"
    return TaskFacts(1000, 16, cell.steps, architecture, fan_in=cell.width)


def optimum(entry: Mapping[str, Any]) -> Optimum:
    """Where a grid is lowest."""
    lrs = sorted(entry["losses"], key=float)
    held = [entry["losses"][lr] for lr in lrs]
    padded = [held[0], *held, held[-1]]
    smooth = [fmean([*padded[k : k + 3], held[k]]) for k in range(len(lrs))]
    cell = Cell(**{key: value for key, value in entry.items() if key != "losses"})
    return Optimum(cell, float(lrs[smooth.index(min(smooth))]))


def fit(optima: Sequence[Optimum]) -> None:
    """Print constants, and how often a range holds the best LR: published, as shipped, and with the task held out."""
    print(f"{'rule':20} {'grids':>5} {'constant':>9} {'published':>9} {'shipped':>8} {'held out':>8}")
    for rule, schedule in sorted({(o.cell.optimizer, o.cell.schedule) for o in optima}):
        mine = [o for o in optima if (o.cell.optimizer, o.cell.schedule) == (rule, schedule)]
        shipped = [o.suggested for o in mine]
        with patch.dict(MEASURED_LR, clear=True):
            published = [o.suggested for o in mine]
        held_out = []
        for task in {o.cell.task for o in mine} if schedule == "cosine" and rule in MEASURED_LR else ():
            others = {rule: replace(MEASURED_LR[rule], middle=geometric([o for o in mine if o.cell.task != task]))}
            with patch.dict(MEASURED_LR, others):
                held_out += [o.suggested for o in mine if o.cell.task == task]
        shares = (f"{fmean(found):.0%}" if found else "" for found in (published, shipped, held_out))
        name = rule if schedule == "cosine" else f"{rule}, {schedule}"
        print(f"{name:20} {len(mine):5} {geometric(mine):9.2g} {next(shares):>9} {next(shares):>8} {next(shares):>8}")


def geometric(optima: Sequence[Optimum]) -> float:
    """Geometric mean of the constants."""
    return math.exp(fmean(math.log(o.constant) for o in optima))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fit", action="store_true", help="only say what the losses that are there amount to")
    torch.set_num_threads(1)
    fit_only = parser.parse_args().fit
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else []
    done = [optimum(entry).cell for entry in measured]
    for cell in (cell for cell in cells() if cell not in done and not fit_only):
        measured.append({**asdict(cell), "losses": losses(cell)})
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
        print(cell, optimum(measured[-1]).lr, flush=True)
    fit([optimum(entry) for entry in measured])


if __name__ == "__main__":
    main()
