"""What to beware of in a verdict: everything that could make the comparison less fair than it looks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Comparison, Group
from optsweep.report.machines import where_trained
from optsweep.report.wording import listed, plural, setting
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import UNREAD
from optsweep.tracking.schema import RangeRecord
from optsweep.train.trial import Phase

FEW_SEEDS = 5
_FEWEST_RUNGS = 4  # of a curve whose second half says anything
FEW_SEARCHES = 3
EDGE = 0.05  # share of a range that counts as its end


def caveats(group: Group) -> Iterator[str]:
    """Sentences, first what could change the answer most: what is missing, what isn't comparable, what isn't tuned."""
    yield from _incomplete(group)
    yield from _by_arm(group)
    yield from _unequal(group)
    yield from _outside(group)
    yield from _at_edge(group)
    tested = [c.test.n for c in group.comparisons if c.test is not None and c.searches < 2]
    if tested and min(tested) < FEW_SEEDS:
        fewest = plural(min(tested), "seed")
        yield f"Few seeds: {fewest}. An interval from so few leans wholly on differences being normally distributed."
    yield from _flips(group)
    yield from where_trained(group)
    untimed = [arm.label for arm in group.arms if arm.test_losses and arm.arm.timing is None]
    if untimed:
        yield f"No timing pass of {listed(untimed)}: nothing is said about time."
    if elsewhere := [f"{arm.label} ({arm.timed_elsewhere})" for arm in group.arms if arm.timed_elsewhere]:
        yield (
            f"Steps were timed on {group.baseline.timed_on} for the baseline and on another device for "
            f"{listed(elsewhere)}: their times aren't compared."
        )
    if any(comparison.test is not None for comparison in group.comparisons):
        yield from _what_the_intervals_hold_for(group)


def notes(group: Group) -> Iterator[str]:
    """What was said of arms when they were built: each once, with the arms that it is about."""
    concerned: dict[str, list[str]] = {}
    for arm in group.arms:
        for warning in arm.arm.warnings:
            if warning != UNREAD:
                concerned.setdefault(warning, []).append(arm.label)
    for warning, labels in concerned.items():
        everyone = len(labels) == len(group.arms) > 1
        who = "All arms" if everyone else listed(labels) if len(labels) <= 3 else plural(len(labels), "arm")
        also = "" if everyone or len(labels) <= 3 else f" ({listed(labels)})"
        yield f"{who}{also}: {warning}"


def _what_the_intervals_hold_for(group: Group) -> Iterator[str]:
    tested = [comparison for comparison in group.comparisons if comparison.test is not None]
    over = [comparison.searches for comparison in tested if comparison.searches > 1]
    if over and min(over) < FEW_SEARCHES:
        yield "Two searches: an interval from so few leans wholly on differences being normally distributed."
    if len(over) == len(tested):
        also = "search, train/validation split and seeds" if group.baseline.resplit else "search and seeds"
        sampled = all(comparison.over_samples for comparison in tested)
        samples = ", and for other test samples of this kind" if sampled else "; the test split is the same in all"
        yield f"The intervals hold for repeating {also}{samples}."
    else:
        yield "The intervals hold for the chosen settings; how lucky the search was is not part of them."


def _incomplete(group: Group) -> Iterator[str]:
    if group.sweep.absent:
        have = "has" if len(group.sweep.absent) == 1 else "have"
        yield f"Partial: {listed(list(group.sweep.absent))} {have} not started."
    for arm in group.arms:
        missing = [plural(arm.missing(phase), f"{phase} trial") for phase in Phase if arm.missing(phase)]
        if missing:
            yield f"Partial: {arm.label} still lacks {listed(missing)}."


def _named(arm: ArmResult, group: Group) -> str:
    return f"the baseline, {arm.label}" if arm is group.baseline and group.comparisons else arm.label


def _outside(group: Group) -> Iterator[str]:
    """Chosen values outside the suggested range: a baseline there has perhaps not been given its due."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm in group.arms:
        for key, value in (pair for held in arm.arm.all_chosen.values() for pair in held.params.items()):
            suggested = arm.arm.space.get(key)
            if suggested is None or suggested.low * (1 - 1e-9) <= value <= suggested.high * (1 + 1e-9):
                continue
            side = "below" if value < suggested.low else "above"
            limits = f"suggested {setting(suggested.low)} – {setting(suggested.high)}"
            source = f", {suggested.source}" if suggested.source else ""
            found.setdefault((key, side), []).append(f"{_named(arm, group)} ({setting(value)}; {limits}{source})")
    for (key, side), arms in found.items():
        yield f"The best {key} lies {side} the suggested range: {listed(arms)}."


@dataclass(frozen=True)
class AtEdge:
    """A chosen value next to an end of a range that doesn't grow, as the LR's does: a better one may lie beyond."""

    key: str
    side: str  # lower | upper
    value: float
    suggested: RangeRecord


