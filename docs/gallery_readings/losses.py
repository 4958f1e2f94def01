"""Readings of test losses: who ends lower, in which order, or alike. Lower is better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from gallery_readings.answers import Answer, Held, overall
from gallery_readings.arms import (
    Choices,
    Pair,
    Results,
    Seeds,
    groups_at,
    level_of,
    pairs,
    seeds_of,
    where,
)
from optsweep.inference import statistics
from optsweep.inference.comparison import Conclusion
from optsweep.inference.repeats import independent
from optsweep.report.wording import decimals, fixed, listed, number, p_value, percent, plural, span


def lower(results: Results, lower: Choices, higher: Choices, at: Choices | None = None) -> list[Answer]:
    """`lower` ends below `higher`, or `higher` diverges more often. One answer per group."""
    found = []
    for group in groups_at(results, at):
        (pair,) = pairs(results, group, [(lower, higher)])
        found.append(_lower(pair, where(group, results)))
    return found


def _lower(pair: Pair, place: str) -> Answer:
    one, other = pair.lower.label, pair.higher.label
    lost = listed([_diverged(arm) for arm in (pair.lower, pair.higher) if arm.diverged_seeds])
    also = f" {lost}." if lost else ""
    outcome = pair.finding.outcome
    if outcome.better:
        return Answer(f"{place}{one} ends lower than {other}: {pair.evidence}.{also}", Held.HELD)
    if outcome.worse:
        return Answer(f"{place}{one} ends higher than {other}: {pair.evidence}.{also}", Held.REVERSE)
    if outcome is Conclusion.UNDECIDED:
        text = (
            f"{place}Not decided between {one} and {other}, the one that ends higher was tuned less: {pair.evidence}."
        )
        return Answer(text, Held.OPEN)
    if lost:
        return _by_divergence(pair, place)
    if pair.finding.test is None:
        return Answer(f"{place}{one} and {other} can't be compared: no seed ended in both.", Held.OPEN)
    if pair.finding.test.p is None:
        return Answer(f"{place}{one} against {other}: {pair.evidence}, without an interval.", Held.OPEN)
    if pair.finding.outcome is Conclusion.EQUAL:
        return Answer(f"{place}{one} and {other} are equal within ±δ: {pair.evidence}.", Held.FAILED)
    return Answer(f"{place}No difference between {one} and {other} is shown: {pair.evidence}.", Held.OPEN)


def _diverged(arm: Seeds) -> str:
    return f"{arm.label} diverged on {arm.diverged_seeds} of {plural(arm.count, 'seed')}"


def _by_divergence(pair: Pair, place: str) -> Answer:
    """Where seeds diverged, their shares decide: Fisher's exact test."""
    one, other = pair.lower, pair.higher
    table = np.array([[arm.diverged_seeds, arm.count - arm.diverged_seeds] for arm in (one, other)])
    p = float(stats.fisher_exact(table).pvalue)
    ahead = other.diverged_seeds / max(other.count, 1) - one.diverged_seeds / max(one.count, 1)
    held = Held.OPEN if p >= pair.level.alpha or ahead == 0 else Held.HELD if ahead > 0 else Held.REVERSE
    text = f"{place}{_diverged(one)}, {_diverged(other)} (Fisher's exact test, {p_value(p)})"
    rest = f"; on the seeds that both finished, {pair.evidence}" if pair.finding.test else ""
    return Answer(f"{text}{rest}.", held)


def ordered(results: Results, arms: Sequence[Choices], at: Choices | None = None) -> list[Answer]:
    """Each of `arms` ends below the next. One answer per group."""
    found = []
    for group in groups_at(results, at):
        held = pairs(results, group, list(itertools.pairwise(arms)))
        parts = [_lower(pair, "") for pair in held]
        said = " ".join(part.sentence for part in parts)
        found.append(Answer(f"{where(group, results)}{said}", overall(part.held for part in parts)))
    return found


def same(
    results: Results,
    first: Choices,
    second: Choices,
    at: Choices | None = None,
    metric: bool = False,
    within: float | None = None,
) -> list[Answer]:
    """Both end alike: the interval of the difference lies inside ±`within`, or there is no difference at all.

    Of the test loss, or of the task's own metric with `metric`. Without `within`, equality is only shown by
    seeds that are all equal; an interval without zero says that it did not hold.
    """
    found = []
    for group in groups_at(results, at):
        one, other = (seeds_of(group, choices) for choices in (first, second))
        name = f"test/{one.arm['facts']['metric']}" if metric else "test/loss"
        ours, theirs = one.values(name), other.values(name)
        both = [seed for seed in sorted(ours) if seed in theirs and math.isfinite(ours[seed] + theirs[seed])]
        said = name.replace("/", " ")
        place = where(group, results)
        if not both:
            found.append(
                Answer(f"{place}{one.label} and {other.label} can't be compared: no seed in common.", Held.OPEN)
            )
            continue
        scale = max(abs(value) for held in (ours, theirs) for value in held.values())
        confidence = level_of(group).confidence
        apart = independent({seed: ours[seed] - theirs[seed] for seed in both})
        test = statistics.paired_t(list(apart.values()), confidence, scale=scale)
        over = f"{test.n} searches" if len(apart) < len(both) else plural(test.n, "seed")
        answer = _same(test, f"{place}{one.label} against {other.label}, {said}", within, confidence, over)
        if lost := [arm for arm in (one, other) if arm.diverged_seeds]:  # those that survived can't speak for them
            answer = Answer(f"{answer.sentence} But {listed([_diverged(arm) for arm in lost])}.", Held.OPEN)
        found.append(answer)
    return found


def _same(test: statistics.PairedT, what: str, within: float | None, confidence: float, seeds: str) -> Answer:
    bound = f" Equal means within ±{number(within)}." if within is not None else ""
    if test.low is None or test.high is None:
        if test.mean == 0 and test.n > 1:
            return Answer(f"{what}: equal on every one of {seeds}.", Held.HELD)
        held = Held.HELD if within is not None and test.n > 1 and abs(test.mean) <= within else Held.OPEN
        side = "higher" if test.mean > 0 else "lower"
        return Answer(f"{what}: {number(abs(test.mean))} {side} on {seeds}, without an interval.{bound}", held)
    places = decimals((test.high - test.low) / 2, test.mean)
    interval = span(test.low, test.high, places, sign=True)
    mean = fixed(test.mean, places, sign=True)
    text = f"{what}: difference {mean} ({percent(confidence)} interval {interval}; {seeds}).{bound}"
    limit = within or 0.0
    if -limit <= test.low and test.high <= limit:
        return Answer(text, Held.HELD)
    return Answer(text, Held.FAILED if test.low > limit or test.high < -limit else Held.OPEN)
