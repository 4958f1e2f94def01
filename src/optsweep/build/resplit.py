"""Further repeats may divide a task's data into training and validation anew; the test split stays."""

from __future__ import annotations

from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.search.slots import seed_of
from optsweep.tasks.base import Trainable


def redraws(arm: Arm, task: Trainable) -> bool:
    """Whether further repeats divide training and validation anew. Raises UserError if that was asked for in vain."""
    if arm.task.resplit and not task.resplits:
        raise UserError(
            f"task.resplit: {arm.task.name} has no split into training and validation that could be drawn anew; give "
            f"false or null"
        )
    return task.resplits and arm.task.resplit is not False


def divided(arm: Arm, task: Trainable, repeat: int) -> Trainable:
    """The arm's task as a repeat has it; that of the first is as it is."""
    return task.resplit(seed_of(arm.seed, "split", repeat)) if repeat and redraws(arm, task) else task
