"""Error rates of the whole procedure, tuning included, where the truth is known: a table of docs/statistics.md.

    python docs/error_rates_of_searches.py

An arm is a valley in log LR and log λ, steeper above the best LR than below, with the noise of a seed on every loss. A
search tries quasi-random points (a Sobol set, shifted at random, the same for both arms), runs the best two again, and
takes the better mean; there is no model. Its choice is confirmed on fresh seeds. Everything is drawn anew in every
repetition, as if the same command were given again with another sweep.seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from error_rates import ALPHA, NOISES, PAGE, REPETITIONS, Array, replaced, rng_of, table_of
from scipy import stats
from scipy.stats import qmc

from optsweep.inference.looks import REPEAT_LEVEL, REPEAT_LOOKS, nominal_level

SEED_NOISE = 0.01
RERUNS = 2  # settings run again, each as often as fits into a quarter of the trials
TRUTH = 40_000  # repetitions that the true difference is taken from


@dataclass(frozen=True)
class Valley:
    """Mean loss = (x − x*)² · k, x in decades of LR, k one of two slopes, + (y − y*)² · flat, y in decades of λ."""

    lr: float = 0.0  # x*, where 0 is the middle of the searched 2 decades
    below: float = 0.2
    above: float = 0.5
    flat: float = 0.04

    def __call__(self, x: Array, y: Array) -> Array:
        """Mean losses."""
        away = x - self.lr
        return np.where(away < 0, self.below, self.above) * away**2 + self.flat * y**2


@dataclass(frozen=True)
class Plan:
    """`repeats` searches of `trials`, each confirmed on `seeds`."""

    repeats: int
    trials: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.repeats} × ({self.trials} + {self.seeds})"

    @property
    def cost(self) -> int:
        """Runs per arm."""
        return self.repeats * (self.trials + self.seeds)


PLANS = (Plan(1, 16, 8), Plan(1, 40, 4), Plan(2, 16, 3), Plan(3, 16, 3), Plan(4, 16, 3), Plan(4, 4, 2))
LOOKED = 200_000  # repetitions of what costs little
PLAN = Plan(REPEAT_LOOKS[-1], 16, 3)
SAME, OTHER = Valley(), Valley(lr=0.4, below=0.1, above=0.8)


def confirmed(valley: Valley, points: Array, trials: int, seeds: int, rng: np.random.Generator) -> Array:
    """Test losses [searches, seeds] of the settings that searches over `points [searches, trials, 2]` choose."""
    again = max(trials // 4 // RERUNS, 0)
    tried = points[:, : trials - again * RERUNS]
    means = valley(tried[..., 0], tried[..., 1])
    found = means + SEED_NOISE * rng.standard_normal(means.shape)
    best = np.argsort(found, axis=1)[:, :RERUNS]
    first, true = (np.take_along_axis(values, best, 1) for values in (found, means))
    more = true[..., None] + SEED_NOISE * rng.standard_normal((*true.shape, again))
    winner = np.argmin((first + more.sum(2)) / (1 + again), axis=1)[:, None]
    chosen = np.take_along_axis(true, winner, 1)
    return np.asarray(chosen + SEED_NOISE * rng.standard_normal((len(chosen), seeds)))


def differences(valley: Valley, plan: Plan, repetitions: int, rng: np.random.Generator) -> Array:
    """What the test of each repetition is over: means by search, or the seeds of one, of a valley less SAME."""
    sobol = qmc.Sobol(2, scramble=False).random_base2(int(np.ceil(np.log2(plan.trials))))[: plan.trials]
    count = repetitions * plan.repeats
    points = 2 * ((sobol + rng.random((count, 1, 2))) % 1.0) - 1
    ours, theirs = (confirmed(arm, points, plan.trials, plan.seeds, rng) for arm in (valley, SAME))
    found = ours - theirs
    return found.mean(1).reshape(repetitions, plan.repeats) if plan.repeats > 1 else found


def declared(plan: Plan, rng: np.random.Generator) -> float:
    """Share of repetitions in which an arm is called different from itself."""
    p_values = np.asarray(stats.ttest_1samp(differences(SAME, plan, REPETITIONS, rng), 0.0, axis=1).pvalue)
    return float(np.mean(p_values < ALPHA))


@cache
def truth(plan: Plan) -> float:
    """The mean difference of the two arms, over everything that is drawn."""
    return float(differences(OTHER, plan, TRUTH, rng_of("searches", "truth", plan)).mean())


def covered(plan: Plan, rng: np.random.Generator) -> tuple[float, float]:
    """Share of 95 % intervals of unlike arms that contain the true difference, and half of their median length."""
    found = differences(OTHER, plan, REPETITIONS, rng)
    interval = stats.ttest_1samp(found, 0.0, axis=1).confidence_interval(1 - ALPHA)
    inside = (interval.low <= truth(plan)) & (truth(plan) <= interval.high)
    return float(np.mean(inside)), float(np.median(interval.high - interval.low) / 2)


def searches() -> Iterator[str]:
    """The table."""
    yield (
        f"Written by `python docs/error_rates_of_searches.py`, {REPETITIONS:,} repetitions a cell: 5 or 95 % is known "
        "to ± 1 point. R × (B + S): R searches of B trials, S confirm seeds each, paired over searches, of one search "
        f"over seeds. Arms are valleys in log LR and log λ, a seed's standard deviation is {SEED_NOISE}; unlike arms "
        "differ in their best LR and in how steep they are. The interval ought to hold for giving the whole command "
        "again with another `sweep.seed`."
    )
    rows = []
    for plan in PLANS:
        share, half = covered(plan, rng_of("searches", "unlike", plan))
        wrong = declared(plan, rng_of("searches", "same", plan))
        rows.append([str(plan), str(plan.cost), f"{100 * wrong:.1f}", f"{100 * share:.1f}", f"{half:.4f}"])
    yield table_of(
        ["R × (B + S)", "runs per arm", "arm against itself called different, %", "coverage, %", "± (median)"], rows
    )
    yield from looking()
    yield from splits()


def splits() -> Iterator[str]:
    """The table of `task.resplit`."""
    plan = Plan(4, 16, 3)
    yield (
        f"`task.resplit`, {plan}, unlike arms. Assumed: a division into training and validation moves the difference "
        "of the arms by a normal amount of its own, in units of a seed's standard deviation; held, all searches of a "
        "sweep have one division, redrawn, each has another. Coverage of the mean over divisions, and half of the "
        f"median interval; {REPETITIONS:,} repetitions. An arm against itself in one sweep has the same divisions on "
        "both sides: its errors are those above."
    )
    rows = []
    for size in (0.0, 0.5, 1.0, 2.0):
        rng = rng_of("searches", "splits", size)
        found, own = differences(OTHER, plan, REPETITIONS, rng), rng.standard_normal((REPETITIONS, plan.repeats))
        cells = []
        for moved in (own[:, :1], own):
            interval = stats.ttest_1samp(found + size * SEED_NOISE * moved, 0.0, axis=1).confidence_interval(1 - ALPHA)
            inside = np.asarray((interval.low <= truth(plan)) & (truth(plan) <= interval.high))
            cells += [f"{100 * inside.mean():.1f}", f"{np.median(interval.high - interval.low) / 2:.4f}"]
        rows.append([f"{size:g}", *cells])
    yield table_of(["a division moves it by", "held, %", "±", "redrawn, %", "±"], rows)


def looking() -> Iterator[str]:
    """The table of sweep.repeats=auto."""
    most, listed = REPEAT_LOOKS[-1], ", ".join(map(str, REPEAT_LOOKS))
    yield (
        f"`sweep.repeats=auto`, looks at {listed} searches. {LOOKED:,} repetitions a cell, of differences that a "
        "search amounts to, no two arms different: 5 % is known to ± 0.1 point. In the column of valleys an arm is "
        f"held against itself, each search {PLAN.trials} trials and {PLAN.seeds} seeds, {5 * REPETITIONS:,} "
        "repetitions (± 0.4)."
    )
    pocock = nominal_level(REPEAT_LOOKS)
    rules = {f"`auto`, {100 * REPEAT_LEVEL:.2f} % at each": REPEAT_LEVEL, f"Pocock, {100 * pocock:.2f} %": pocock}
    rules["the same looks, each at 5 %"] = ALPHA
    drawn = {name: draw(rng_of("looking", name), (LOOKED, most)) for name, draw in NOISES.items()}
    drawn["valleys"] = differences(SAME, PLAN, 5 * REPETITIONS, rng_of("looking", "valleys"))
    rows = [[name, *(f"{100 * ended(held, level)[0]:.1f}" for held in drawn.values())] for name, level in rules.items()]
    yield table_of(["false positives, %", *drawn], rows)
    yield "And what it costs: a true difference in units of the standard deviation of a search's, normal."
    rows = []
    for size in (1, 2, 4, 8):
        held = size + NOISES["normal"](rng_of("looking", size), (LOOKED // 5, most))
        shown, searches = ended(held, REPEAT_LEVEL)
        fixed = np.asarray(stats.ttest_1samp(held[:, :4], 0.0, axis=1).pvalue) < ALPHA
        rows.append([str(size), f"{100 * shown:.0f}", f"{searches:.1f}", f"{100 * float(fixed.mean()):.0f}"])
    yield table_of(["difference", "shown by auto, %", "searches, mean", "shown by `sweep.repeats=4`, %"], rows)


def ended(values: Array, level: float) -> tuple[float, float]:
    """Share of rows that a look calls different, and how many searches were run on average."""
    shown, searches = np.zeros(len(values), dtype=bool), np.full(len(values), REPEAT_LOOKS[-1])
    for look in REPEAT_LOOKS:
        first = (np.asarray(stats.ttest_1samp(values[:, :look], 0.0, axis=1).pvalue) < level) & ~shown
        searches[first] = look
        shown |= first
    return float(shown.mean()), float(searches.mean())


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), "searches", searches()), encoding="utf-8")
