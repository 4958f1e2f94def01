"""Whole searches, real runs: how often they call an arm different from itself, and what their intervals contain.

Slots, choices and seeds are the product's own, so a sweep here is what `sweep.seed=s sweep.repeats=4` runs; slot n of
many searches is trained as one batch of lanes. For that the split into training and validation is that of the task in
every repeat, as with `task.resplit=false`. Arms have two names, with an eps that differs in the seventh digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import median

import numpy as np
import optuna
import torch
from benchmarks.side_by_side import Figure
from benchmarks.trials import program_of
from numpy.typing import NDArray
from scipy.stats import binomtest

from optsweep.build.assemble import Built, build_arm
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.inference.comparison import Conclusion, Finding, judge
from optsweep.inference.looks import Level
from optsweep.inference.repeats import seed_index
from optsweep.launch.environment import num_cores
from optsweep.launch.sweep import _search_plan
from optsweep.launch.worker import trial_of
from optsweep.search.ownership import Claim
from optsweep.search.slots import SearchPlan, Slot, choose, suggest
from optsweep.search.studies import Work
from optsweep.train.loop import train_all
from optsweep.train.trial import End, Outcome, Phase, Trial

Array = NDArray[np.float64]

SWEEPS = 200
BLOCK = 40  # sweeps that one process works on together
LANES = 160
TRIALS = 16
RESAMPLES = 2_000

DECLARED = tuple(conclusion for conclusion in Conclusion if conclusion.better or conclusion.worse)


@dataclass(frozen=True)
class Plan:
    """`repeats` searches, each confirmed on `seeds`."""

    repeats: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.repeats} × ({TRIALS} + {self.seeds})"

    @property
    def nominal(self) -> bool:
        """Whether its intervals are meant to hold for the whole procedure."""
        return self.repeats > 1


PLANS = (Plan(1, 8), Plan(3, 3), Plan(4, 3))
MAIN = PLANS[-1]


@dataclass(frozen=True)
class Entry:
    """An arm of a task."""

    task: str
    steps: int
    recipe: str
    eps: tuple[str, ...] = ("1e-8", "1.000001e-8")  # of its names; none: a rule that has no such option

    def __str__(self) -> str:
        return f"{self.recipe} on {self.task}, {self.steps} steps"

    @property
    def names(self) -> list[Arm]:
        """The arm under each of its names."""
        lines = [
            f"task={self.task}",
            f"recipe={self.recipe}",
            "search.over=[lr,weight_decay]",
            f"search.trials={TRIALS}",
            f"trainer.steps={self.steps}",
            "trainer.rungs=3",
            f"trainer.log_every={self.steps}",
            "sweep.name=benchmark",
        ]
        if not self.eps:
            return [arm_of(compose(lines))]
        return [replace(arm_of(compose([*lines, f"optimizer.eps={e}"])), axes={"optimizer.eps": e}) for e in self.eps]


ENTRIES = (
    Entry("iris_mlp", 100, "adamw_cosine"),
    Entry("iris_mlp", 100, "soap_schedulefree"),
    Entry("wine_mlp", 100, "adamw_cosine"),
    Entry("digits_mlp", 60, "adamw_cosine"),
    Entry("digits_mlp", 60, "momentum_cosine", eps=()),
)
"""Those with two names are compared with themselves."""

UNLIKE = ((ENTRIES[1], ENTRIES[0]), (ENTRIES[4], ENTRIES[3]))
"""Candidate and baseline of what the intervals ought to contain."""


@dataclass(frozen=True)
class Confirmed:
    """An arm of a sweep as the product's test sees it."""

    test_losses: Mapping[int, float]
    test_blocks: Mapping[int, Sequence[float]]
    diverged_seeds: int

    @staticmethod
    def of(losses: Array, plan: Plan) -> Confirmed:
        """From test losses [repeats, seeds, the whole split and its parts], inf where a trial diverged."""
        part = {seed_index(r, s): losses[r, s].tolist() for r in range(plan.repeats) for s in range(plan.seeds)}
        ended = {index: found for index, found in part.items() if math.isfinite(found[0])}
        return Confirmed(
            {index: whole for index, (whole, *_) in ended.items()},
            {index: parts for index, (_, *parts) in ended.items()},
            len(part) - len(ended),
        )


