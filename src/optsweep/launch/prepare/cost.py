"""What a sweep will cost before it is started: trials × time, from steps that were timed and evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optsweep.config.arm import Arm
from optsweep.inference.looks import AUTO, LOOKS, REPEAT_LOOKS
from optsweep.launch.events import Planned
from optsweep.launch.prepare.fit import FittedLanes
from optsweep.report.wording import plural


@dataclass(frozen=True)
class ArmCost:
    """An arm's part."""

    label: str
    trials: tuple[int, int]  # at least and at most: `auto` stops when the arms are told apart
    steps: int
    seconds: tuple[float, float] | None  # of all its trials; None: its steps were not timed

    @property
    def trial_seconds(self) -> float | None:
        """Of one trial."""
        return None if self.seconds is None else self.seconds[0] / self.trials[0]


@dataclass(frozen=True)
class Cost:
    """All arms, trained by one worker; several of them share the work, where they don't slow each other down."""

    arms: tuple[ArmCost, ...]
    workers: int  # that the sweep would have

    @property
    def trials(self) -> tuple[int, int]:
        """Of all arms."""
        return sum(arm.trials[0] for arm in self.arms), sum(arm.trials[1] for arm in self.arms)

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Of all arms; None if one isn't known."""
        known = [arm.seconds for arm in self.arms if arm.seconds is not None]
        if len(known) < len(self.arms):
            return None
        return sum(least for least, _ in known), sum(most for _, most in known)


@dataclass(frozen=True)
class Evaluations:
    """Seconds of a pass over the validation split, and of what follows a confirm trial's last step."""

    val: float = 0.0
    test: float = 0.0


def cost_of(arm: Arm, label: str, ms_per_step: float | None, rungs: int, evaluations: Evaluations) -> ArmCost:
    """Of an arm whose trials are evaluated `rungs` times after the start."""
    repeats = (REPEAT_LOOKS[0], REPEAT_LOOKS[-1]) if arm.repeats == AUTO else (arm.repeats, arm.repeats)
    seeds = (LOOKS[0], LOOKS[-1]) if arm.confirm_seeds == AUTO else (arm.confirm_seeds, arm.confirm_seeds)
    searched = arm.search.trials
    least, most = (r * (searched + s) for r, s in zip(repeats, seeds, strict=True))
    seconds = None
    if ms_per_step is not None:
        trial = arm.trainer.steps * ms_per_step / 1000 + (rungs + 1) * evaluations.val
        tests = (r * s * evaluations.test for r, s in zip(repeats, seeds, strict=True))
        low, high = (n * trial + test for n, test in zip((least, most), tests, strict=True))
        seconds = low, high
    return ArmCost(label, (least, most), arm.trainer.steps, seconds)


def foreseen(
    arms: Sequence[Arm],
    labels: Mapping[str, str],
    fitted: Mapping[str, FittedLanes],
    before: Mapping[str, tuple[int, float]],
    baseline: str,
) -> Planned:
    """What a sweep will train: timed by trials of the same settings before, or by steps that were tried for lanes."""
    steps = [arm.trainer.steps for arm in arms]
    seconds = {labels[arm.name]: _trial_seconds(arm, fitted[arm.name], before) for arm in arms}
    earlier = sum(count for count, _ in before.values())
    return Planned(
        baseline if len(arms) > 1 else "",
        (min(steps), max(steps)),
        {label: found for label, found in seconds.items() if found is not None},
        f"as {plural(earlier, 'such trial')} took before" if earlier else "by steps that were timed now",
    )


def _trial_seconds(arm: Arm, fitted: FittedLanes, before: Mapping[str, tuple[int, float]]) -> float | None:
    """Of a trial, as far as anything is known of it."""
    if arm.name in before:
        return before[arm.name][1]
    return arm.trainer.steps * fitted.times.one / 1000 / fitted.speedup if fitted.times.one else None
