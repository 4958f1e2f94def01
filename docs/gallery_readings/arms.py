"""Finds groups, arms and pairs of arms in a results.json, for the gallery's readings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from optsweep.inference.comparison import Conclusion, Finding, holm, in_common, judge
from optsweep.inference.looks import Level
from optsweep.inference.repeats import independent, repeats_of
from optsweep.inference.statistics import Interval, PairedT
from optsweep.report.verdict import evidence
from optsweep.report.wording import number, percent

Results = Mapping[str, Any]  # what a results.json holds
Choices = Mapping[str, Any]  # of an arm or a setting, by config key


class NotFound(ValueError):  # noqa: N818 – as SweepNotFound: said in one line; nothing is broken
    """The results don't hold what a reading asks for; the message names both."""


@dataclass(frozen=True)
class Seeds:
    """An arm's confirm trials: test losses by seed, and how many diverged."""

    arm: Mapping[str, Any]
    label: str

    @property
    def unit(self) -> str:
        """Unit of the loss."""
        return str(self.arm["facts"].get("loss_unit", ""))

    @property
    def count(self) -> int:
        """Confirm trials that ended with a result."""
        return sum(trial["status"] in ("finished", "diverged") for trial in self.arm["confirm"])

    @cached_property
    def test_losses(self) -> Mapping[int, float]:
        """Finite test losses by seed."""
        return {seed: loss for seed, loss in self.values("test/loss").items() if math.isfinite(loss)}

    @cached_property
    def test_blocks(self) -> Mapping[int, Sequence[float]]:
        """Test losses of parts of the split, by seed."""
        return {int(trial["seed"]): blocks for trial in self.arm["confirm"] if (blocks := trial.get("test_blocks"))}

    @property
    def diverged_seeds(self) -> int:
        """Seeds that diverged, a test loss that is not finite included."""
        lost = [loss for loss in self.values("test/loss").values() if not math.isfinite(loss)]
        return sum(1 for trial in self.arm["confirm"] if trial["status"] == "diverged") + len(lost)

    def values(self, metric: str) -> dict[int, float]:
        """A metric's last value by seed, of the trials that finished."""
        held = [trial for trial in self.arm["confirm"] if trial["status"] == "finished"]
        return {int(trial["seed"]): float(trial["metrics"][metric]) for trial in held if metric in trial["metrics"]}


@dataclass(frozen=True)
class Pair:
    """An arm that is expected to be lower, one that is expected to be higher, and what their seeds say."""

    lower: Seeds
    higher: Seeds
    finding: Finding  # of lower − higher
    level: Level

    @property
    def evidence(self) -> str:
        """As the report words it: "mean test loss lower by 0.046 nats/byte (2.271 against 2.317; …"."""
        test, both = self.finding.test, in_common(self.lower, self.higher)
        assert test is not None
        ours, theirs = (fmean(independent(losses).values()) for losses in both)
        over = f"{test.n} searches" if len(repeats_of(both[0])) > 1 else ""
        return evidence(test, self.finding.p_holm, ours, theirs, self.higher.unit, self.level, over)


def groups_at(results: Results, at: Choices | None) -> list[Mapping[str, Any]]:
    """The groups whose setting has these values; all groups without any. Raises NotFound."""
    found = [group for group in results["groups"] if has(group["setting"], at or {})]
    if not found:
        settings = [group["setting"] for group in results["groups"]]
        raise NotFound(f"no group at {dict(at or {})}; there are {settings}")
    return found


def arm_of(group: Mapping[str, Any], choices: Choices) -> Mapping[str, Any]:
    """The one arm of a group with these choices. Raises NotFound."""
    found = [arm for arm in group["arms"] if has(arm["choices"], choices)]
    if len(found) != 1:
        there = [arm["name"] for arm in group["arms"]]
        raise NotFound(f"{len(found)} arms of {group['title']} have {dict(choices)}; there are {there}")
    arm: Mapping[str, Any] = found[0]
    return arm


def seeds_of(group: Mapping[str, Any], choices: Choices) -> Seeds:
    """The confirm trials of the one arm with these choices. Raises NotFound."""
    arm = arm_of(group, choices)
    return Seeds(arm, label(group, arm))


def label(group: Mapping[str, Any], arm: Mapping[str, Any]) -> str:
    """The arm's label without the parts that all arms of its group have."""
    parts = [str(other["label"]).split(" + ") for other in group["arms"]]
    shared = set.intersection(*map(set, parts))
    own = [part for part in str(arm["label"]).split(" + ") if part not in shared]
    return " + ".join(own) or str(arm["label"])


def has(held: Mapping[str, Any], wanted: Choices) -> bool:
    """Whether all wanted values are held; numbers are equal as numbers, "none" is what is left out."""
    return all(_same(str(held.get(key, "none")), str(value)) for key, value in wanted.items())


