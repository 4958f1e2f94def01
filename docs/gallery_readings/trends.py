"""The readings of trends: what a speed-up, or a chosen setting, does as runs get longer or models wider.

A trend is the slope per doubling, by least squares over the logarithm of the axis, in every search (or seed) by itself;
its interval is the t interval of these slopes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gallery_readings.answers import Answer, Held
from gallery_readings.arms import Choices, NotFound, Results, arm_of, comparison_of, has, interval_of, level_of
from optsweep.inference import statistics
from optsweep.inference.statistics import PairedT
from optsweep.report.wording import fixed, listed, number, percent, setting, span, times


def lead_shrinks(results: Results, candidate: Choices, over: str) -> list[Answer]:
    """The steps that a candidate needs for the baseline's loss, relative to it, grow with `over`: its lead shrinks."""
    groups = sorted((group for group in results["groups"] if over in group["setting"]), key=lambda g: _place(g, over))
    if len(groups) < 2:
        raise NotFound(f"the sweep has no groups over {over}")
    found = [comparison_of(group, arm_of(group, candidate)) for group in groups]
    at = [_place(group, over) for group in groups]
    said = listed([f"{_ratio(held)} at {number(place)}" for held, place in zip(found, at, strict=True)])
    name = over.rpartition(".")[2]
    text = f"Of the baseline's steps to its own final validation loss it needs, by {name}, {said}."
    ratios = [[float(ratio) for ratio in held["steps_ratios"]] for held in found]
    if len(set(map(len, ratios))) != 1 or not ratios[0] or not all(0 < r < math.inf for held in ratios for r in held):
        return [Answer(f"{text} No trend can be given: the loss isn't always reached.", Held.OPEN)]
    test = _slopes(at, np.log2(ratios), level_of(groups[0]).confidence)
    factor = f"× {number(2**test.mean, 3)}"
    if test.low is None or test.high is None:
        return [Answer(f"{text} Per doubling: {factor}, without an interval.", Held.OPEN)]
    interval = (
        f"{percent(level_of(groups[0]).confidence)} interval {number(2**test.low, 3)} to {number(2**test.high, 3)}"
    )
    held = Held.HELD if test.low > 0 else Held.REVERSE if test.high < 0 else Held.OPEN
    return [Answer(f"{text} Per doubling that changes by {factor} ({interval}).", held)]


def chosen_slope(
    results: Results,
    keys: Sequence[str],
    over: str,
    near: float,
    within: float,
    arms: Choices | None = None,
) -> list[Answer]:
    """The product of chosen `keys` goes as `over` to the power `near`, ± `within`, for the arms with these choices."""
    points: dict[float, list[float]] = {}
    confidence = level_of(results["groups"][0]).confidence
    for group in results["groups"]:
        for arm in group["arms"]:
            choices = {**arm["choices"], **group["setting"]}
            if over in choices and has(choices, arms or {}):
                points[float(choices[over])] = _chosen(arm, keys)
    at = sorted(points)
    if len(at) < 2:
        raise NotFound(f"no arms over {over} with {dict(arms or {})}")
    what = " × ".join(keys)
    searches = min(len(points[place]) for place in at)
    if not searches:
        return [Answer(f"No best {what} was found at every {over.rpartition('.')[2]}.", Held.OPEN)]
    values = [points[place][:searches] for place in at]
    means = [setting(float(np.exp(np.mean(np.log(products))))) for products in values]
    said = listed([f"{mean} at {number(place)}" for mean, place in zip(means, at, strict=True)])
    who = f" with {listed([f'{key}={value}' for key, value in (arms or {}).items()])}" if arms else ""
    text = f"The best {what}{who} (geometric mean over searches) is {said}"
    test = _slopes(at, np.log2(values), confidence)
    name = over.rpartition(".")[2]
    if test.low is None or test.high is None:
        return [Answer(f"{text}: {name} to the power {fixed(test.mean, 2)}, without an interval.", Held.OPEN)]
    low, high = near - within, near + within
    held = Held.OPEN
    if low < test.low and test.high < high:
        held = Held.HELD
    elif test.high < low or test.low > high:
        held = Held.FAILED
    said = f"{name} to the power {fixed(test.mean, 2)} ({percent(confidence)} interval {span(test.low, test.high, 2)})"
    return [Answer(f"{text}: {said}.", held)]


def adds_up(results: Results) -> list[Answer]:
    """Two crossed choices don't interact; an interaction that isn't shown is none that was shown to be absent."""
    found = results["across"].get("factorials", [])
    if not found:
        return [Answer("The effects of the two choices can't be told apart here.", Held.OPEN)]
    answers = []
    for crossed in found:
        p, alpha = crossed["interaction"]["p"], 1 - crossed["confidence"]
        shown = p is not None and p < alpha
        answers.append(Answer(" ".join(crossed["sentences"]), Held.FAILED if shown else Held.OPEN))
    return answers


def _place(group: Mapping[str, Any], over: str) -> float:
    return float(group["setting"][over])


def _ratio(comparison: Mapping[str, Any]) -> str:
    """ "0.55× (0.41 to 0.73)"."""
    ratio = interval_of(comparison["steps_ratio"])
    if ratio is None:
        return "–"
    known = ratio.low is not None and ratio.high is not None
    return times(ratio.estimate) + (f" ({number(ratio.low, 3)} to {number(ratio.high, 3)})" if known else "")


def _chosen(arm: Mapping[str, Any], keys: Sequence[str]) -> list[float]:
    """The product of the chosen values, by search."""
    held = [chosen["params"] for chosen in (arm["chosen"], *arm.get("chosen_again", ())) if chosen is not None]
    return [math.prod(float(params[key]) for key in keys) for params in held if all(key in params for key in keys)]


def _slopes(at: Sequence[float], values: Any, confidence: float) -> PairedT:
    """Slopes of `values [places, searches]` over log2 of the places, one per search."""
    slopes = np.polyfit(np.log2(at), np.asarray(values, dtype=np.float64), 1)[0]
    return statistics.paired_t(slopes, confidence)