# -- sweeps ------------------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """One search of an arm in a sweep, with what confirms its choice."""

    arm: Arm
    repeat: int
    plan: SearchPlan
    slots: list[Slot]

    def trial(self, built: Built, phase: Phase, slot: Slot) -> Trial:
        """What a worker trains of it."""
        return trial_of(self.arm, built, Work(self.arm.name, phase, Claim(0, 0), slot, 0, self.repeat))


def confirmed(arm: Arm, seeds: Sequence[int], device: torch.device) -> Array:
    """Test losses [sweeps, repeats, confirm seeds, the whole split and its parts] of the sweeps with these seeds.

    inf: diverged; NaN: not run, and parts of what diverged.
    """
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    built = build_arm(arm, None, device)
    searches = []
    for seed in seeds:
        own = replace(arm, seed=seed)
        searches += [Search(own, repeat, _search_plan(own, repeat), []) for repeat in range(MAIN.repeats)]
    for number in range(TRIALS):
        waiting = [(search, suggest(search.plan, built.space, number, search.slots)) for search in searches]
        for (search, slot), outcome in zip(waiting, _trained(built, waiting, Phase.SEARCH), strict=True):
            value = outcome.val_loss if outcome.end is End.FINISHED else math.inf
            search.slots.append(replace(slot, value=value))
    most = max(plan.seeds for plan in PLANS)
    ended: dict[tuple[int, int], list[float]] = {}
    places, waiting = [], []
    for row, search in enumerate(searches):
        wanted = max(plan.seeds for plan in PLANS if search.repeat < plan.repeats)
        choice = choose(search.plan, built.space, search.slots)
        if choice is None:
            ended |= {(row, seed): [math.inf] for seed in range(wanted)}
            continue
        places += [(row, seed) for seed in range(wanted)]
        waiting += [(search, Slot(seed, choice.params, seed, "chosen")) for seed in range(wanted)]
    for place, outcome in zip(places, _trained(built, waiting, Phase.CONFIRM), strict=True):
        ended[place] = [outcome.test_loss, *outcome.test_blocks] if outcome.test_loss is not None else [math.inf]
    losses = np.full((len(searches), most, max(map(len, ended.values()))), math.nan)
    for place, found in ended.items():
        losses[place][: len(found)] = found
    return losses.reshape(len(seeds), MAIN.repeats, *losses.shape[1:])


def _trained(built: Built, waiting: Sequence[tuple[Search, Slot]], phase: Phase) -> Iterator[Outcome]:
    """How the trials end, in their order."""
    program = replace(program_of(built), vmapped=True)
    trials = [search.trial(built, phase, slot) for search, slot in waiting]
    for first in range(0, len(trials), LANES):
        yield from train_all(program, trials[first : first + LANES])


def banks(device: torch.device) -> Iterator[tuple[Entry, list[Array]]]:
    """The sweeps of every arm, under each of its names; on the CPU one process per core."""
    processes = num_cores() if device.type == "cpu" else 1
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        started: list[tuple[Entry, list[list[Future[Array]]]]] = []
        for entry in ENTRIES:
            blocks = [range(first, min(first + BLOCK, SWEEPS)) for first in range(0, SWEEPS, BLOCK)]
            started.append(
                (entry, [[pool.submit(confirmed, arm, block, device) for block in blocks] for arm in entry.names])
            )
        for entry, names in started:
            yield entry, [np.concatenate([block.result() for block in blocks]) for blocks in names]


# -- figures -----------------------------------------------------------------------------------------------------------


