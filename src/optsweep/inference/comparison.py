"""What a group's seeds say of each arm against the baseline: paired t tests on the test loss, Holm-corrected.

The pairs are means over the seeds of a search where the arms have several searches in common, else single seeds.

The planner asks it whether more seeds are needed, the report what to state; so they can't disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from optsweep.inference import statistics
from optsweep.inference.looks import Level
from optsweep.inference.repeats import independent
from optsweep.inference.statistics import PairedT
from optsweep.inference.steadiness import steady
from optsweep.inference.two_way import MIN_BLOCKS, Array, two_way


class Conclusion(StrEnum):
    """What can be said about a candidate against its baseline."""

    BETTER = "better"
    SLIGHTLY_BETTER = "better, by less than delta"
    WORSE = "worse"
    SLIGHTLY_WORSE = "worse, by less than delta"
    EQUAL = "equal within delta"
    NO_DIFFERENCE = "no difference shown"
    UNDECIDED = "not decided"  # a difference is shown, but the arm that ends higher was tuned less: of reports only
    UNTESTED = "not tested"  # too few seeds, no variance, or the lower loss is that of an arm with diverged seeds

    @property
    def better(self) -> bool:
        """Whether the candidate is shown to end lower."""
        return self in (Conclusion.BETTER, Conclusion.SLIGHTLY_BETTER)

    @property
    def worse(self) -> bool:
        """Whether the candidate is shown to end higher."""
        return self in (Conclusion.WORSE, Conclusion.SLIGHTLY_WORSE)


class Tested(Protocol):
    """An arm's confirm trials as the test sees them."""

    @property
    def test_losses(self) -> Mapping[int, float]:
        """Finite test losses by seed."""

    @property
    def test_blocks(self) -> Mapping[int, Sequence[float]]:
        """Mean losses of equal parts of the test split by seed; seeds without them are missing."""

    @property
    def diverged_seeds(self) -> int:
        """Seeds that diverged, a test loss that is not finite included."""


class DifferenceTest(Protocol):
    """What a test says of a mean difference candidate − baseline; without p where it can't say anything."""

    @property
    def mean(self) -> float:
        """The difference."""

    @property
    def low(self) -> float | None:
        """Lower end of its interval."""

    @property
    def high(self) -> float | None:
        """Upper end of its interval."""


@dataclass(frozen=True)
class Finding:
    """A candidate against the baseline, over the seeds that both finished; differences are candidate − baseline."""

    differences: Mapping[int, float]  # by repeat where there are several, else by seed
    test: PairedT | None
    p_holm: float | None
    outcome: Conclusion
    decided: bool  # further seeds are not needed


def judge(candidates: Sequence[Tested], baseline: Tested, level: Level, delta: float | None) -> list[Finding]:
    """The findings of a group, in the order of `candidates`; the correction is over all of them."""
    pairs = [differences(candidate, baseline) for candidate in candidates]
    tests = [paired(d, candidate, baseline, level) for d, candidate in zip(pairs, candidates, strict=True)]
    corrected = holm([test.p if test else None for test in tests])
    found = []
    for candidate, d, test, p in zip(candidates, pairs, tests, corrected, strict=True):
        outcome = conclude(candidate, baseline, test, p, level, delta)
        found.append(Finding(d, test, p, outcome, _decided(candidate, baseline, test, outcome, d)))
    return found


def conclude(
    candidate: Tested,
    baseline: Tested,
    test: DifferenceTest | None,
    p_holm: float | None,
    level: Level,
    delta: float | None,
) -> Conclusion:
    """What a test, paired or not, lets one say.

    A shown difference is called small where its interval lies inside ±δ.

    An arm with a diverged seed is called neither better nor equal, whichever side of the comparison it is on.

    What is compared are the seeds that both finished: they say nothing of how alike two arms are of which one diverges.
    """
    if test is None or p_holm is None:
        return Conclusion.UNTESTED
    small = within(test, delta) and not (candidate.diverged_seeds or baseline.diverged_seeds)
    if p_holm < level.alpha:
        winner = candidate if test.mean < 0 else baseline
        if winner.diverged_seeds:
            return Conclusion.UNTESTED
        if small:
            return Conclusion.SLIGHTLY_BETTER if winner is candidate else Conclusion.SLIGHTLY_WORSE
        return Conclusion.BETTER if winner is candidate else Conclusion.WORSE
    if small:
        return Conclusion.EQUAL
    return Conclusion.NO_DIFFERENCE


def within(test: DifferenceTest, delta: float | None) -> bool:
    """Whether the whole interval of the difference lies inside ±δ."""
    return (
        delta is not None and test.low is not None and test.high is not None and -delta < test.low <= test.high < delta
    )


def _decided(
    candidate: Tested, baseline: Tested, test: PairedT | None, outcome: Conclusion, values: Mapping[int, float]
) -> bool:
    """Whether further seeds can't change what may be said.

    What single seeds or skewed differences decide is looked at again.
    They can't where the lower loss is that of an arm with a diverged seed, which none makes better. A diverging arm
    that lies behind may still be shown to be worse, so that comparison goes on, also where only one seed is left of it.
    """
    if outcome.better or outcome.worse or outcome is Conclusion.EQUAL:
        return steady(values)
    if test is None or test.zero_variance:
        return True
    leader = candidate if test.mean < 0 else baseline
    return leader.diverged_seeds > 0


def in_common(candidate: Tested, baseline: Tested) -> tuple[dict[int, float], dict[int, float]]:
    """Test losses of the seeds that both finished."""
    ours, theirs = candidate.test_losses, baseline.test_losses
    both = [seed for seed in ours if seed in theirs]
    return {seed: ours[seed] for seed in both}, {seed: theirs[seed] for seed in both}


def differences(candidate: Tested, baseline: Tested) -> dict[int, float]:
    """Candidate − baseline over the seeds that both finished: by repeat where there are several, else by seed."""
    ours, theirs = map(independent, in_common(candidate, baseline))
    return {unit: ours[unit] - theirs[unit] for unit in ours}


def paired(found: Mapping[int, float], candidate: Tested, baseline: Tested, level: Level) -> PairedT | None:
    """The paired t test of their differences, over test samples too where their losses are known."""
    values = list(found.values())
    if not values:
        return None
    size = scale(candidate, baseline)
    return two_way(values, blocks_apart(candidate, baseline), level.confidence, scale=size)


def blocks_apart(candidate: Tested, baseline: Tested) -> Array | None:
    """Differences `[seeds or searches, parts of the test split]`; None where a seed's are unknown or few."""
    ours, theirs = candidate.test_blocks, baseline.test_blocks
    both = list(in_common(candidate, baseline)[0])
    sizes = {len(held.get(seed, ())) for held in (ours, theirs) for seed in both}
    if len(sizes) != 1 or min(sizes) < MIN_BLOCKS:
        return None
    apart = [{seed: ours[seed][block] - theirs[seed][block] for seed in both} for block in range(min(sizes))]
    return np.array([list(independent(held).values()) for held in apart]).T


def scale(*arms: Tested) -> float:
    """The largest loss, whose rounding differences have."""
    return max((abs(loss) for arm in arms for loss in arm.test_losses.values()), default=0.0)


def holm(p_values: Iterable[float | None]) -> list[float | None]:
    """Holm over the p values that exist; the others stay None."""
    p_values = list(p_values)
    adjusted = iter(statistics.holm([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]
