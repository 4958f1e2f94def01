"""Whole searches, real runs: how often they call an arm different from itself, and what their intervals contain.

Slots, choices and seeds are the product's own, so a sweep here is what `sweep.seed=s sweep.repeats=4` runs; slot n of
many searches is trained as one batch of lanes. For that the split into training and validation is that of the task in
every repeat, as with `task.resplit=false`; where it is redrawn, each further repeat has one of as many splits as an
entry says, since searches that train together share their data. Arms have two names, with an eps that differs in the
seventh digit.
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
from optsweep.launch.standing import search_plan
from optsweep.launch.worker.worker import trial_of
from optsweep.search.ownership import Claim
from optsweep.search.slots import SearchPlan, Slot, choose, seed_of, suggest
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
    over_samples: bool = True  # whether its intervals are over test samples too, as the product's are

    def __str__(self) -> str:
        return f"{self.repeats} × ({TRIALS} + {self.seeds}){'' if self.over_samples else ', test samples held'}"

    @property
    def nominal(self) -> bool:
        """Whether its intervals are meant to hold for the whole procedure."""
        return self.repeats > 1


MAIN = Plan(4, 3)
HELD = replace(MAIN, over_samples=False)
PLANS = (Plan(1, 8), Plan(3, 3), MAIN, HELD)


@dataclass(frozen=True)
class Entry:
    """An arm of a task."""

    task: str
    steps: int
    recipe: str
    eps: tuple[str, ...] = ("1e-8", "1.000001e-8")  # of its names; none: a rule that has no such option
    splits: int = 0  # that further repeats redraw theirs from; 0: all have the task's

    def __str__(self) -> str:
        return f"{self.recipe} on {self.task}, {self.steps} steps{', splits redrawn' if self.splits else ''}"

    @property
    def plans(self) -> Sequence[Plan]:
        """What is asked of it: of redrawn splits R = 4, since the first search has the task's in every sweep."""
        return (MAIN, HELD) if self.splits else PLANS

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
    Entry("iris_mlp", 100, "adamw_cosine", eps=("1e-8",), splits=20),
    Entry("iris_mlp", 100, "soap_schedulefree", eps=("1e-8",), splits=20),
)
"""Those with names are compared with themselves."""

UNLIKE = ((ENTRIES[1], ENTRIES[0]), (ENTRIES[4], ENTRIES[3]), (ENTRIES[6], ENTRIES[5]))
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
            {index: parts for index, (_, *parts) in ended.items()} if plan.over_samples else {},
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
    split: int  # which of those that there are; 0: the task's own

    def trial(self, built: Built, phase: Phase, slot: Slot) -> Trial:
        """What a worker trains of it."""
        return trial_of(self.arm, built, Work(self.arm.name, phase, Claim(0, 0), slot, 0, self.repeat))


def confirmed(arm: Arm, splits: int, seeds: Sequence[int], device: torch.device) -> Array:
    """Test losses [sweeps, repeats, confirm seeds, the whole split and its parts] of the sweeps with these seeds.

    inf: diverged; NaN: not run, and parts of what diverged.
    """
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    built = build_arm(arm, None, device)
    builds = [built, *(build_arm(replace(arm, seed=split), None, device, 1) for split in range(splits))]
    searches = []
    for own in (replace(arm, seed=seed) for seed in seeds):
        for repeat in range(MAIN.repeats):
            split = 1 + seed_of(own.seed, "split", repeat) % splits if repeat and splits else 0
            searches.append(Search(own, repeat, search_plan(own, repeat), [], split))
    for number in range(TRIALS):
        waiting = [(search, suggest(search.plan, built.space, number, search.slots)) for search in searches]
        for (search, slot), outcome in zip(waiting, _trained(builds, waiting, Phase.SEARCH), strict=True):
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
    for place, outcome in zip(places, _trained(builds, waiting, Phase.CONFIRM), strict=True):
        ended[place] = [outcome.test_loss, *outcome.test_blocks] if outcome.test_loss is not None else [math.inf]
    losses = np.full((len(searches), most, max(map(len, ended.values()))), math.nan)
    for place, found in ended.items():
        losses[place][: len(found)] = found
    return losses.reshape(len(seeds), MAIN.repeats, *losses.shape[1:])


