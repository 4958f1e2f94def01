"""One task, one setting, runs of several lengths: how many steps of the baseline an arm's run is worth.

Every length has its own tuned LR and its own schedule, so nothing is read off within a run: a schedule that decays late
is judged at its ends only (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from scipy import stats

from optsweep.inference import statistics
from optsweep.inference.looks import Level
from optsweep.inference.loss_curve import MIN_SEEDS, LossCurve, SpeedUp, fit, speed_ups
from optsweep.inference.statistics import Array, Interval
from optsweep.report.across.arms import RUN_LENGTH_KEYS, num_steps, relabelled, rest, strictest, titled
from optsweep.report.across.frontier import OnFrontier, frontier
from optsweep.report.arm_result import ArmResult, measured
from optsweep.report.comparison import Group

FURTHEST = 4
"""The curve is read up to so many times beyond the baseline's run lengths; further out there is a bound instead."""


class Method(StrEnum):
    """Where the baseline's steps to a loss come from."""

    FITTED = "fitted"
    INTERPOLATED = "interpolated"


@dataclass(frozen=True)
class StepsRatio:
    """A run's steps over those that the baseline needs for its test loss: below 1 the arm is faster.

    `bound`: "<" where the baseline's longest run doesn't get there, ">" where its shortest is better already; of the
    fitted curve, where it would be read further than a factor of `FURTHEST` outside. n counts the seeds that both have.
    `extrapolated`: read off the fitted curve outside the lengths that it was fitted to.
    """

    num_steps: int
    ratio: Interval
    bound: str = ""
    extrapolated: bool = False

    @property
    def within(self) -> bool:
        """Whether the baseline's own run lengths enclose the answer."""
        return not self.bound and not self.extrapolated


@dataclass(frozen=True, eq=False)
class LengthArm:
    """An arm at all its run lengths."""

    runs: Mapping[int, ArmResult]  # by number of steps, ascending
    ratios: tuple[StepsRatio, ...]  # to the baseline, per length; none for the baseline itself
    overall: Interval | None  # geometric mean over the lengths within the fitted ones; n counts seeds
    method: Method | None

    @property
    def longest(self) -> ArmResult:
        """The run that stands for the arm: its style and label."""
        return self.runs[max(self.runs)]

    @property
    def label(self) -> str:
        """What the arm is called, without its length."""
        return self.longest.label


@dataclass(frozen=True, eq=False)
class RunLengths:
    """What several run lengths of one task and setting say."""

    title: str
    lengths: tuple[int, ...]
    arms: tuple[LengthArm, ...]  # the baseline first
    frontier: tuple[OnFrontier, ...]
    time_ratios: Mapping[int, float]  # by style: ms per step over the baseline's, geometric mean over lengths
    curve: LossCurve | None  # of the baseline's own seeds, where arms are held against a fitted curve
    level: Level  # the strictest of the groups
    notes: tuple[str, ...]

    @property
    def baseline(self) -> LengthArm:
        """What the others are held against."""
        return self.arms[0]

    @property
    def candidates(self) -> tuple[LengthArm, ...]:
        """All arms but the baseline."""
        return self.arms[1:]


def run_lengths(groups: Sequence[Group]) -> tuple[RunLengths, ...]:
    """Families of groups that differ in the length of their runs only."""
    families: dict[object, list[Group]] = {}
    for group in groups:
        if num_steps(group) is not None and any(arm.test_losses for arm in group.arms):
            families.setdefault(_family(group), []).append(group)
    found = [_run_lengths(members) for members in families.values()]
    return tuple(lengths for lengths in found if lengths is not None)


def _family(group: Group) -> tuple[object, ...]:
    """What has to be equal: the setting but for the length, and the facts that a sweep may set for all its arms."""
    facts = ("num_parameters", "batch_size", "data", "loss_unit", "decides", "precision")
    held = tuple(tuple(sorted({str(arm.arm.facts.get(key)) for arm in group.arms})) for key in facts)
    return (rest(group.setting, *RUN_LENGTH_KEYS), held)


