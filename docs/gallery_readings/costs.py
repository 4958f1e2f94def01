"""Readings of cost: steps and time to the baseline's loss, time per step, bytes of state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gallery_readings.answers import Answer, Held, below_one
from gallery_readings.arms import (
    Choices,
    Results,
    arm_of,
    comparison_of,
    ends,
    groups_at,
    interval_of,
    label,
    where,
)
from optsweep.inference import statistics
from optsweep.inference.statistics import Interval
from optsweep.report.wording import listed, number, plural, size, times


def fewer_steps(
    results: Results, candidate: Choices, at: Choices | None = None, published: float | None = None
) -> list[Answer]:
    """Steps to the baseline's final validation loss, candidate / baseline, lie below 1. One answer per group."""
    return [
        _ratio(group, candidate, where(group, results), "steps", published, results) for group in groups_at(results, at)
    ]


def less_time(
    results: Results, candidate: Choices, at: Choices | None = None, published: float | None = None
) -> list[Answer]:
    """Seconds to the baseline's final validation loss, candidate / baseline, lie below 1. One answer per group."""
    return [
        _ratio(group, candidate, where(group, results), "time", published, results) for group in groups_at(results, at)
    ]


def _ratio(
    group: Mapping[str, Any], candidate: Choices, place: str, what: str, published: float | None, results: Results
) -> Answer:
    arm = arm_of(group, candidate)
    comparison = comparison_of(group, arm)
    baseline = next(label(group, other) for other in group["arms"] if other["name"] == group["baseline"])
    name = label(group, arm)
    found = interval_of(comparison["steps_ratio"])
    if found is None or (what == "time" and comparison["time_ratio"] is None):
        why = "it was not timed" if found is not None else "no seed of both ended"
        return Answer(f"{place}Nothing is known about the {what} that {name} needs: {why}.", Held.OPEN)
    ratio = statistics.seconds_ratio(found, comparison["time_ratio"]) if what == "time" else found
    if math.isinf(ratio.estimate):
        reached = sum(math.isfinite(float(value)) for value in comparison["steps_ratios"])
        text = f"{name} reaches the final validation loss of {baseline} on {reached} of {plural(ratio.n, 'seed')}"
    else:
        text = f"{name} reaches the final validation loss of {baseline} in {times(ratio.estimate)} the {what}"
        text += f" ({_how(ratio, comparison)}; {plural(ratio.n, 'seed')})"
    return Answer(f"{place}{text}{_published(ratio, published)}.", below_one(ratio))


def _how(ratio: Interval, comparison: Mapping[str, Any]) -> str:
    """ "median; 95 % interval 0.55 to 0.71": description, so at 95 % whatever the level of the verdict."""
    of = comparison.get("steps_ratio_of", "median")
    return "; ".join(filter(None, [of, ends(ratio, statistics.CONFIDENCE)]))


def _published(ratio: Interval, published: float | None) -> str:
    """Where a published ratio lies; the direction alone decides whether the claim held."""
    if published is None:
        return ""
    if ratio.low is None or ratio.high is None:
        return f"; published: {times(published)}"
    lies = "less was needed here" if ratio.high < published else "more was needed here"
    return f"; published: {times(published)}, {'inside' if ratio.low <= published <= ratio.high else lies}"


def more_with(results: Results, candidate: Choices, small: Choices, large: Choices) -> list[Answer]:
    """The ratio of steps is lower in the group `large` than in `small`: their intervals don't overlap."""
    found = []
    for at in (small, large):
        (group,) = groups_at(results, at)
        arm = arm_of(group, candidate)
        comparison = comparison_of(group, arm)
        ratio = interval_of(comparison["steps_ratio"])
        if ratio is None:
            return [Answer(f"On {group['title']} no ratio of steps is known.", Held.OPEN)]
        found.append((f"({_how(ratio, comparison)}) on {group['title']}", ratio))
    said = " and ".join(f"{times(ratio.estimate)} {how}" for how, ratio in found)
    (_, less), (_, more) = found
    known = None not in (less.low, less.high, more.low, more.high)
    below, above = (more.high or 0.0) < (less.low or 0.0), (more.low or 0.0) > (less.high or 0.0)
    held = Held.HELD if known and below else Held.REVERSE if known and above else Held.OPEN
    why = "the intervals overlap" if known else "not both have an interval"
    tail = "" if held is not Held.OPEN else f": {why}, so no change is shown"
    return [Answer(f"The steps needed are {said}{tail}.", held)]


def quicker_step(results: Results, quicker: Choices, slower: Choices, at: Choices | None = None) -> list[Answer]:
    """A step of `quicker` takes less time: the quartiles of the timing pass don't overlap. One answer per group."""
    found = []
    for group in groups_at(results, at):
        arms = [arm_of(group, choices) for choices in (quicker, slower)]
        place = where(group, results)
        if any(arm["timing"] is None for arm in arms):
            found.append(
                Answer(f"{place}{listed([label(group, arm) for arm in arms])} were not both timed.", Held.OPEN)
            )
            continue
        said = [
            f"{number(arm['timing']['ms_per_step'], 3)} ms with {label(group, arm)} (quartiles "
            f"{number(arm['timing']['low'], 3)} to {number(arm['timing']['high'], 3)})"
            for arm in arms
        ]
        one, other = (arm["timing"] for arm in arms)
        apart = one["high"] < other["low"], one["low"] > other["high"]
        held = Held.HELD if apart[0] else Held.REVERSE if apart[1] else Held.OPEN
        found.append(Answer(f"{place}A step takes {' and '.join(said)}.", held))
    return found


def smaller_state(results: Results, smaller: Choices, larger: Choices, at: Choices | None = None) -> list[Answer]:
    """The optimizer state of `smaller` has fewer bytes, which needs no interval. One answer per group."""
    found = []
    for group in groups_at(results, at):
        one, other = (arm_of(group, choices) for choices in (smaller, larger))
        ours, theirs = one["state_bytes"], other["state_bytes"]
        place = where(group, results)
        if not ours or not theirs:
            found.append(Answer(f"{place}The bytes of state are not known.", Held.OPEN))
            continue
        held = Held.HELD if ours < theirs else Held.REVERSE if ours > theirs else Held.FAILED
        found.append(
            Answer(
                f"{place}The optimizer state of {label(group, one)} has {times(ours / theirs)} the bytes of "
                f"{label(group, other)}'s ({size(ours)} against {size(theirs)}; counted, so without an interval).",
                held,
            )
        )
    return found