def at_edge(arm: ArmResult) -> list[AtEdge]:
    """The searched keys of the arm that were chosen so."""
    found = []
    every = arm.arm.all_chosen.values()
    for chosen, (key, value) in ((held, pair) for held in every for pair in held.params.items()):
        suggested = arm.arm.space.get(key)
        if suggested is None or key in chosen.bracketed:
            continue
        ends = (suggested.low, suggested.high, value)
        low, high, at = (math.log(end) if suggested.log and min(ends) > 0 else end for end in ends)
        place = (at - low) / (high - low) if high > low else 0.5
        if 0 <= place <= EDGE or 1 - EDGE <= place <= 1:
            found.append(AtEdge(key, "lower" if place < 0.5 else "upper", value, suggested))
    return found


def _at_edge(group: Group) -> Iterator[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for arm in group.arms:
        for edge in at_edge(arm):
            limits = f"{setting(edge.suggested.low)} – {setting(edge.suggested.high)}"
            text = f"{_named(arm, group)} ({setting(edge.value)} of {limits})"
            found.setdefault((edge.key, edge.side), []).append(text)
    for (key, side), arms in found.items():
        yield f"The best {key} lies at the {side} end of its range, a better one may lie beyond: {listed(arms)}."


def _by_arm(group: Group) -> Iterator[str]:
    """One sentence per kind of trouble, the arms that have it listed."""
    unread, edges, lost, all_lost, crashed = [], [], [], [], []
    for arm in group.arms:
        name = _named(arm, group)
        if UNREAD in arm.arm.warnings:
            unread.append(name)
        if arm.unbracketed:
            edges.append(f"{name} ({listed([f'{key} {side}' for key, side in arm.unbracketed])})")
        if arm.diverged_seeds and arm.test_losses:
            lost.append(f"{name} ({seeds_diverged(arm)})")
        if arm.diverged_seeds and not arm.test_losses:
            all_lost.append(name)
        count = sum(arm.count(phase, Status.CRASHED) for phase in Phase)
        if count:
            crashed.append(f"{name} ({plural(count, 'trial')})")
    if unread:
        yield f"{listed(unread)}: {UNREAD}"
    if lost:
        yield f"Diverged on some seeds, so the mean is over the others: {listed(lost)}."
    if all_lost:
        yield f"Diverged on every seed that ended, so there is no mean: {listed(all_lost)}."
    if crashed:
        yield f"Crashed and without a result: {listed(crashed)}."
    if edges and not group.comparisons:  # else a condition of the verdict has said it
        yield f"Not bracketed, nothing worse was tried beyond the chosen value: {listed(edges)}."


def _unequal(group: Group) -> Iterator[str]:
    for key in ("num_steps", "batch_size", "num_parameters"):
        values = {arm.label: arm.arm.facts.get(key) for arm in group.arms}
        if len(set(values.values()) - {None}) > 1:
            each = listed([f"{label} {value}" for label, value in values.items()])
            yield f"The arms differ in {key}: {each}."


def _flips(group: Group) -> Iterator[str]:
    """Arms whose order with the baseline flips in the second half: the answer depends on where one stops."""
    found = []
    for comparison in group.comparisons:
        step = last_flip(comparison)
        if step is not None:
            found.append(f"{comparison.candidate.label} (until step {step[0]} of {step[1]})")
    if found:
        medians = f"The median validation {group.baseline.measures}"
        yield f"{medians} stood the other way round until late in the run: {listed(found)}."


def last_flip(comparison: Comparison) -> tuple[int, int] | None:
    """The last step in the second half at which the order was another than at the end, and the last step.

    Curves with rungs at other steps are interpolated where both have begun.
    """
    curves = []
    for arm in (comparison.candidate, comparison.baseline):
        found = [trial.curves.get(names.VAL_LOSS) for trial in arm.confirm.values() if trial.status is Status.FINISHED]
        held = [curve for curve in found if curve is not None and len(curve.steps) >= _FEWEST_RUNGS]
        if not held:
            return None
        shared = [curve for curve in held if len(curve.steps) == len(held[0].steps)]
        curves.append((shared[0].steps, np.median([curve.values for curve in shared], axis=0)))
    (own, ours), (other, theirs) = curves
    if own[-1] != other[-1]:  # run lengths that differ have no end in common
        return None
    steps = np.union1d(own, other)
    steps = steps[steps >= max(own[0], other[0])]
    ahead = np.sign(np.interp(steps, own, ours) - np.interp(steps, other, theirs))
    flipped = (steps >= steps[-1] / 2) & (ahead == -ahead[-1]) & (ahead != 0)
    return (int(steps[np.flatnonzero(flipped)[-1]]), int(steps[-1])) if flipped.any() else None


def seeds_diverged(arm: ArmResult) -> str:
    """ "2 of 8 seeds"."""
    return f"{arm.diverged_seeds} of {plural(arm.confirm_seeds, 'seed')}"
