"""What to beware of in a verdict: everything that could make the comparison less fair than it looks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from optsweep import tracking_names as names
from optsweep.report.comparison import ArmResult, Comparison, Group
from optsweep.report.wording import listed, plural, setting
from optsweep.tracking_names import Phase, Status

FEW_SEEDS = 5


def caveats(group: Group) -> Iterator[str]:
    """Sentences, the most important first."""
    yield from _incomplete(group)
    for arm in group.arms:
        # the sentence of a single comparison has said already who isn't bracketed
        yield from _arm_caveats(arm, arm is group.baseline, edges=len(group.comparisons) != 1)
    tested = [c.test.n for c in group.comparisons if c.test is not None]
    if tested and min(tested) < FEW_SEEDS:
        fewest = plural(min(tested), "seed")
        yield f"Few seeds: {fewest}. An interval from so few leans wholly on differences being normally distributed."
    yield from _unequal(group)
    for comparison in group.comparisons:
        yield from _over_time(comparison)
        if comparison.test is not None and comparison.time_ratio is None:
            missing = [arm for arm in (comparison.candidate, comparison.baseline) if arm.ms_per_step is None]
            yield f"No timing pass of {listed([arm.label for arm in missing])}: nothing is said about time."
    if any(comparison.test is not None for comparison in group.comparisons):
        yield "The intervals hold for the chosen settings; how lucky the search was is not part of them."


def _incomplete(group: Group) -> Iterator[str]:
    if group.sweep.absent:
        have = "has" if len(group.sweep.absent) == 1 else "have"
        yield f"Partial: {listed(list(group.sweep.absent))} {have} not started."
    for arm in group.arms:
        missing = [plural(arm.missing(phase), f"{phase} trial") for phase in Phase if arm.missing(phase)]
        if missing:
            yield f"Partial: {arm.label} still lacks {listed(missing)}."


def _arm_caveats(arm: ArmResult, is_baseline: bool, *, edges: bool) -> Iterator[str]:
    role = f"The baseline, {arm.label}," if is_baseline else arm.label
    for key, value in (arm.arm.chosen.params if arm.arm.chosen else {}).items():
        suggested = arm.arm.space.get(key)
        if suggested and not suggested.low * (1 - 1e-9) <= value <= suggested.high * (1 + 1e-9):
            side = "below" if value < suggested.low else "above"
            both = f"{setting(suggested.low)} – {setting(suggested.high)}"
            source = f" ({suggested.source})" if suggested.source else ""
            yield f"{role} has its best {key}, {setting(value)}, {side} the suggested range of {both}{source}."
    for key, side in arm.unbracketed if edges else ():
        yield f"{role} is not bracketed: no worse {key} was tried on the {side} side of the chosen one."
    if arm.diverged_seeds:
        yield f"{role} diverged on {seeds_diverged(arm)}; means are over the seeds that finished."
    crashed = sum(arm.count(phase, Status.CRASHED) for phase in Phase)
    if crashed:
        yield f"{role} has {plural(crashed, 'trial')} that crashed and gave no result."
    yield from (f"{arm.label}: {warning}" for warning in arm.arm.warnings)


def _unequal(group: Group) -> Iterator[str]:
    for key in ("num_steps", "batch_size", "num_parameters"):
        values = {arm.label: arm.arm.facts.get(key) for arm in group.arms}
        if len(set(values.values()) - {None}) > 1:
            each = listed([f"{label} {value}" for label, value in values.items()])
            yield f"The arms differ in {key}: {each}."
    done = {arm.label: len(arm.arm.of(Phase.SEARCH)) for arm in group.arms}
    if len(set(done.values())) > 1:
        each = listed([f"{label} {count}" for label, count in done.items()])
        yield f"The arms have had unequal numbers of search trials: {each}."


def _over_time(comparison: Comparison) -> Iterator[str]:
    """The order of the validation curves flips in the second half: the answer depends on where one stops."""
    curves = []
    for arm in (comparison.candidate, comparison.baseline):
        found = [trial.curves.get(names.VAL_LOSS) for trial in arm.confirm.values() if trial.status is Status.FINISHED]
        held = [curve for curve in found if curve is not None and len(curve.steps)]
        if not held:
            return
        shared = [curve for curve in held if len(curve.steps) == len(held[0].steps)]
        curves.append((shared[0].steps, np.median([curve.values for curve in shared], axis=0)))
    (steps, ours), (other, theirs) = curves
    if len(steps) != len(other) or (steps != other).any() or len(steps) < 4:
        return
    ahead = np.sign(ours - theirs)
    late = steps >= steps[-1] / 2
    flipped = late & (ahead == -ahead[-1]) & (ahead != 0)
    if flipped.any():
        last = int(steps[np.flatnonzero(flipped)[-1]])
        yield (
            f"The order of {comparison.candidate.label} and {comparison.baseline.label} flips late: at step {last} of "
            f"{int(steps[-1])} the median validation losses still stood the other way round."
        )


def seeds_diverged(arm: ArmResult) -> str:
    """ "2 of 8 seeds"."""
    return f"{arm.diverged_seeds} of {plural(len(arm.confirm), 'seed')}"
