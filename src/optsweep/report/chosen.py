"""The chosen setting in words, beyond learning rate and weight decay: what the search took among choices or ranges."""

from __future__ import annotations

from collections.abc import Mapping

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.wording import listed, setting
from optsweep.tracking.reader import LEARNING_RATE, WEIGHT_DECAY
from optsweep.tracking.schema import Setting

_OWN_COLUMN = (LEARNING_RATE, WEIGHT_DECAY)


def also_chosen(arm: ArmResult) -> Mapping[str, Setting]:
    """Chosen values of all searched keys but learning rate and weight decay."""
    chosen = arm.arm.chosen
    held = {**chosen.params, **chosen.choices} if chosen else {}
    return {key: value for key, value in held.items() if key not in _OWN_COLUMN}


def any_chosen(group: Group) -> bool:
    """Whether an arm of the group searched more than learning rate and weight decay."""
    return any(also_chosen(arm) for arm in group.arms)


def in_words(arm: ArmResult) -> str:
    """ "task.batch_size 32 and trainer.clip_norm 0.5"; empty where there is nothing else."""
    return listed([f"{key} {word(value)}" for key, value in also_chosen(arm).items()])


def word(value: Setting) -> str:
    """A value as a config has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, str) else setting(value)
