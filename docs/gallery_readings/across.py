"""Readings of results over the run, over run lengths and over tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gallery_readings.answers import Answer, Held, overall
from gallery_readings.arms import (
    Choices,
    NotFound,
    Results,
    ends,
    has,
    interval_of,
    where,
)
from optsweep.inference.comparison import Conclusion
from optsweep.report.across.frontier import Side
from optsweep.report.wording import decimals, fixed, listed, number, percent, plural, span


def flips(results: Results) -> list[Answer]:
    """An arm that is shown to differ from the baseline at the end stood on the other side until late. Per group."""
    found = []
    for group in results["groups"]:
        labels = {arm["name"]: str(arm["label"]) for arm in group["arms"]}
        flipped = [held for held in group["comparisons"] if held["last_flip"]]
        shown = [
            labels[held["candidate"]]
            for held in flipped
            if (outcome := Conclusion(held["outcome"])).better or outcome.worse
        ]
        place = where(group, results)
        if not flipped:
            text = "The median validation curve of no arm crosses the baseline's in the second half of the run."
        else:
            until = [
                f"{labels[held['candidate']]} (until step {held['last_flip']['step']} of "
                f"{held['last_flip']['num_steps']})"
                for held in flipped
            ]
            tail = f"a difference from the baseline is shown for {listed(shown)}" if shown else ""
            text = (
                f"The median validation losses stood the other way round until late in the run: {listed(until)}; at "
                f"the end {tail or 'no difference is shown for them'}."
            )
        found.append(Answer(f"{place}{text}", Held.HELD if shown else Held.OPEN))
    return found


def on_frontier(results: Results) -> list[Answer]:
    """At every shorter length the one long averaged run lies below the frontier of the baseline's runs."""
    found = []
    for lengths in results["across"]["run_lengths"]:
        for held in lengths["frontier"]:
            points = held["differences"]
            said = [_on_frontier(point["num_steps"], point["paired_t"], lengths["confidence"]) for point in points]
            outcomes = [_SIDES.get(Side(point["side"]), Held.OPEN) for point in points]
            text = (
                f"The validation curve of {held['label']}'s one run of {held['num_steps']:,} steps minus the end of "
                f"{lengths['baseline']} in as many steps: {listed(said)}."
            )
            found.append(Answer(text, overall(outcomes)))
    return found or [Answer("No frontier can be drawn: it takes several run lengths.", Held.OPEN)]


_SIDES = {Side.BELOW: Held.HELD, Side.ABOVE: Held.REVERSE}


def _on_frontier(steps: int, test: Mapping[str, Any], confidence: float) -> str:
    if test["low"] is None:
        return f"{number(test['mean'])} at {steps:,}"
    places = decimals((test["high"] - test["low"]) / 2, test["mean"])
    interval = span(test["low"], test["high"], places, sign=True)
    mean, seeds = fixed(test["mean"], places, sign=True), plural(test["n"], "seed")
    return f"{mean} at {steps:,} ({percent(confidence)} interval {interval}; {seeds})"


def over_tasks(results: Results, candidate: Choices) -> list[Answer]:
    """The candidate is better than the baseline on every task."""
    found = []
    for tasks in results["across"]["tasks"]:
        counts = _across_arm(results, tasks, candidate)["outcomes"]
        better = sum(count for of, count in counts.items() if Conclusion(of).better)
        worse = sum(count for of, count in counts.items() if Conclusion(of).worse)
        silent = len(tasks["tasks"]) - better - worse
        sides = [Held.HELD] * better + [Held.REVERSE] * worse + [Held.OPEN] * silent
        label = _across_arm(results, tasks, candidate)["label"]
        found.append(
            Answer(
                f"{label} against {tasks['baseline']}: lower on {better}, higher on {worse} and not told apart on "
                f"{silent} of {plural(len(tasks['tasks']), 'task')} (each by its own interval over seeds).",
                overall(sides),
            )
        )
    return found or [Answer("There is one task only.", Held.OPEN)]


def ranked(results: Results, above: Choices, below: Choices) -> list[Answer]:
    """The mean rank over tasks of `above` is lower than that of `below`: the intervals don't overlap."""
    found = []
    for tasks in results["across"]["tasks"]:
        arms = [_across_arm(results, tasks, choices) for choices in (above, below)]
        ranks = [interval_of(arm["mean_rank"]) for arm in arms]
        said = [
            f"{arm['label']} {number(rank.estimate, 3)} ({ends(rank, tasks['confidence']) or 'no interval'})"
            for arm, rank in zip(arms, ranks, strict=True)
            if rank is not None
        ]
        held = Held.OPEN
        if all(rank is not None and rank.low is not None for rank in ranks):
            (a_low, a_high), (b_low, b_high) = ((rank.low, rank.high) for rank in ranks)  # type: ignore[union-attr]
            held = Held.HELD if a_high < b_low else Held.REVERSE if a_low > b_high else Held.OPEN  # type: ignore[operator]
        text = f"Mean rank by test loss of {len(tasks['arms'])} arms over {plural(len(tasks['tasks']), 'task')}"
        found.append(Answer(f"{text}: {listed(said) or 'not known'}.", held))
    return found or [Answer("There is one task only, so no mean rank.", Held.OPEN)]


def _across_arm(results: Results, tasks: Mapping[str, Any], choices: Choices) -> Mapping[str, Any]:
    """The arm of a finding over tasks with these choices. Raises NotFound."""
    first = tasks["tasks"][0]
    group = next(group for group in results["groups"] if group["title"] == first["group"])
    names = {arm["name"] for arm in group["arms"] if has(arm["choices"], choices)}
    found = [arm for name, arm in zip(first["arms"], tasks["arms"], strict=True) if name in names]
    if len(found) != 1:
        raise NotFound(f"{len(found)} arms over tasks have {dict(choices)}; there are {first['arms']}")
    arm: Mapping[str, Any] = found[0]
    return arm
