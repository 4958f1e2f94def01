"""Each arm against the one that it is held to: paired where seeds are shared, else by Welch's t or a z test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import fmean

from optsweep.inference import comparison as paired_runs
from optsweep.inference.comparison import Conclusion, conclude, holm
from optsweep.inference.looks import Level
from optsweep.inference.statistics import PairedT
from optsweep.inference.unpaired import UnpairedTest, pooled_sd, welch_t, z_test
from optsweep.report.judged.question import Question
from optsweep.report.judged.runs import Gathered, GivenRun, RunArm

LEVEL = Level.of(())
_TELLING_STEPS, _TELLING_DIGITS = 3, 7  # two runs don't agree in so many by chance


class Procedure(StrEnum):
    """How two arms are tested."""

    PAIRED = "paired t"
    WELCH = "Welch's t"
    Z = "z test, σ known,"


@dataclass(frozen=True, eq=False)
class RunComparison:
    """A candidate against its baseline. Losses are compared: of a score that is better higher, its negative."""

    candidate: RunArm
    baseline: RunArm
    method: Procedure
    differences: Mapping[str, float]  # by seed, where paired
    test: PairedT | UnpairedTest | None
    p_holm: float | None
    outcome: Conclusion
    means: tuple[float, float]  # losses, over what is compared

    @property
    def n(self) -> tuple[int, int]:
        """Runs compared."""
        if self.method is Procedure.PAIRED:
            return len(self.differences), len(self.differences)
        return self.candidate.count, self.baseline.count


@dataclass(frozen=True, eq=False)
class Judgement:
    """What runs say to a question."""

    question: Question
    gathered: Gathered
    comparisons: tuple[RunComparison, ...]
    sd: float | None  # of a run within its arm, pooled over the arms
    sd_df: int
    duplicates: tuple[str, ...]  # arms with runs of equal values to every digit

    @property
    def arms(self) -> tuple[RunArm, ...]:
        """With a run that counts, in order."""
        return self.gathered.arms

    @property
    def baseline(self) -> RunArm | None:
        """The one that all others are held against; None where each has its own."""
        return None if self.question.against_previous else self.comparisons[0].baseline

    @property
    def tested(self) -> int:
        """Number of comparisons that the correction counts."""
        return sum(found.p_holm is not None for found in self.comparisons)

    @property
    def confidence(self) -> float:
        """Of the intervals, which leave out 0 where a single test, one-sided or not, shows a difference."""
        return _confidence(self.question)

    @property
    def methods(self) -> tuple[Procedure, ...]:
        """Those that were used."""
        return tuple(method for method in Procedure if any(found.method is method for found in self.comparisons))


def judge(gathered: Gathered, question: Question) -> Judgement:
    """Test each arm against its baseline, Holm-corrected over all of them."""
    pairs = _pairs(gathered.arms, question)
    tested = [_tested(candidate, baseline, question) for candidate, baseline in pairs]
    corrected = holm(test.p if test else None for _, _, test in tested)
    found = []
    for (candidate, baseline), (method, differences, test), p in zip(pairs, tested, corrected, strict=True):
        outcome = conclude(candidate, baseline, test, p, LEVEL, question.delta)
        means = _means(candidate, baseline, method)
        found.append(RunComparison(candidate, baseline, method, differences, test, p, outcome, means))
    sd, df = _spread(gathered.arms)
    twice = tuple(arm.label for arm in gathered.arms if _has_duplicates(arm))
    return Judgement(question, gathered, tuple(found), sd, df, twice)


def _confidence(question: Question) -> float:
    return 1 - LEVEL.alpha * (2 if question.one_sided else 1)


def _pairs(arms: Sequence[RunArm], question: Question) -> list[tuple[RunArm, RunArm]]:
    if question.against_previous:
        return [(arms[i], arms[i - 1]) for i in range(1, len(arms))]
    baseline = next((arm for arm in arms if arm.label == question.baseline), arms[0])
    return [(arm, baseline) for arm in arms if arm is not baseline]


def _tested(
    candidate: RunArm, baseline: RunArm, question: Question
) -> tuple[Procedure, Mapping[str, float], PairedT | UnpairedTest | None]:
    both = (candidate, baseline)
    if question.sigma is not None:
        if not all(arm.test_losses for arm in both):
            return Procedure.Z, {}, None
        mean, n = candidate.mean - baseline.mean, (candidate.count, baseline.count)
        return Procedure.Z, {}, z_test(mean, n, question.sigma, _confidence(question), one_sided=question.one_sided)
    if not _shares_seeds(candidate, baseline, question):
        if not all(arm.test_losses for arm in both):
            return Procedure.WELCH, {}, None
        ours, theirs = (list(arm.test_losses.values()) for arm in both)
        return Procedure.WELCH, {}, welch_t(ours, theirs, _confidence(question), one_sided=question.one_sided)
    held = paired_runs.differences(candidate, baseline)
    test = paired_runs.paired(held, candidate, baseline, Level(1 - _confidence(question)))
    if test and test.p is not None and question.one_sided:
        test = replace(test, p=test.p / 2 if test.mean < 0 else 1 - test.p / 2)
    seeds = {run.index: run.seed for run in candidate.runs}
    return Procedure.PAIRED, {seeds[index]: value for index, value in held.items()}, test


def _shares_seeds(candidate: RunArm, baseline: RunArm, question: Question) -> bool:
    """Whether at least half of the seeds of the larger arm are in both; else pairing would drop more than it gains."""
    if question.seed is None or question.unpaired:
        return False
    ours, theirs = ({run.index for run in arm.runs} for arm in (candidate, baseline))
    return 2 * len(ours & theirs) >= max(len(ours), len(theirs))


def _means(candidate: RunArm, baseline: RunArm, method: Procedure) -> tuple[float, float]:
    if method is not Procedure.PAIRED:
        return candidate.mean, baseline.mean
    ours, theirs = (list(held.values()) for held in paired_runs.in_common(candidate, baseline))
    return (fmean(ours), fmean(theirs)) if ours else (math.nan, math.nan)


def _spread(arms: Sequence[RunArm]) -> tuple[float | None, int]:
    alone = [list(arm.test_losses.values()) for arm in arms if all(run.count == 1 for run in arm.runs)]
    return pooled_sd([values for values in alone if values])


def _has_duplicates(arm: RunArm) -> bool:
    """Whether two of its runs agree to every digit, at three common steps or more, or in a value of seven digits."""
    alike: dict[float, list[GivenRun]] = {}
    for run in arm.runs:
        if run.count == 1 and math.isfinite(run.end.value):
            alike.setdefault(run.end.value, []).append(run)
    return any(_agree(one, other) for runs in alike.values() for one, other in pairwise(runs))


def _agree(one: GivenRun, other: GivenRun) -> bool:
    ours, theirs = ({point.step: point.value for point in run.curve} for run in (one, other))
    common = ours.keys() & theirs.keys()
    if len(ours) == 1:
        digits = repr(one.end.value).replace(".", "").lstrip("-0")
        return ours == theirs and len(digits) >= _TELLING_DIGITS
    return len(common) >= _TELLING_STEPS and all(ours[step] == theirs[step] for step in common)
