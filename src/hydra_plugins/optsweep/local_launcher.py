"""The `local` launcher: one planner and a pool of workers on this machine, instead of one process per job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optsweep.config.launchers import LocalOptions
from optsweep.launcher import SweepLauncher

if TYPE_CHECKING:
    from optsweep.api import Finished
    from optsweep.config.arm import Arm
    from optsweep.launch.events import Observer


class LocalLauncher(SweepLauncher[LocalOptions]):
    """Runs the trials in `workers` processes of this machine."""

    declared = LocalOptions

    def run(self, arms: Sequence[Arm], observe: Observer) -> Finished:
        """Run the sweep."""
        from optsweep import api

        options, command = self.options, self.command.line
        return api.run(arms, workers=options.workers, report=options.report, command=command, observe=observe)