def _trained(builds: Sequence[Built], waiting: Sequence[tuple[Search, Slot]], phase: Phase) -> list[Outcome]:
    """How the trials end, in their order; those of one split train together."""
    ended: dict[int, Outcome] = {}
    for split, built in enumerate(builds):
        program = replace(program_of(built), vmapped=True)
        places = [place for place, (search, _) in enumerate(waiting) if search.split == split]
        for first in range(0, len(places), LANES):
            lanes = places[first : first + LANES]
            trials = [search.trial(built, phase, slot) for search, slot in map(waiting.__getitem__, lanes)]
            ended |= zip(lanes, train_all(program, trials), strict=True)
    return [ended[place] for place in range(len(waiting))]


def banks(device: torch.device) -> Iterator[tuple[Entry, list[Array]]]:
    """The sweeps of every arm, under each of its names; on the CPU one process per core."""
    processes = num_cores() if device.type == "cpu" else 1
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        started: list[tuple[Entry, list[list[Future[Array]]]]] = []
        for entry in ENTRIES:
            size = SWEEPS if entry.splits else BLOCK  # of a split there are few searches to train together
            blocks = [range(first, min(first + size, SWEEPS)) for first in range(0, SWEEPS, size)]
            names = [
                [pool.submit(confirmed, arm, entry.splits, block, device) for block in blocks] for arm in entry.names
            ]
            started.append((entry, names))
        for entry, names in started:
            yield entry, [np.concatenate([block.result() for block in blocks]) for blocks in names]


# -- figures -----------------------------------------------------------------------------------------------------------


def run(device: torch.device) -> Iterator[Figure]:
    """Of every arm against itself, and of unlike arms."""
    bank: dict[Entry, list[Array]] = {}
    for entry, found in banks(device):
        bank[entry] = found
        if entry.eps:
            yield from alike(entry, found)
    for candidate, baseline in UNLIKE:
        yield from unlike(candidate, baseline, bank[candidate][0], bank[baseline][0])


def alike(arm: Entry, names: Sequence[Array]) -> Iterator[Figure]:
    """How often an arm is declared better or worse than itself, under each of its names if it has two."""
    one, other = names[0], names[-1]
    # nothing in common; every search is used once, or, of one name, once on either side
    questions = {"itself, in another sweep": np.roll(other, -1, axis=0)}
    if len(names) > 1:  # the same points and seeds, as under two names
        questions = {"itself, in one sweep": other, **questions}
    for question, against in questions.items():
        for plan in arm.plans:
            found = findings(one, against, plan)
            hits = [finding.outcome in DECLARED for finding in found]
            error = 196 * math.sqrt(0.05 * 0.95 / len(hits))
            yield share(
                f"{arm}, against {question}: {plan}",
                hits,
                f"{sum(hits)} of {len(hits)} declared better or worse, {half_width(found)}",
                "5 % nominal" if plan.nominal else "of the settings, 5 % nominal",
                expected="5 %" if plan.nominal else "20 to 60 %",
                target=round(5 + error, 1) if plan == MAIN else None,
            )


def unlike(one: Entry, other: Entry, candidate: Array, baseline: Array) -> Iterator[Figure]:
    """How often the interval of a difference holds the mean over all sweeps, and the means of other sweeps."""
    what = f"{one.recipe} against {other}"
    with np.errstate(invalid="ignore"):  # both diverged
        each = candidate[..., : MAIN.seeds, 0].mean(2) - baseline[..., : MAIN.seeds, 0].mean(2)
    truth = float(each[np.isfinite(each)].mean())
    for plan in other.plans:
        found = findings(candidate, baseline, plan)
        tests = [f.test for f in found if f.test and f.test.low is not None]
        ends = np.array([(test.low, test.mean, test.high) for test in tests], dtype=np.float64)
        hits = [bool(low <= truth <= high) for low, _, high in ends]
        yield share(
            f"{what}, interval holds the mean of all sweeps: {plan}",
            hits,
            f"{sum(hits)} of {len(hits)} intervals, {half_width(found)}",
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


def half_width(found: Sequence[Finding]) -> str:
    """ "± 0.0123 (median)": half of the intervals that there are."""
    tests = [finding.test for finding in found if finding.test]
    held = [(test.high - test.low) / 2 for test in tests if test.low is not None and test.high is not None]
    return f"± {median(held):.4f} (median)" if held else "no interval"


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
