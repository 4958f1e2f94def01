"""The learning rates that the arms of a results.json went through, computed from their configs."""

from __future__ import annotations

from dataclasses import replace

from optsweep.errors import UserError
from optsweep.tracking.reader import ArmRecord, SweepRecord
from optsweep.tracking.schema import ScheduleTrace


def with_schedules(sweep: SweepRecord) -> tuple[ArmRecord, ...]:
    """The arms with their schedules, where those can be made here."""
    return tuple(replace(arm, schedule=_trace(arm)) for arm in sweep.arms)


def _trace(arm: ArmRecord) -> ScheduleTrace | None:
    import numpy as np

    from optsweep.build.optimizer_call import schedule_of
    from optsweep.result.best import config_of

    try:
        config = config_of(arm)
        steps = config.trainer.steps
        schedule = schedule_of(config, arm.optimizer, int(arm.facts.get("warmup_steps", 0)), steps)
    except (UserError, ValueError):  # a schedule of the user's own that isn't here, results of before
        return None
    if schedule.listens:
        return None
    return ScheduleTrace(np.arange(steps), schedule.multipliers(steps, steps))