def _same(one: str, other: str) -> bool:
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def where(group: Mapping[str, Any], results: Results) -> str:
    """ "On digits_mlp, batch_size 512: " if there are several groups."""
    return f"On {group['title']}: " if len(results["groups"]) > 1 else ""


def level_of(group: Mapping[str, Any]) -> Level:
    """The level of the group's tests and intervals."""
    return Level(
        group["seeds"]["nominal_level"], tuple(group["seeds"]["looks"]), group["seeds"].get("over_searches", False)
    )


def comparison_of(group: Mapping[str, Any], candidate: Mapping[str, Any]) -> Mapping[str, Any]:
    """The report's comparison of an arm with its group's baseline. Raises NotFound."""
    for comparison in group["comparisons"]:
        if comparison["candidate"] == candidate["name"]:
            found: Mapping[str, Any] = comparison
            return found
    raise NotFound(f"{candidate['name']} is the baseline of {group['title']}, or is not compared with it")


def pairs(results: Results, group: Mapping[str, Any], wanted: Sequence[tuple[Choices, Choices]]) -> list[Pair]:
    """Pairs (expected lower, expected higher); where the report compares them, what it says, else by the same tests.

    The report's p values are corrected over its group; those computed here over the pairs of this call.
    """
    level = level_of(group)
    plan = next(sweep["plan"] for sweep in results["sweeps"] if sweep["name"] == group["sweep"])
    delta = plan.get("confirm", {}).get("delta")
    held = [(seeds_of(group, lower), seeds_of(group, higher)) for lower, higher in wanted]
    found = [_reported(group, lower.arm, higher.arm) for lower, higher in held]
    own = [place for place, finding in enumerate(found) if finding is None]
    tests = _judged([held[place] for place in own], level, None if delta is None else float(delta))
    for place, finding in zip(own, tests, strict=True):
        found[place] = finding
    return [
        Pair(lower, higher, finding, level)
        for (lower, higher), finding in zip(held, found, strict=True)
        if finding is not None
    ]


def _judged(held: Sequence[tuple[Seeds, Seeds]], level: Level, delta: float | None) -> list[Finding]:
    """Findings of pairs that no report has, Holm-corrected over them: `judge` knows one baseline for all."""
    alone = [judge([lower], higher, level, delta)[0] for lower, higher in held]
    corrected = holm([finding.test.p if finding.test else None for finding in alone])
    return [
        replace(
            finding,
            p_holm=p,
            outcome=Conclusion.NO_DIFFERENCE
            if (finding.outcome.better or finding.outcome.worse) and (p is None or p >= level.alpha)
            else finding.outcome,
        )
        for finding, p in zip(alone, corrected, strict=True)
    ]


def _reported(group: Mapping[str, Any], lower: Mapping[str, Any], higher: Mapping[str, Any]) -> Finding | None:
    """What the report says of two arms, as lower − higher; None if it doesn't compare them."""
    for one, other, sign in ((lower, higher, 1), (higher, lower, -1)):
        for held in group["comparisons"]:
            if (held["candidate"], held["baseline"]) == (one["name"], other["name"]):
                outcome = Conclusion(held["outcome"])
                if sign < 0:
                    outcome = _REVERSED.get(outcome, outcome)
                differences = {int(seed): sign * float(value) for seed, value in held["differences"].items()}
                test = _signed(held["paired_t"], sign) if held["paired_t"] else None
                return Finding(differences, test, held["p_holm"], outcome, True)
    return None


_REVERSED = {
    Conclusion.BETTER: Conclusion.WORSE,
    Conclusion.WORSE: Conclusion.BETTER,
    Conclusion.SLIGHTLY_BETTER: Conclusion.SLIGHTLY_WORSE,
    Conclusion.SLIGHTLY_WORSE: Conclusion.SLIGHTLY_BETTER,
}


def _signed(test: Mapping[str, Any], sign: int) -> PairedT:
    low, high = test["low"], test["high"]
    if sign < 0:
        low, high = (None if end is None else -end for end in (high, low))
    return PairedT(sign * test["mean"], low, high, test["p"], test["n"], test["zero_variance"])


def interval_of(held: Mapping[str, Any] | None) -> Interval | None:
    """An interval of results.json, whose infinities are texts."""
    if held is None:
        return None
    low, high = (None if held[end] is None else float(held[end]) for end in ("low", "high"))
    return Interval(float(held["estimate"]), low, high, int(held["n"]))


def ends(interval: Interval, confidence: float) -> str:
    """ "95 % interval 0.55 to 0.71" or nothing."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{percent(confidence)} interval {number(interval.low, 3)} to {number(interval.high, 3)}"
