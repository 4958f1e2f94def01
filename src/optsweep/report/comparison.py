"""From trials to findings: arms are grouped by task, and in each group every arm is compared with the baseline.

Paired over searches or over the confirm seeds of one, on the test split, Holm-corrected within a group
(docs/statistics.md).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from optsweep.inference import groups, statistics
from optsweep.inference.comparison import (
    Conclusion,
    Finding,
    blocks_apart,
    differences,
    holm,
    in_common,
    judge,
    paired,
    scale,
)
from optsweep.inference.looks import AUTO, REPEAT_LOOKS, Level, num_seeds
from optsweep.inference.repeats import independent, repeats_of
from optsweep.inference.statistics import Interval, PairedT
from optsweep.report.arm_result import ArmResult, finished
from optsweep.report.styles import styles
from optsweep.report.tuned import as_tuned, not_worse
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import SweepRecord
from optsweep.train.trial import Phase

__all__ = ["Comparison", "Conclusion", "Group", "compare", "steps_ratios"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A candidate against the baseline, over the seeds that both finished; differences are candidate − baseline."""

    candidate: ArmResult
    baseline: ArmResult
    differences: Mapping[int, float]  # by repeat where there are several, else by seed
    means: tuple[float, float]  # of both, over what is compared; NaN if there is nothing
    seeds: tuple[int, ...]  # compared, by repeat
    test: PairedT | None
    val_test: PairedT | None  # of the validation losses at the last step
    p_holm: float | None
    decided: bool  # further seeds or searches are not needed
    sign_flip_p: float | None  # from 8 differences on
    bca: Interval | None  # from 20 differences on, as a description
    probability: Interval | None  # that a run of the candidate ends lower
    equal_p: float | None  # none where a seed diverged: the others can't show the arms to be equal
    delta: float | None
    outcome: Conclusion
    level: Level
    over_samples: bool  # whether interval and p are over test samples too
    steps_ratios: tuple[float, ...]  # candidate / baseline per seed, to the baseline's final validation loss

    @property
    def searches(self) -> int:
        """How many searches of both are compared."""
        return len(self.seeds)

    @property
    def at_chosen(self) -> bool:
        """Whether it holds for the settings of one search only, since tuning isn't in its variance."""
        return self.searches < 2 and self.baseline.sweep.planned(Phase.SEARCH) > 0

    @property
    def behind(self) -> ArmResult:
        """The arm that ends higher."""
        return self.baseline if self.test is not None and self.test.mean < 0 else self.candidate

    @property
    def steps_ratio(self) -> Interval | None:
        """Steps to target, candidate / baseline: geometric mean over seeds or searches, the median where one missed."""
        return statistics.ratio_interval(self.steps_ratios) if self.steps_ratios else None

    @property
    def steps_ratio_of(self) -> str:
        """What the ratio of steps is of the ratios."""
        return "geometric mean" if all(map(math.isfinite, self.steps_ratios)) else "median"

    @property
    def time_ratio(self) -> float | None:
        """ms per step, candidate / baseline."""
        return _ratio(self.candidate.ms_per_step, self.baseline.ms_per_step)

    @property
    def state_ratio(self) -> float | None:
        """Bytes of optimizer state, candidate / baseline."""
        return _ratio(self.candidate.state_bytes, self.baseline.state_bytes)

    @property
    def seconds_ratio(self) -> Interval | None:
        """Seconds to the target: ratio of steps × ratio of ms per step."""
        if self.steps_ratio is None or not self.time_ratio:
            return None
        return statistics.seconds_ratio(self.steps_ratio, self.time_ratio)


