"""Which of an arm's planned trials have a result, search by search."""

from __future__ import annotations

from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, TrialRecord
from optsweep.tracking.schema import SweepPlan
from optsweep.train.trial import Phase

_LOST = (Status.DIVERGED, Status.CRASHED)


def lacking(arm: ArmRecord, plan: SweepPlan, num_seeds: int, phase: Phase, repeat: int) -> int:
    """Planned trials of a phase of one repeat without a result, where `num_seeds` confirm seeds are wanted."""
    if phase is Phase.CONFIRM and found_nothing(arm, plan, repeat):
        return 0
    done = sum(trial.status is not Status.RUNNING for trial in _of(arm, phase, repeat))
    return max((num_seeds if phase is Phase.CONFIRM else plan.planned(phase)) - done, 0)


def found_nothing(arm: ArmRecord, plan: SweepPlan, repeat: int) -> bool:
    """Whether a search is over without a setting that could be confirmed: every trial diverged or crashed."""
    if plan.planned(Phase.SEARCH) == 0 or lacking(arm, plan, 0, Phase.SEARCH, repeat):
        return False
    return all(trial.status in _LOST for phase in Phase for trial in _of(arm, phase, repeat))


def complete(arm: ArmRecord, plan: SweepPlan, num_seeds: int, repeats: int) -> list[int]:
    """Of so many repeats those of which every confirm trial has a result."""
    return [r for r in range(repeats) if not lacking(arm, plan, num_seeds, Phase.CONFIRM, r)]


def without_setting(arm: ArmRecord, plan: SweepPlan, num_seeds: int, repeats: int) -> int:
    """Confirm seeds of those of several searches that found nothing: as good as diverged themselves."""
    return num_seeds * sum(found_nothing(arm, plan, r) for r in range(repeats)) if repeats > 1 else 0


def _of(arm: ArmRecord, phase: Phase, repeat: int) -> list[TrialRecord]:
    return [trial for trial in arm.of(phase) if trial.repeat == repeat]
