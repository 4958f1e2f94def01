"""How good a search of 16 trials is with each sampler: regret on synthetic valleys over LR and λ, where truth is known.

Several places of the optimum, several seeds; the noise of a trial is a hundredth. Regret is the height of the chosen
setting above the valley's floor, without the noise. What a suggestion costs is the process's own time, in turn, by
results that it knows; with hundreds TPE suggests in the Gaussian process's place.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch
from benchmarks.side_by_side import Figure, Round, in_turn, spread, timed

from optsweep.search.slots import MOST_OF_GP, Choice, SearchPlan, Slot, choose, suggest
from optsweep.search.space import Params, Space, number_of, numbers

LIMITS = (0.0, math.inf)
SPACE = Space({"lr": numbers(2e-3, 2e-1, limits=LIMITS), "weight_decay": numbers(1e-3, 1.0)})
OPTIMA = ((3e-3, 3e-3), (1.6e-2, 0.5), (6e-2, 0.1))
SEEDS = 6
NOISE = 0.01

RESULTS, ROUNDS = (12, 99, 300), 7
"""What a suggestion knows when it is timed, and how often."""


@dataclass(frozen=True)
class Valley:
    """A loss over LR and λ with its floor at one place; far above it in the LR, training diverges."""

    lr: float
    decay: float
    slope: float = 0.05  # in λ

    def height(self, params: Params) -> float:
        """Height above the floor."""
        x = math.log10(number_of(params, "lr") / self.lr)
        y = math.log10(number_of(params, "weight_decay") / self.decay)
        return math.inf if x > 1.5 else 0.3 * x * x + 0.1 * max(0.0, x) ** 3 + self.slope * y * y


def run(device: torch.device) -> list[Figure]:
    """Mean regret of GP and TPE, relative to quasi-random points alone."""
    found = {
        sampler: [_regret(sampler, Valley(*best), seed) for best in OPTIMA for seed in range(SEEDS)]
        for sampler in ("gp", "tpe", "quasi-random")
    }
    floor = fmean(found["quasi-random"])
    regrets = [
        Figure(
            what=f"regret of a search of 16 trials, {sampler}",
            ours=f"{fmean(found[sampler]):.4f}",
            against=f"quasi-random alone: {floor:.4f}",
            value=fmean(found[sampler]) / floor,
            low=math.nan,
            high=math.nan,
            rounds=1,
            expected=expected,
        )
        for sampler, expected in (("gp", "0.4"), ("tpe", "0.75"))
    ]
    return [*regrets, *(_cost(results) for results in RESULTS)]


def _cost(results: int) -> Figure:
    """Milliseconds of a suggestion that knows so many results, of the default sampler beside TPE."""
    lrs = [2e-3 * 100 ** (k / results) for k in range(results)]
    slots = [Slot(k, {"lr": lr}, 0, "quasi-random", value=_of_lr(lr)) for k, lr in enumerate(lrs)]
    space = Space({"lr": SPACE.dimensions["lr"]})
    plan = SearchPlan(2 * results, lag=1, sampler="gp", pruner="none", reruns=0.25, seed=0, arm="a")

    def contestant(sampler: str) -> Round:
        asked = replace(plan, sampler=sampler)
        return lambda: timed(lambda: suggest(asked, space, results, slots), torch.device("cpu"))

    default, tpe = in_turn([contestant("gp"), contestant("tpe")], rounds=ROUNDS)
    low, middle, high = (1000 * seconds for seconds in spread(default))
    return Figure(
        what=f"a suggestion that knows {results} results",
        ours="search.sampler=gp",
        against=f"tpe: {1000 * spread(tpe)[1]:.1f} ms",
        value=middle,
        low=low,
        high=high,
        rounds=ROUNDS,
        expected="50" if results < MOST_OF_GP else "7",
        unit=" ms",
    )


def _of_lr(lr: float) -> float:
    """A loss of that LR; by the sine no two results lie on one curve."""
    return 2 + Valley(1.6e-2, 0.1).height({"lr": lr, "weight_decay": 0.1}) + NOISE * math.sin(1e5 * lr)


def searched(valley: Valley, space: Space, trials: int, sampler: str, seed: int, lag: int = 2) -> Choice | None:
    """What a whole search on a valley, with noise, ends on."""
    plan = SearchPlan(trials=trials, lag=lag, sampler=sampler, pruner="none", reruns=0.25, seed=seed, arm="a")
    slots: list[Slot] = []
    for number in range(plan.trials):
        slot = suggest(plan, space, number, slots)
        key = hashlib.sha256(f"{sorted(slot.params.items())} {slot.seed}".encode()).digest()[:8]
        noise = np.random.default_rng(int.from_bytes(key, "big")).normal(0, NOISE)
        slots.append(replace(slot, value=2 + valley.height(slot.params) + noise))
    return choose(plan, space, slots)


def _regret(sampler: str, valley: Valley, seed: int) -> float:
    choice = searched(valley, SPACE, 16, sampler, seed)
    return valley.height(choice.params) if choice is not None else math.inf
