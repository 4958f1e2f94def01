"""From trials to findings: arms are grouped by task, and in each group every arm is compared with the baseline.

Paired over confirm seeds, on the test split, Holm-corrected within a group (method.md's verdict, docs/statistics.md).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from optsweep import tracking_names as names
from optsweep.report import statistics
from optsweep.report.load import LEARNING_RATE, Arm, Sweep, Trial
from optsweep.report.statistics import Basin, Interval, PairedT
from optsweep.tracking_names import Phase, Status

ALPHA = 1 - statistics.CONFIDENCE
BASIN_TOLERANCE = 0.05  # of the best loss


class Outcome(StrEnum):
    """What can be said about a candidate against its baseline."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal within delta"
    NO_DIFFERENCE = "no difference shown"
    UNTESTED = "not tested"  # too few seeds, no variance, or a diverged seed stands in the way


@dataclass(frozen=True, eq=False)
class ArmResult:
    """An arm with what its trials amount to."""

    sweep: Sweep
    arm: Arm
    label: str  # unique within its group
    style: int  # same number, same colour, in every figure

    @property
    def name(self) -> str:
        """The arm's name, unique in its sweep."""
        return self.arm.name

    @cached_property
    def confirm(self) -> Mapping[int, Trial]:
        """Confirm trials by seed index."""
        return {trial.seed: trial for trial in self.arm.of(Phase.CONFIRM)}

    @cached_property
    def test_losses(self) -> Mapping[int, float]:
        """Test loss by seed, of the confirm trials that finished with a finite one."""
        found = {seed: trial.metric(names.TEST_LOSS) for seed, trial in self.confirm.items() if _finished(trial)}
        return {seed: loss for seed, loss in sorted(found.items()) if loss is not None and math.isfinite(loss)}

    @property
    def test(self) -> Interval | None:
        """Mean test loss with its t interval over seeds."""
        return _mean(self.test_losses.values())

    @property
    def metric_name(self) -> str:
        """The task's metric."""
        return str(self.arm.facts.get("metric", ""))

    @property
    def unit(self) -> str:
        """Unit of the loss."""
        return str(self.arm.facts.get("loss_unit", ""))

    @property
    def metric(self) -> Interval | None:
        """Mean of the task's metric on the test split."""
        key = names.test_metric(self.metric_name)
        return _mean(trial.metric(key) for trial in self.confirm.values() if _finished(trial))

    @property
    def val(self) -> Interval | None:
        """Mean validation loss at the last step of the confirm trials."""
        return _mean(trial.metric(names.VAL_LOSS) for trial in self.confirm.values() if _finished(trial))

    def count(self, phase: Phase, status: Status) -> int:
        """Trials of a phase that ended so."""
        return self._counts[phase, status]

    @cached_property
    def _counts(self) -> Counter[tuple[Phase, Status]]:
        return Counter((trial.phase, trial.status) for trial in self.arm.trials)

    @property
    def diverged_seeds(self) -> int:
        """Confirm trials that diverged, a test loss that is not finite included."""
        lost = [
            t for t in self.confirm.values() if _finished(t) and not math.isfinite(t.metrics.get(names.TEST_LOSS, 0.0))
        ]
        return self.count(Phase.CONFIRM, Status.DIVERGED) + len(lost)

    @property
    def unbracketed(self) -> tuple[tuple[str, str], ...]:
        """(hyperparameter, side) where no worse or diverging value was tried beyond the chosen one."""
        chosen = self.arm.chosen
        if chosen is None:
            return ()
        return tuple((key, side) for key, sides in chosen.bracketed.items() for side, held in sides.items() if not held)

    def setting(self, key: str) -> float | None:
        """The chosen, else fixed, value of a hyperparameter."""
        if self.arm.chosen and key in self.arm.chosen.params:
            return self.arm.chosen.params[key]
        if isinstance(fixed := self.arm.fixed.get(key), (int, float)):
            return float(fixed)
        values = {trial.number(key) for trial in self.confirm.values()}
        return values.pop() if len(values) == 1 else None

    @property
    def ms_per_step(self) -> float | None:
        """Median milliseconds per step of the timing pass; trials that share a machine are no substitute."""
        return self.arm.timing.ms_per_step if self.arm.timing else None

    @cached_property
    def state_bytes(self) -> float | None:
        """Bytes of optimizer state of one trial."""
        known = [trial.state_bytes for trial in self.arm.trials if trial.state_bytes is not None]
        return float(np.median(known)) if known else None

    @property
    def num_steps(self) -> int | None:
        """Optimizer steps of one trial."""
        value = self.arm.facts.get("num_steps")
        return int(value) if value is not None else None

    @property
    def run_seconds(self) -> float | None:
        """Seconds of one trial: steps × the timing pass's ms per step."""
        return None if self.ms_per_step is None or not self.num_steps else self.num_steps * self.ms_per_step / 1e3

    @property
    def basin(self) -> Basin | None:
        """Width of the LR region with a validation loss within 5 % of the best, from the space-filling points."""
        points = []
        for trial in self.arm.of(Phase.SEARCH):
            lr, loss = trial.number(LEARNING_RATE), trial.metric(names.VAL_LOSS)
            if trial.origin == "quasi-random" and lr is not None and lr > 0:
                if trial.status is Status.DIVERGED:
                    points.append((lr, math.inf))
                elif trial.status is Status.FINISHED and loss is not None:
                    points.append((lr, loss))
        finite = [loss for _, loss in points if math.isfinite(loss)]
        if not finite:
            return None
        lrs, losses = zip(*points, strict=True)
        return statistics.basin(lrs, losses, BASIN_TOLERANCE * abs(min(finite)))

    def missing(self, phase: Phase) -> int:
        """Planned trials of a phase without a result."""
        done = sum(
            count for (of, status), count in self._counts.items() if of is phase and status is not Status.RUNNING
        )
        return max(self.sweep.planned(phase) - done, 0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A candidate against the baseline, over the seeds that both finished; differences are candidate − baseline."""

    candidate: ArmResult
    baseline: ArmResult
    differences: Mapping[int, float]
    test: PairedT | None
    p_holm: float | None
    sign_flip_p: float | None  # from 8 seeds on
    bca: Interval | None  # from 20 seeds on, as a description
    probability: Interval | None  # that a run of the candidate ends lower
    equal_p: float | None
    delta: float | None
    steps_ratios: tuple[float, ...]  # candidate / baseline per seed, to the baseline's final validation loss

    @property
    def steps_ratio(self) -> Interval | None:
        """Median over seeds of the steps to target, candidate / baseline."""
        return statistics.median_interval(self.steps_ratios) if self.steps_ratios else None

    @property
    def time_ratio(self) -> float | None:
        """ms per step, candidate / baseline."""
        return _ratio(self.candidate.ms_per_step, self.baseline.ms_per_step)

    @property
    def state_ratio(self) -> float | None:
        """Bytes of optimizer state, candidate / baseline."""
        return _ratio(self.candidate.state_bytes, self.baseline.state_bytes)

    @property
    def seconds_ratio(self) -> float | None:
        """Seconds to the target: median ratio of steps × ratio of ms per step."""
        if self.steps_ratio is None or self.time_ratio is None:
            return None
        return self.steps_ratio.estimate * self.time_ratio

    @property
    def within_delta(self) -> bool:
        """Whether the 95 % interval of the difference lies inside ±δ; `equal_p` is of the 90 % one."""
        if self.delta is None or self.test is None or self.test.low is None or self.test.high is None:
            return False
        return -self.delta < self.test.low and self.test.high < self.delta

    @property
    def outcome(self) -> Outcome:
        """An arm with a diverged seed can't be called better, whichever side of the comparison it is on."""
        if self.test is None or self.test.p is None or self.p_holm is None:
            return Outcome.UNTESTED
        if self.p_holm < ALPHA:
            winner = self.candidate if self.test.mean < 0 else self.baseline
            if winner.diverged_seeds:
                return Outcome.UNTESTED
            return Outcome.BETTER if winner is self.candidate else Outcome.WORSE
        if self.within_delta:
            return Outcome.EQUAL
        return Outcome.NO_DIFFERENCE


@dataclass(frozen=True, eq=False)
class Group:
    """Arms that may be compared: one sweep, one task, one setting of what isn't the optimizer's."""

    sweep: Sweep
    setting: Mapping[str, str]
    arms: tuple[ArmResult, ...]
    baseline: ArmResult
    comparisons: tuple[Comparison, ...]
    lowest: tuple[ArmResult, ...]  # lowest mean test loss, then the arms not shown to differ from it

    @property
    def title(self) -> str:
        """The task, and the further axes that set this group apart."""
        task = self.setting.get("task", self.sweep.name)
        rest = [f"{key.rpartition('.')[2]} {value}" for key, value in self.setting.items() if key != "task"]
        return ", ".join([task, *rest])

    @property
    def tested(self) -> int:
        """Number of comparisons that the correction counts."""
        return sum(comparison.p_holm is not None for comparison in self.comparisons)


def compare(sweeps: Sequence[Sweep]) -> tuple[Group, ...]:
    """Group the arms of all sweeps and compare each with its group's baseline."""
    styles: dict[tuple[tuple[str, str], ...], int] = {}
    groups = []
    for sweep in sweeps:
        axes = _setting_axes(sweep.arms)
        members: dict[tuple[tuple[str, str], ...], list[Arm]] = {}
        for arm in sweep.arms:
            members.setdefault(tuple((key, arm.choices.get(key, "")) for key in axes), []).append(arm)
        for setting, arms in members.items():
            repeated = Counter(arm.label for arm in arms)
            results = []
            for arm in arms:
                style = styles.setdefault(_identity(arm, axes), len(styles))
                results.append(ArmResult(sweep, arm, arm.label if repeated[arm.label] == 1 else arm.name, style))
            groups.append(_group(sweep, dict(setting), results, axes))
    return tuple(groups)


def _setting_axes(arms: Sequence[Arm]) -> tuple[str, ...]:
    """Choices that define what is compared rather than who: the task always, task.* and trainer.* if arms remain."""
    keys = sorted({key for arm in arms for key in arm.choices if key.startswith(("task.", "trainer."))})
    varied = [key for key in keys if len({arm.choices.get(key) for arm in arms}) > 1]
    axes = ("task", *varied)
    sizes = Counter(tuple(arm.choices.get(key) for key in axes) for arm in arms)
    return axes if varied and max(sizes.values()) > 1 else ("task",)


def _identity(arm: Arm, axes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """What makes it the same arm in another task or sweep; an arm without choices is itself only."""
    choices = tuple(sorted((key, value) for key, value in arm.choices.items() if key not in axes))
    return choices or (("arm", arm.name),)


def _group(sweep: Sweep, setting: Mapping[str, str], arms: Sequence[ArmResult], axes: Sequence[str]) -> Group:
    baseline = _baseline(sweep, arms, axes)
    candidates = [arm for arm in arms if arm is not baseline]
    delta = sweep.plan.get("confirm", {}).get("delta")
    tests = [_differences(arm, baseline) for arm in candidates]
    p_values = _holm([_paired_p(arm, baseline, d) for arm, d in zip(candidates, tests, strict=True)])
    comparisons = [
        _comparison(arm, baseline, differences, p, None if delta is None else float(delta))
        for arm, differences, p in zip(candidates, tests, p_values, strict=True)
    ]
    return Group(sweep, setting, tuple(arms), baseline, tuple(comparisons), _lowest(arms))


def _baseline(sweep: Sweep, arms: Sequence[ArmResult], axes: Sequence[str]) -> ArmResult:
    """The plan's baseline; in the other groups the arm that equals it but for the group's setting."""
    named = next((arm for arm in sweep.arms if arm.name == sweep.plan.get("baseline")), None)
    if named is not None:
        for arm in arms:
            if arm.name == named.name or _identity(arm.arm, axes) == _identity(named, axes):
                return arm
    return arms[0]


def _differences(candidate: ArmResult, baseline: ArmResult) -> dict[int, float]:
    ours, theirs = candidate.test_losses, baseline.test_losses
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def _scale(*arms: ArmResult) -> float:
    """The largest loss, whose rounding differences have."""
    return max((abs(loss) for arm in arms for loss in arm.test_losses.values()), default=0.0)


def _paired_p(candidate: ArmResult, baseline: ArmResult, differences: Mapping[int, float]) -> float | None:
    values = list(differences.values())
    return statistics.paired_t(values, scale=_scale(candidate, baseline)).p if values else None


def _comparison(
    candidate: ArmResult,
    baseline: ArmResult,
    differences: Mapping[int, float],
    p_holm: float | None,
    delta: float | None,
) -> Comparison:
    values, scale = list(differences.values()), _scale(candidate, baseline)
    ours, theirs = ([arm.test_losses[seed] for seed in differences] for arm in (candidate, baseline))
    return Comparison(
        candidate=candidate,
        baseline=baseline,
        differences=differences,
        test=statistics.paired_t(values, scale=scale) if values else None,
        p_holm=p_holm,
        sign_flip_p=statistics.sign_flip(values) if len(values) >= 8 else None,
        bca=statistics.bca_interval(values, scale=scale) if len(values) >= 20 else None,
        probability=statistics.probability_better(ours, theirs) if len(values) > 1 else None,
        equal_p=statistics.equivalence(values, delta, scale=scale) if delta and values else None,
        delta=delta,
        steps_ratios=steps_ratios(candidate, baseline),
    )


def steps_ratios(candidate: ArmResult, baseline: ArmResult) -> tuple[float, ...]:
    """Steps to the baseline's final validation loss, candidate / baseline, per seed; a miss is infinity."""
    over, under = [], []
    for seed, trial in baseline.confirm.items():
        other = candidate.confirm.get(seed)
        reference = trial.curves.get(names.VAL_LOSS)
        if other is None or reference is None or not _finished(trial) or len(reference.values) == 0:
            continue
        if other.status in (Status.RUNNING, Status.CRASHED) or names.VAL_LOSS not in other.curves:
            continue
        target, curve = float(reference.values[-1]), other.curves[names.VAL_LOSS]
        under.append(statistics.steps_to_target(reference.steps, reference.values, target))
        reached = statistics.steps_to_target(curve.steps, curve.values, target)
        over.append(reached if _finished(other) else math.inf)
    return tuple(float(ratio) for ratio in statistics.ratios(over, under))


def _lowest(arms: Sequence[ArmResult]) -> tuple[ArmResult, ...]:
    """The arm of the lowest mean test loss, then those that all-pairs Holm tests can't tell from it.

    All pairs are corrected for, not only those with the lowest: which one that is was seen in the same data.
    Arms with a diverged seed are left out: the mean over the seeds that survived flatters them.
    """
    ranked = sorted((arm for arm in arms if arm.test and not arm.diverged_seeds), key=_mean_test)
    if not ranked:
        return ()
    pairs = list(itertools.combinations(range(len(ranked)), 2))
    differences = [_differences(ranked[j], ranked[i]) for i, j in pairs]
    p_values = _holm([_paired_p(ranked[j], ranked[i], d) for (i, j), d in zip(pairs, differences, strict=True)])
    tied = [ranked[j] for (i, j), p in zip(pairs, p_values, strict=True) if i == 0 and (p is None or p >= ALPHA)]
    return (ranked[0], *tied)


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm over the p values that exist; the others stay None."""
    adjusted = iter(statistics.holm([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]


def _mean_test(arm: ArmResult) -> float:
    return arm.test.estimate if arm.test else math.inf


def _finished(trial: Trial) -> bool:
    return trial.status is Status.FINISHED


def _mean(values: Iterable[float | None]) -> Interval | None:
    found = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.mean_interval(found) if found else None


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None
