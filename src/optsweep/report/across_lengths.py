"""One task, one setting, runs of several lengths: how many steps of the baseline an arm's run is worth.

Every length has its own tuned LR and its own schedule, so nothing is read off within a run: a schedule that decays late
is judged at its ends only (method.md's verdict).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from optsweep import tracking_names as names
from optsweep.report import statistics
from optsweep.report.across_arms import RUN_LENGTH_KEYS, is_averaged, num_steps, relabelled, rest, titled
from optsweep.report.comparison import ArmResult, Group
from optsweep.report.run_lengths import MIN_SEEDS, LossCurve, SpeedUp, fit, speed_ups
from optsweep.report.statistics import Array, Interval, PairedT
from optsweep.tracking_names import Status

ALPHA = 1 - statistics.CONFIDENCE
_LEAST_SEEDS = 5  # for a bootstrap interval
_RESAMPLES = 2_000
_RNG_SEED = 20240525


class Method(StrEnum):
    """Where the baseline's steps to a loss come from."""

    FITTED = "fitted"
    INTERPOLATED = "interpolated"


@dataclass(frozen=True)
class StepsRatio:
    """A run's steps over those that the baseline needs for its test loss: below 1 the arm is faster.

    `bound`: "<" where the baseline's longest run doesn't get there, ">" where its shortest is better already.
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
    curve: LossCurve | None = None  # the baseline's

    @property
    def longest(self) -> ArmResult:
        """The run that stands for the arm: its style and label."""
        return self.runs[max(self.runs)]

    @property
    def label(self) -> str:
        """What the arm is called, without its length."""
        return self.longest.label


@dataclass(frozen=True, eq=False)
class OnFrontier:
    """The validation loss of an averaging arm's longest run where the baseline's shorter runs end, minus theirs."""

    arm: ArmResult
    num_steps: tuple[int, ...]
    differences: tuple[PairedT, ...]
    p_holm: tuple[float | None, ...]  # over the lengths

    @property
    def counts(self) -> tuple[int, int, int]:
        """Lengths at which the run is below the frontier, above it, and not shown to differ."""
        shown = [d.mean for d, p in zip(self.differences, self.p_holm, strict=True) if p is not None and p < ALPHA]
        below = sum(mean < 0 for mean in shown)
        return below, len(shown) - below, len(self.differences) - len(shown)


@dataclass(frozen=True, eq=False)
class RunLengths:
    """What several run lengths of one task and setting say."""

    title: str
    lengths: tuple[int, ...]
    arms: tuple[LengthArm, ...]  # the baseline first
    frontier: tuple[OnFrontier, ...]
    time_ratios: Mapping[int, float]  # by style: ms per step over the baseline's, geometric mean over lengths
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
    facts = ("num_parameters", "batch_size", "data", "loss_unit", "precision")
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
    for length, arms in members.items():
        for arm in arms:
            if arm.test_losses:
                runs.setdefault(arm.style, {})[length] = arm
    runs = {style: held for style, held in runs.items() if len(held) > 1}
    reference = by_length[lengths[-1]].baseline.style
    if reference not in runs:
        return None
    order = [reference, *(style for style in runs if style != reference)]
    group = by_length[lengths[-1]]
    return RunLengths(
        title=titled(group.setting.get("task", group.sweep.name), rest(group.setting, "task", *RUN_LENGTH_KEYS)),
        lengths=tuple(lengths),
        arms=tuple(_arm(runs[style], runs[reference]) for style in order),
        frontier=_frontier([runs[style] for style in order], runs[reference]),
        time_ratios=_time_ratios(runs, reference),
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
        found.append(f"LR not bracketed, so the loss may be lower than shown: {'; '.join(edges)} steps.")
    if lost:
        found.append(f"Left out of the speed-up, because seeds diverged: {'; '.join(lost)} steps.")
    return found


# -- steps of the baseline -----------------------------------------------------------------------------------------


def _arm(runs: Mapping[int, ArmResult], baseline: Mapping[int, ArmResult]) -> LengthArm:
    ours, theirs = _clean(runs), _clean(baseline)
    if runs is baseline or not ours or len(theirs) < 2:
        return LengthArm(runs, (), None, None)
    return _fitted(runs, ours, theirs) or LengthArm(runs, interpolated(ours, theirs), None, Method.INTERPOLATED)


def _fitted(
    runs: Mapping[int, ArmResult],
    ours: Mapping[int, Mapping[int, float]],
    theirs: Mapping[int, Mapping[int, float]],
) -> LengthArm | None:
    """By the baseline's fitted curve; None where there is none: too few lengths, or losses that don't fall."""
    seeds = sorted(set.intersection(*(set(held) for held in (*ours.values(), *theirs.values()))))
    candidate, baseline = (np.array([[held[s] for held in of.values()] for s in seeds]) for of in (ours, theirs))
    if not seeds or min(candidate.min(), baseline.min()) < 0:  # the fit's floor is that of a cross-entropy
        return None
    lengths, places = list(theirs), list(ours)
    found = speed_ups(lengths, baseline, candidate, candidate_lengths=places)
    curve = fit(lengths, baseline.mean(0))
    if found is None or curve is None:
        return None
    ratios = tuple(_inverted(speed_up, lengths) for speed_up in found)
    inside = [place for place, ratio in enumerate(ratios) if ratio.within]
    overall = _overall(lengths, baseline, [places[place] for place in inside], candidate[:, inside])
    return LengthArm(runs, ratios, overall, Method.FITTED, curve)


def _inverted(found: SpeedUp, lengths: Sequence[int]) -> StepsRatio:
    """A speed-up of 2 is half of the steps; what the curve never reaches is bounded by the longest run."""
    if not math.isfinite(found.ratio.estimate):
        return StepsRatio(found.steps, Interval(found.steps / max(lengths), None, None, found.ratio.n), "<")
    low, high = found.ratio.low, found.ratio.high
    if low is None or high is None or low <= 0:
        ratio = Interval(1 / found.ratio.estimate, None, None, found.ratio.n)
    else:
        ratio = Interval(1 / found.ratio.estimate, 1 / high, 1 / low, found.ratio.n)
    return StepsRatio(found.steps, ratio, extrapolated=found.extrapolated)


def _overall(lengths: Sequence[int], baseline: Array, places: Sequence[int], candidate: Array) -> Interval | None:
    """Geometric mean of the ratios; t interval of its logarithm by the jackknife over seeds (Miller 1974)."""
    n = len(baseline)
    estimate = _log_ratio(lengths, baseline, places, candidate)
    if not places or estimate is None:
        return None
    none = Interval(math.exp(estimate), None, None, n)
    if n < MIN_SEEDS:
        return none
    left = [np.arange(n) != seed for seed in range(n)]
    without = [_log_ratio(lengths, baseline[kept], places, candidate[kept]) for kept in left]
    known = np.array([value for value in without if value is not None])
    if len(known) < n or np.ptp(known) <= 1e-12:
        return none
    error = math.sqrt((n - 1) / n * float(((known - known.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + statistics.CONFIDENCE) / 2, n - 1)) * error
    return Interval(math.exp(estimate), math.exp(estimate - half), math.exp(estimate + half), n)


def _log_ratio(lengths: Sequence[int], baseline: Array, places: Sequence[int], candidate: Array) -> float | None:
    curve = fit(lengths, baseline.mean(0))
    if curve is None or not places:
        return None
    needed = [curve.steps(float(loss)) for loss in candidate.mean(0)]
    logs = [math.log(steps / at) for steps, at in zip(places, needed, strict=True) if math.isfinite(at)]
    return sum(logs) / len(logs) if len(logs) == len(places) else None


def _clean(runs: Mapping[int, ArmResult]) -> dict[int, Mapping[int, float]]:
    """Test losses by seed, by length; without lengths at which a seed diverged, whose mean would flatter."""
    return {length: run.test_losses for length, run in runs.items() if not run.diverged_seeds}


def interpolated(
    runs: Mapping[int, Mapping[int, float]], baseline: Mapping[int, Mapping[int, float]]
) -> tuple[StepsRatio, ...]:
    """Steps over the baseline's for the same mean test loss, of `{length: {seed: loss}}`, within its lengths only.

    The interval is a percentile bootstrap over seeds, drawn whole; from 5 seeds on, and where no end is out of range.
    """
    lengths = list(baseline)
    means = [float(np.mean(list(held.values()))) for held in baseline.values()]
    found = []
    for length, losses in runs.items():
        needed, bound = steps_needed(lengths, means, float(np.mean(list(losses.values()))))
        seeds = sorted(set(losses).intersection(*(set(held) for held in baseline.values())))
        low, high = None, None
        if not bound and len(seeds) >= _LEAST_SEEDS:
            low, high = _bootstrap(
                length, [losses[s] for s in seeds], lengths, [[held[s] for s in seeds] for held in baseline.values()]
            )
        found.append(StepsRatio(length, Interval(length / needed, low, high, len(losses)), bound))
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


def _bootstrap(
    length: int, losses: ArrayLike, lengths: Sequence[int], baseline: ArrayLike
) -> tuple[float | None, float | None]:
    ours, theirs = np.asarray(losses, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    picks = np.random.default_rng(_RNG_SEED).integers(0, len(ours), (_RESAMPLES, len(ours)))
    drawn = []
    for mean, means in zip(ours[picks].mean(1), theirs[:, picks].mean(2).T, strict=True):
        needed, bound = steps_needed(lengths, means.tolist(), float(mean))
        drawn.append(0.0 if bound == "<" else math.inf if bound == ">" else length / needed)
    tail = (1 - statistics.CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf")
    return (float(low), float(high)) if low > 0 and math.isfinite(high) else (None, None)


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


# -- one long run against the ends of short ones -------------------------------------------------------------------


def _frontier(arms: Sequence[Mapping[int, ArmResult]], baseline: Mapping[int, ArmResult]) -> tuple[OnFrontier, ...]:
    """Averaging arms against the baseline's frontier (Defazio et al. 2024, figure 1)."""
    if is_averaged(baseline[max(baseline)]):
        return ()
    found = []
    for runs in arms:
        longest = max(runs)
        if runs is baseline or not is_averaged(runs[longest]):
            continue
        at = [length for length in baseline if length < longest]
        held = [(length, d) for length in at if (d := _distances(runs[longest], baseline[length], length))]
        tests = [statistics.paired_t(d, scale=scale) for _, (d, scale) in held]
        p_values = iter(statistics.holm([test.p for test in tests if test.p is not None]))
        adjusted = tuple(None if test.p is None else next(p_values) for test in tests)
        if tests:
            found.append(OnFrontier(runs[longest], tuple(length for length, _ in held), tuple(tests), adjusted))
    return tuple(found)


def _distances(arm: ArmResult, short: ArmResult, length: int) -> tuple[list[float], float] | None:
    """Per seed the validation loss of a long run at `length` minus that of a run that ends there; their size."""
    found, scale = [], 0.0
    for seed, trial in sorted(short.confirm.items()):
        other, end = arm.confirm.get(seed), trial.metric(names.VAL_LOSS)
        if other is None or end is None or {trial.status, other.status} != {Status.FINISHED}:
            continue
        curve = other.curves.get(names.VAL_LOSS)
        if curve is None or len(curve.steps) == 0 or curve.steps[0] > length or curve.steps[-1] < length:
            continue
        at = float(np.interp(length, curve.steps, curve.values))
        if math.isfinite(at) and math.isfinite(end):
            found.append(at - end)
            scale = max(scale, abs(at), abs(end))
    return (found, scale) if found else None
