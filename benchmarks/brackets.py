"""What redirecting other keys than the LR gains and costs: `python benchmarks/brackets.py`.

Searches of 16 and of 32 trials on synthetic valleys over LR and λ, whose best λ lies inside its range, past either end,
at one, or nowhere. Regret, and the share of searches that ended with λ bracketed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import optuna

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.sampler import Valley, searched

from optsweep.search import slots
from optsweep.search.space import Space, numbers

SPACE = Space(
    {
        "lr": numbers(2e-3, 2e-1, limits=(0.0, math.inf)),
        "weight_decay": numbers(1e-3, 1.0, limits=(1e-4, 5.0)),
    }
)
VALLEYS = {
    "inside": Valley(1.6e-2, 0.1),
    "λ below": Valley(1.6e-2, 3e-4),
    "λ above": Valley(1.6e-2, 3.0),
    "LR and λ above": Valley(6e-1, 3.0),
    "λ at its end": Valley(1.6e-2, 1.0),
    "flat in λ": Valley(1.6e-2, 0.1, 0.0),
}
SEEDS = range(8)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for trials in (16, 32):
        for share, what in ((0.0, "LR only"), (slots.MOST_BRACKETS, "every key")):
            cells = []
            for valley in VALLEYS.values():
                with patch.object(slots, "MOST_BRACKETS", share):
                    found = [searched(valley, SPACE, trials, "gp", seed) for seed in SEEDS]
                regret = fmean(valley.height(choice.params) if choice else math.inf for choice in found)
                held = fmean(choice is not None and all(choice.sides["weight_decay"].values()) for choice in found)
                cells.append(f"{regret:.4f}, {held:.0%}")
            print(f"| {trials}, {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
