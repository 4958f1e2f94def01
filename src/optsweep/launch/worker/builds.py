"""The arms that a process has built: each once, those of one task with one copy of its data."""

from __future__ import annotations

import torch

from optsweep.build.assemble import Built, build_arm, device_of
from optsweep.build.named_task import task_for
from optsweep.build.resplit import redraws
from optsweep.config.arm import Arm
from optsweep.tasks.base import Trainable


class Builds:
    """Builds arms for `device`; None: for that which the arm asks for."""

    def __init__(self, device: str | None = None) -> None:
        self.device = device
        self._tasks: dict[str, Trainable] = {}
        self._built: dict[tuple[str, int, bool], Built] = {}

    def of(self, arm: Arm, repeat: int = 0) -> Built:
        """The arm as the repeat has it, which is another one where the split is drawn anew."""
        task = self.task_of(arm)
        of = arm.name, repeat if redraws(arm, task) else 0, arm.trainer.in_lanes
        if of not in self._built:
            self._built[of] = build_arm(arm, task, self.device_of(arm), repeat)
        return self._built[of]

    def task_of(self, arm: Arm) -> Trainable:
        """The arm's task."""
        key = repr(arm.task)
        if key not in self._tasks:
            self._tasks[key] = task_for(arm)
        return self._tasks[key]

    def device_of(self, arm: Arm) -> torch.device:
        """Where the arm is trained."""
        return device_of(arm.trainer.device if self.device is None else self.device)