def _run_lengths(groups: Sequence[Group]) -> RunLengths | None:
    by_length: dict[int, Group] = {}
    notes = []
    for group in groups:
        length = num_steps(group)
        assert length is not None
        if length in by_length:
            notes.append(f"{group.sweep.name}'s runs of {length:,} steps are left out: there were others before.")
        else:
            by_length[length] = group
    if len(by_length) < 2:
        return None
    lengths = sorted(by_length)
    ordered = [by_length[length] for length in lengths]
    members = dict(zip(lengths, relabelled(ordered, [group.arms for group in ordered]), strict=True))
    runs: dict[int, dict[int, ArmResult]] = {}
    for length, peers in members.items():
        for arm in peers:
            if arm.test_losses:
                runs.setdefault(arm.style, {})[length] = arm
    runs = {style: held for style, held in runs.items() if len(held) > 1}
    reference = by_length[lengths[-1]].baseline.style
    if reference not in runs:
        return None
    order = [reference, *(style for style in runs if style != reference)]
    group = by_length[lengths[-1]]
    level = strictest(ordered)
    arms = tuple(_arm(runs[style], runs[reference], level) for style in order)
    theirs = {length: float(np.mean(list(held.values()))) for length, held in _clean(runs[reference]).items()}
    fitted = any(arm.method is Method.FITTED for arm in arms) and min(theirs.values()) >= 0
    return RunLengths(
        title=titled(group.setting.get("task", group.sweep.name), rest(group.setting, "task", *RUN_LENGTH_KEYS)),
        lengths=tuple(lengths),
        arms=arms,
        frontier=frontier([runs[style] for style in order], runs[reference], level),
        time_ratios=_time_ratios(runs, reference),
        curve=fit(list(theirs), list(theirs.values())) if fitted else None,
        level=level,
        notes=(*notes, *_notes([runs[style] for style in order])),
    )


def _notes(arms: Sequence[Mapping[int, ArmResult]]) -> list[str]:
    edges, lost = [], []
    for runs in arms:
        where = [f"{length:,}" for length, run in runs.items() if any(key == "lr" for key, _ in run.unbracketed)]
        if where:
            edges.append(f"{next(iter(runs.values())).label} at {', '.join(where)}")
        where = [f"{length:,}" for length, run in runs.items() if run.diverged_seeds]
        if where:
            lost.append(f"{next(iter(runs.values())).label} at {', '.join(where)}")
    found = []
    if edges:
        measure = measured(run for runs in arms for run in runs.values())
        found.append(f"LR not bracketed, so the {measure} may be lower than shown: {'; '.join(edges)} steps.")
    if lost:
        found.append(f"Left out of the speed-up, because seeds diverged: {'; '.join(lost)} steps.")
    return found


# -- steps of the baseline -----------------------------------------------------------------------------------------


def _arm(runs: Mapping[int, ArmResult], baseline: Mapping[int, ArmResult], level: Level) -> LengthArm:
    ours, theirs = _clean(runs), _clean(baseline)
    if runs is baseline or not ours or len(theirs) < 2:
        return LengthArm(runs, (), None, None)
    fitted = _fitted(runs, ours, theirs, level.confidence)
    return fitted or LengthArm(runs, interpolated(ours, theirs, level.confidence), None, Method.INTERPOLATED)


def _fitted(
    runs: Mapping[int, ArmResult],
    ours: Mapping[int, Mapping[int, float]],
    theirs: Mapping[int, Mapping[int, float]],
    confidence: float,
) -> LengthArm | None:
    """By the baseline's fitted curve; None where there is none: too few lengths, or losses that don't fall."""
    seeds = sorted(set.intersection(*(set(held) for held in (*ours.values(), *theirs.values()))))
    candidate, baseline = (np.array([[held[s] for held in of.values()] for s in seeds]) for of in (ours, theirs))
    if not seeds or min(candidate.min(), baseline.min()) < 0:  # the fit's floor is that of a cross-entropy
        return None
    lengths, places = list(theirs), list(ours)
    found = speed_ups(lengths, baseline, candidate, candidate_lengths=places, confidence=confidence)
    if found is None:
        return None
    ratios = tuple(_inverted(speed_up, lengths) for speed_up in found)
    inside = [place for place, ratio in enumerate(ratios) if ratio.within]
    overall = _overall(lengths, baseline, [places[place] for place in inside], candidate[:, inside], confidence)
    return LengthArm(runs, ratios, overall, Method.FITTED)


def _inverted(found: SpeedUp, lengths: Sequence[int]) -> StepsRatio:
    """A speed-up of 2 is half of the steps; what lies far beyond the run lengths is bounded by the nearest one."""
    if found.baseline_steps > FURTHEST * max(lengths):
        return StepsRatio(found.steps, Interval(found.steps / max(lengths), None, None, found.ratio.n), "<")
    if found.baseline_steps < min(lengths) / FURTHEST:
        return StepsRatio(found.steps, Interval(found.steps / min(lengths), None, None, found.ratio.n), ">")
    low, high = found.ratio.low, found.ratio.high
    if low is None or high is None or low <= 0:
        ratio = Interval(1 / found.ratio.estimate, None, None, found.ratio.n)
    else:
        ratio = Interval(1 / found.ratio.estimate, 1 / high, 1 / low, found.ratio.n)
    return StepsRatio(found.steps, ratio, extrapolated=found.extrapolated)


