"""One long run of an averaging arm against the ends of the baseline's shorter runs: their frontier.

What schedule-free promises is a loss on the frontier at every step (Defazio et al. 2024, figure 1): at the step where
a run with a schedule ends, the long run's validation loss is compared with that run's last one, seed by seed,
or search by search where there are several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from optsweep.inference import statistics
from optsweep.inference.comparison import holm
from optsweep.inference.looks import Level
from optsweep.inference.repeats import independent
from optsweep.inference.statistics import PairedT
from optsweep.report.across.arms import is_averaged
from optsweep.report.arm_result import ArmResult
from optsweep.tracking import names
from optsweep.tracking.names import Status


class Side(StrEnum):
    """Where a long run stands to the end of a shorter one."""

    BELOW = "below"
    ABOVE = "above"
    OPEN = "not shown to differ"
    DIVERGED = "not judged"  # the one that is lower has diverged seeds, whose absence flatters it


@dataclass(frozen=True, eq=False)
class OnFrontier:
    """The validation loss of an averaging arm's longest run where the baseline's shorter runs end, minus theirs."""

    arm: ArmResult
    num_steps: tuple[int, ...]
    differences: tuple[PairedT, ...]
    p_holm: tuple[float | None, ...]  # over the lengths
    sides: tuple[Side, ...]

    @property
    def counts(self) -> dict[Side, int]:
        """At how many lengths the run is on which side."""
        return {side: self.sides.count(side) for side in Side if side in self.sides}


def frontier(
    arms: Sequence[Mapping[int, ArmResult]], baseline: Mapping[int, ArmResult], level: Level
) -> tuple[OnFrontier, ...]:
    """All averaging arms, by run length, against the baseline's; nothing if the baseline averages itself."""
    if is_averaged(baseline[max(baseline)]):
        return ()
    found = []
    for runs in arms:
        longest = max(runs)
        if runs is baseline or not is_averaged(runs[longest]):
            continue
        at = [length for length in baseline if length < longest]
        held = [(length, d) for length in at if (d := _distances(runs[longest], baseline[length], length))]
        tests = [statistics.paired_t(d, level.confidence, scale=scale) for _, (d, scale) in held]
        adjusted = holm(test.p for test in tests)
        reached = tuple(length for length, _ in held)
        sides = tuple(
            _side(test, p, runs[longest], baseline[length], level)
            for length, test, p in zip(reached, tests, adjusted, strict=True)
        )
        if tests:
            found.append(OnFrontier(runs[longest], reached, tuple(tests), tuple(adjusted), sides))
    return tuple(found)


def _side(test: PairedT, p: float | None, arm: ArmResult, short: ArmResult, level: Level) -> Side:
    """As for a group's outcomes: what has diverged seeds can't be called lower."""
    if p is None or p >= level.alpha:
        return Side.OPEN
    if (arm if test.mean < 0 else short).diverged_seeds:
        return Side.DIVERGED
    return Side.BELOW if test.mean < 0 else Side.ABOVE


def _distances(arm: ArmResult, short: ArmResult, length: int) -> tuple[list[float], float] | None:
    """Validation losses of a long run at `length` minus those of runs that end there, by search or seed; their size."""
    found, scale = dict[int, float](), 0.0
    for seed, trial in sorted(short.confirm.items()):
        other, end = arm.confirm.get(seed), trial.metric(names.VAL_LOSS)
        if other is None or end is None or {trial.status, other.status} != {Status.FINISHED}:
            continue
        curve = other.curves.get(names.VAL_LOSS)
        if curve is None or len(curve.steps) == 0 or curve.steps[0] > length or curve.steps[-1] < length:
            continue
        at = float(np.interp(length, curve.steps, curve.values))
        if math.isfinite(at) and math.isfinite(end):
            found[seed] = at - end
            scale = max(scale, abs(at), abs(end))
    return (list(independent(found).values()), scale) if found else None
