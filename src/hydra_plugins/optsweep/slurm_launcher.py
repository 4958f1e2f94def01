"""The `slurm` launcher: a sweep as jobs of a cluster, which go on when the terminal is closed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optsweep.launch.slurm.request import SlurmRequest
from optsweep.launcher import SweepLauncher

if TYPE_CHECKING:
    from optsweep.api import Finished
    from optsweep.config.arm import Arm
    from optsweep.launch.events import Observer


class SlurmLauncher(SweepLauncher[SlurmRequest]):
    """Submits the sweep, or says how its jobs stand; in the job that plans, runs it there."""

    declared = SlurmRequest

    def run(self, arms: Sequence[Arm], observe: Observer) -> Finished:
        """Run the sweep. Raises GoesOnError where its jobs are under way."""
        from optsweep import api
        from optsweep.launch.slurm.job import PLANNER_VARIABLE

        options, command, first = self.options, self.command, arms[0]
        if os.environ.pop(PLANNER_VARIABLE, None):
            workers = options.processes(first.trainer.threads * first.trainer.ranks)
            return api.run(arms, workers=workers, report=options.report, command=command.line, observe=observe)
        from optsweep.launch.last_page import is_whole
        from optsweep.launch.settled import check_page
        from optsweep.launch.slurm.sweep import SlurmSweep

        if options.report:
            check_page(first, api.REPORTS / first.sweep)
        result = SlurmSweep(arms, command.arguments, command.line, options, options.report, _say).carry_on()
        if not options.report:
            return api.Finished(result, None, None)
        index, written = api.REPORTS / first.sweep / "index.html", None
        if is_whole(index.parent, result.run):  # by a job, which has said it in its log
            _say(f"{api.load(index.parent / 'results.json').verdict}\n")
        else:
            written = api.report(first.tracking_uri, [first.sweep], storage=first.storage)
        return api.Finished(result, written, index)


def _say(line: str) -> None:
    print(line, flush=True)
