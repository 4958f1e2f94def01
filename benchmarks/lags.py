"""What a larger `search.lag` costs a search of hundreds of trials: `python benchmarks/lags.py [trials]`.

Valleys as in sampler.py, over LR and λ, and over four keys; three places of the optimum, several seeds, the noise of a
trial a hundredth. Regret is the height of the chosen setting above the floor, without the noise.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

import optuna

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.sampler import OPTIMA, SPACE, Valley, searched

from optsweep.search.space import Params, Space, number_of, numbers

SEEDS = 6
LAGS = (2, 16, 8, 4, 1)
"""The first as it is, the others as the share of the trials that they are."""

FOUR = Space({**SPACE.dimensions, "beta1": numbers(0.01, 0.5), "eps": numbers(1e-10, 1e-4)})


@dataclass(frozen=True)
class Narrow(Valley):
    """A valley in two further keys too, best at 0.1 and 1e-8."""

    def height(self, params: Params) -> float:
        """Height above the floor."""
        away = math.log10(number_of(params, "beta1") / 0.1), math.log10(number_of(params, "eps") / 1e-8)
        return super().height(params) + 0.1 * away[0] ** 2 + 0.02 * away[1] ** 2


def regrets(space: Space, kind: type[Valley], trials: int, lag: int) -> Iterator[float]:
    """Of a search on every valley by every seed."""
    for best in OPTIMA:
        for seed in range(SEEDS):
            valley = kind(*best)
            choice = searched(valley, space, trials, "gp", seed, lag=lag)
            yield valley.height(choice.params) if choice is not None else math.inf


def main(trials: int) -> None:
    """Print a table."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"{trials} trials  {'keys':>5} {'lag':>5} {'mean regret':>12} {'± SE':>8} {'median':>8} {'worst':>8}")
    for space, kind in ((SPACE, Valley), (FOUR, Narrow)):
        for share in LAGS:
            lag = share if share == 2 else max(2, trials // share)
            found = list(regrets(space, kind, trials, lag))
            error = stdev(found) / math.sqrt(len(found))
            line = f"{fmean(found):12.4f} {error:8.4f} {median(found):8.4f} {max(found):8.4f}"
            print(f"{'':{len(str(trials)) + 7}}  {len(space.dimensions):5} {lag:5} {line}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 400)