@dataclass(frozen=True, eq=False)
class Group:
    """Arms that may be compared: one sweep, one task, one setting of what isn't the optimizer's."""

    sweep: SweepRecord
    setting: Mapping[str, str]
    arms: tuple[ArmResult, ...]
    baseline: ArmResult
    comparisons: tuple[Comparison, ...]
    apart: tuple[tuple[ArmResult, ArmResult], ...]  # (lower, higher): pairs whose mean test losses are shown to differ
    lowest: tuple[ArmResult, ...]  # lowest mean test loss, then the arms not shown to differ from it
    level: Level

    @cached_property
    def by_result(self) -> tuple[ArmResult, ...]:
        """The arms by mean test loss, then those that diverged on some seeds, then those without one."""
        return tuple(sorted(self.arms, key=lambda arm: (bool(arm.diverged_seeds) or arm.test is None, _mean_test(arm))))

    @cached_property
    def comparisons_by_result(self) -> tuple[Comparison, ...]:
        """The comparisons in the order of their candidates."""
        return tuple(sorted(self.comparisons, key=lambda comparison: self.by_result.index(comparison.candidate)))

    @property
    def title(self) -> str:
        """The task, and the further axes that set this group apart."""
        task = self.setting.get("task", self.sweep.name)
        rest = [f"{key.rpartition('.')[2]} {value}" for key, value in self.setting.items() if key != "task"]
        return ", ".join([task, *rest])

    @property
    def stopped_at(self) -> int | None:
        """Searches or seeds at which auto ended; None while it goes on, and for a number fixed beforehand."""
        if not self.level.looks or any(arm.missing(Phase.CONFIRM) for arm in self.arms):
            return None
        return self.repeats if self.level.over_searches else self.arms[0].num_seeds

    @property
    def repeats(self) -> int:
        """Searches of every arm that the plan asks for; with sweep.repeats=auto by what is known so far."""
        return self.baseline.repeats

    @property
    def complete(self) -> int:
        """Repeats that every arm has run to the end."""
        return len(set(self.baseline.complete).intersection(*(arm.complete for arm in self.arms)))

    @property
    def tested(self) -> int:
        """Number of comparisons that the correction counts."""
        return sum(comparison.p_holm is not None for comparison in self.comparisons)


def compare(sweeps: Sequence[SweepRecord]) -> tuple[Group, ...]:
    """Group the arms of all sweeps and compare each with its group's baseline."""
    parted = [(groups.setting_axes(sweep.arms), groups.group(sweep.arms, sweep.plan.baseline)) for sweep in sweeps]
    numbers = styles(parted)
    found = []
    for sweep, (axes, of_sweep) in zip(sweeps, parted, strict=True):
        for peers in of_sweep:
            repeated = Counter(arm.label for arm in peers.arms)
            results = []
            for arm in peers.arms:
                style = numbers[groups.identity(arm, axes)]
                label = arm.label if repeated[arm.label] == 1 else arm.name
                clock = peers.baseline.timing.device if peers.baseline.timing else ""
                results.append(ArmResult(sweep, arm, label, style, timed_on=clock))
            found.append(_group(sweep, peers.setting, results, peers.arms.index(peers.baseline)))
    return tuple(found)


def _group(sweep: SweepRecord, setting: Mapping[str, str], results: Sequence[ArmResult], base: int) -> Group:
    level = Level.planned(sweep.plan.repeat_looks, sweep.looks)
    delta = sweep.plan.confirm.delta

    def findings(arms: Sequence[ArmResult]) -> list[Finding]:
        return judge([*arms[:base], *arms[base + 1 :]], arms[base], level, delta)

    wanted = _num_seeds(sweep, results, lambda: all(finding.decided for finding in findings(results)))
    arms = tuple(_of_all_repeats([replace(arm, num_seeds=wanted) for arm in results], findings))
    candidates = [*arms[:base], *arms[base + 1 :]]
    comparisons = [
        _comparison(arm, arms[base], finding, level, delta)
        for arm, finding in zip(candidates, findings(arms), strict=True)
    ]
    apart = _apart(arms, level)
    lowest = not_worse(_lowest(arms, apart), arms[base], comparisons)
    return Group(sweep, setting, arms, arms[base], tuple(comparisons), apart, lowest, level)


def _of_all_repeats(
    arms: Sequence[ArmResult], findings: Callable[[Sequence[ArmResult]], list[Finding]]
) -> list[ArmResult]:
    """The arms with as many searches as the planner would have them run by now."""
    plan = arms[0].sweep.plan
    begun = max((trial.repeat + 1 for arm in arms for trial in arm.arm.trials), default=1)
    if plan.repeats != AUTO:  # after auto there may be more than a fixed number asks for
        repeats = max(plan.repeats, begun) if plan.repeat_looks else plan.repeats
        return [replace(arm, repeats=repeats) for arm in arms]

    def of(look: int) -> list[ArmResult]:
        return [replace(arm, repeats=look) for arm in arms]

    look = num_seeds(
        AUTO,
        begun,
        lambda look: all(len(arm.complete) == look for arm in of(look)),
        lambda: all(finding.decided for finding in findings(of(begun))),
        REPEAT_LOOKS,
    )
    return of(look)


def _num_seeds(sweep: SweepRecord, arms: Sequence[ArmResult], decided: Callable[[], bool]) -> int:
    """What the planner would have the arms run by now; arms without a choice have nothing to confirm."""

    def complete(look: int) -> bool:
        return all(
            seed in arm.confirm and arm.confirm[seed].status is not Status.RUNNING
            for arm in arms
            if arm.confirm
            for seed in range(look)
        )

    if sweep.seeds != AUTO:
        return sweep.seeds
    most = max((max(arm.confirm, default=-1) + 1 for arm in arms), default=0)
    return num_seeds(AUTO, most, complete, decided, sweep.looks)