def _overall(
    lengths: Sequence[int], baseline: Array, places: Sequence[int], candidate: Array, confidence: float
) -> Interval | None:
    """Geometric mean of the ratios, with its interval."""
    return _jackknife(
        lambda kept: _log_ratio(lengths, baseline[kept], places, candidate[kept]), len(baseline), confidence
    )


def _jackknife(log_ratio: Callable[[Any], float | None], n: int, confidence: float) -> Interval | None:
    """A ratio of all `n` seeds; t interval of its logarithm by the jackknife over seeds (Miller 1974).

    `log_ratio` takes a mask of the seeds; None of it for all seeds is no ratio, for all but one no interval.
    """
    estimate = log_ratio(np.ones(n, dtype=bool))
    if estimate is None:
        return None
    none = Interval(math.exp(estimate), None, None, n)
    if n < MIN_SEEDS:
        return none
    without = [log_ratio(np.arange(n) != seed) for seed in range(n)]
    known = np.array([value for value in without if value is not None])
    if len(known) < n or np.ptp(known) <= 1e-12:
        return none
    error = math.sqrt((n - 1) / n * float(((known - known.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return Interval(math.exp(estimate), math.exp(estimate - half), math.exp(estimate + half), n)


def _log_ratio(lengths: Sequence[int], baseline: Array, places: Sequence[int], candidate: Array) -> float | None:
    curve = fit(lengths, baseline.mean(0))
    if curve is None or not places:
        return None
    needed = [curve.steps(float(loss)) for loss in candidate.mean(0)]
    logs = [math.log(steps / at) for steps, at in zip(places, needed, strict=True) if 0 < at < math.inf]
    return sum(logs) / len(logs) if len(logs) == len(places) else None


def _clean(runs: Mapping[int, ArmResult]) -> dict[int, Mapping[int, float]]:
    """Test losses by repeat or seed, by length; without lengths at which a seed diverged, whose mean would flatter."""
    return {length: run.losses for length, run in runs.items() if not run.diverged_seeds}


def interpolated(
    runs: Mapping[int, Mapping[int, float]],
    baseline: Mapping[int, Mapping[int, float]],
    confidence: float = statistics.CONFIDENCE,
) -> tuple[StepsRatio, ...]:
    """Steps over the baseline's for the same mean test loss, of `{length: {seed: loss}}`, within its lengths only.

    All of it over the seeds that the run and every length of the baseline have. No interval where leaving a seed out
    leaves the baseline's lengths.
    """
    lengths = list(baseline)
    found = []
    for length, losses in runs.items():
        seeds = sorted(set(losses).intersection(*(set(held) for held in baseline.values())))
        if not seeds:
            continue
        ours = np.array([losses[s] for s in seeds])
        theirs = np.array([[held[s] for held in baseline.values()] for s in seeds])
        needed, bound = steps_needed(lengths, theirs.mean(0).tolist(), float(ours.mean()))

        def log_ratio(kept: Any, length: int = length, ours: Array = ours, theirs: Array = theirs) -> float | None:
            needed, bound = steps_needed(lengths, theirs[kept].mean(0).tolist(), float(ours[kept].mean()))
            return None if bound else math.log(length / needed)

        ratio = _jackknife(log_ratio, len(seeds), confidence)
        found.append(StepsRatio(length, ratio or Interval(length / needed, None, None, len(seeds)), bound))
    return tuple(found)


def steps_needed(lengths: Sequence[int], losses: Sequence[float], loss: float) -> tuple[float, str]:
    """Fewest steps at which a curve through `losses`, linear in the log of the steps, is down to `loss`.

    With it "<" if the curve never gets there (the ratio is below what the longest run gives), ">" if it starts lower.
    """
    if loss > losses[0]:
        return float(lengths[0]), ">"
    if loss == losses[0]:
        return float(lengths[0]), ""
    for place in range(1, len(lengths)):
        before, after = losses[place - 1], losses[place]
        if after <= loss:
            share = (before - loss) / (before - after)
            return math.exp((1 - share) * math.log(lengths[place - 1]) + share * math.log(lengths[place])), ""
    return float(lengths[-1]), "<"


def _time_ratios(runs: Mapping[int, Mapping[int, ArmResult]], baseline: int) -> dict[int, float]:
    found = {}
    for style, held in runs.items():
        logs = []
        for length, run in held.items():
            other = runs[baseline].get(length)
            if run.ms_per_step and other is not None and other.ms_per_step:
                logs.append(math.log(run.ms_per_step / other.ms_per_step))
        if logs:
            found[style] = math.exp(sum(logs) / len(logs))
    return found