def run(device: torch.device) -> Iterator[Figure]:
    """Of every arm against itself, and of unlike arms."""
    bank: dict[Entry, list[Array]] = {}
    for entry, found in banks(device):
        bank[entry] = found
        if len(found) > 1:
            yield from alike(str(entry), *found)
    for candidate, baseline in UNLIKE:
        what = f"{candidate.recipe} against {baseline}"
        yield from unlike(what, bank[candidate][0], bank[baseline][0])


def alike(arm: str, one: Array, other: Array) -> Iterator[Figure]:
    """How often an arm is declared better or worse than itself."""
    questions = {
        "itself, in one sweep": other,  # the same points and seeds, as under two names
        "itself, in another sweep": np.roll(other, -1, axis=0),  # nothing in common; every search is used once
    }
    for question, against in questions.items():
        for plan in PLANS:
            hits = [finding.outcome in DECLARED for finding in findings(one, against, plan)]
            error = 196 * math.sqrt(0.05 * 0.95 / len(hits))
            yield share(
                f"{arm}, against {question}: {plan}",
                hits,
                f"{sum(hits)} of {len(hits)} declared better or worse",
                "5 % nominal" if plan.nominal else "of the settings, 5 % nominal",
                expected="5 %" if plan.nominal else "20 to 60 %",
                target=round(5 + error, 1) if plan == MAIN else None,
            )


def unlike(what: str, candidate: Array, baseline: Array) -> Iterator[Figure]:
    """How often the interval of a difference holds the mean over all sweeps, and the means of other sweeps."""
    with np.errstate(invalid="ignore"):  # both diverged
        each = candidate[..., : MAIN.seeds, 0].mean(2) - baseline[..., : MAIN.seeds, 0].mean(2)
    truth = float(each[np.isfinite(each)].mean())
    for plan in PLANS:
        tests = [f.test for f in findings(candidate, baseline, plan) if f.test and f.test.low is not None]
        ends = np.array([(test.low, test.mean, test.high) for test in tests], dtype=np.float64)
        hits = [bool(low <= truth <= high) for low, _, high in ends]
        half = median(float(high - low) / 2 for low, _, high in ends)
        yield share(
            f"{what}, interval holds the mean of all sweeps: {plan}",
            hits,
            f"{sum(hits)} of {len(hits)} intervals, ± {half:.4f} (median)",
            f"mean {truth:+.4f}",
            expected="95 %" if plan.nominal else "60 %",
            target=93.0 if plan == MAIN else None,
            at_least=True,
        )
        yield _mutual(f"{what}, two sweeps hold each other's mean: {plan}", ends)


def findings(one: Array, other: Array, plan: Plan) -> list[Finding]:
    """What the product finds in each sweep."""
    return [
        judge([Confirmed.of(a, plan)], Confirmed.of(b, plan), Level.of(()), None)[0]
        for a, b in zip(one, other, strict=True)
    ]


def share(
    what: str,
    hits: Sequence[bool],
    ours: str,
    against: str,
    *,
    expected: str,
    target: float | None = None,
    at_least: bool = False,
) -> Figure:
    """A share in percent, with its Clopper – Pearson interval."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(0.95, "exact")
    ends = 100 * interval.low, 100 * interval.high
    value = 100 * sum(hits) / len(hits)
    return Figure(what, ours, against, value, *ends, len(hits), expected, target, " %", at_least)


def _mutual(what: str, ends: Array) -> Figure:
    """Share of all pairs of sweeps whose intervals hold each other's mean, with a bootstrap over sweeps."""
    low, mean, high = ends.T
    holds = (low[:, None] <= mean) & (mean <= high[:, None])
    both = (holds & holds.T).astype(np.float64)
    rng = np.random.default_rng(0)

    def held(chosen: NDArray[np.intp]) -> float:
        apart = chosen[:, None] != chosen
        return 100 * float(both[np.ix_(chosen, chosen)][apart].mean())

    count = len(ends)
    drawn = [held(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    lowest, highest = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    value = held(np.arange(count))
    pairs = f"all pairs of {count} sweeps"
    return Figure(what, pairs, "", value, lowest, highest, count, "80 to 90 %", None, " %")