def _comparison(
    candidate: ArmResult, baseline: ArmResult, finding: Finding, level: Level, delta: float | None
) -> Comparison:
    values, size = list(finding.differences.values()), scale(candidate, baseline)
    both = in_common(candidate, baseline)
    ours, theirs = (list(independent(losses).values()) for losses in both)
    all_finished = not (candidate.diverged_seeds or baseline.diverged_seeds)
    return Comparison(
        candidate=candidate,
        baseline=baseline,
        differences=finding.differences,
        means=(float(np.mean(ours)), float(np.mean(theirs))) if ours else (math.nan, math.nan),
        seeds=tuple(map(len, repeats_of(both[0]).values())),
        test=finding.test,
        val_test=_on_validation(candidate, baseline, level),
        p_holm=finding.p_holm,
        decided=finding.decided,
        sign_flip_p=statistics.sign_flip(values) if len(values) >= 8 else None,
        bca=statistics.bca_interval(values, scale=size) if len(values) >= 20 else None,
        probability=statistics.probability_better(ours, theirs) if len(values) > 1 else None,
        equal_p=statistics.equivalence(values, delta, scale=size) if delta and values and all_finished else None,
        delta=delta,
        outcome=as_tuned(candidate, baseline, finding.outcome),
        level=level,
        over_samples=blocks_apart(candidate, baseline) is not None,
        steps_ratios=steps_ratios(candidate, baseline),
    )


def _on_validation(candidate: ArmResult, baseline: ArmResult, level: Level) -> PairedT | None:
    ours, theirs = independent(candidate.val_losses), independent(baseline.val_losses)
    found = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    size = max(map(abs, (*ours.values(), *theirs.values())), default=0.0)
    return statistics.paired_t(found, level.confidence, scale=size) if found else None


def steps_ratios(candidate: ArmResult, baseline: ArmResult) -> tuple[float, ...]:
    """Steps to the baseline's final validation loss, candidate / baseline, by seed or search; a miss is infinity."""
    found: dict[int, float] = {}
    for seed, trial in baseline.confirm.items():
        other = candidate.confirm.get(seed)
        reference = trial.curves.get(names.VAL_LOSS)
        if other is None or reference is None or not finished(trial) or len(reference.values) == 0:
            continue
        if other.status in (Status.RUNNING, Status.CRASHED) or names.VAL_LOSS not in other.curves:
            continue
        target, curve = float(reference.values[-1]), other.curves[names.VAL_LOSS]
        needed = statistics.steps_to_target(reference.steps, reference.values, target)
        reached = statistics.steps_to_target(curve.steps, curve.values, target)
        for ratio in statistics.ratios([reached if finished(other) else math.inf], [needed]):
            found[seed] = float(ratio)
    by_repeat = repeats_of(found)
    if len(by_repeat) < 2:
        return tuple(found.values())
    return tuple(statistics.median_interval(ratios).estimate for ratios in by_repeat.values())


def _lowest(arms: Sequence[ArmResult], apart: Sequence[tuple[ArmResult, ArmResult]]) -> tuple[ArmResult, ...]:
    """The arm of the lowest mean test loss, then those that can't be told from it.

    All pairs are corrected for, not only those with the lowest: which one that is was seen in the same data.
    Arms with a diverged seed are left out: the mean over the seeds that survived flatters them.
    """
    ranked = _ranked(arms)
    higher = {arm.name for lower, arm in apart if lower is ranked[0]}
    return tuple(arm for arm in ranked if arm.name not in higher)


def _apart(arms: Sequence[ArmResult], level: Level) -> tuple[tuple[ArmResult, ArmResult], ...]:
    """(lower, higher) of the pairs of arms that all-pairs Holm tests tell apart."""
    pairs = list(itertools.combinations(_ranked(arms), 2))
    tests = [paired(differences(higher, lower), higher, lower, level) for lower, higher in pairs]
    p_values = holm(test.p if test else None for test in tests)
    return tuple(pair for pair, p in zip(pairs, p_values, strict=True) if p is not None and p < level.alpha)


def _ranked(arms: Sequence[ArmResult]) -> list[ArmResult]:
    return sorted((arm for arm in arms if arm.test and not arm.diverged_seeds), key=_mean_test)


def _mean_test(arm: ArmResult) -> float:
    return arm.test.estimate if arm.test else math.inf


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None
