"""The `ray` launcher: the planner in this process, workers as actors on a Ray cluster, or a Ray of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optsweep.config.launchers import RayOptions
from optsweep.launcher import SweepLauncher

if TYPE_CHECKING:
    from optsweep.api import Finished
    from optsweep.config.arm import Arm
    from optsweep.launch.events import Observer
    from optsweep.launch.pools.pool import Pool


class RayLauncher(SweepLauncher[RayOptions]):
    """Runs the trials in actors."""

    declared = RayOptions

    def run(self, arms: Sequence[Arm], observe: Observer) -> Finished:
        """Run the sweep."""
        from optsweep import api

        def make_pool() -> Pool:
            return _pool(self.options, arms[0])

        options, command = self.options, self.command.line
        return api.run(
            arms, workers=options.workers, report=options.report, command=command, observe=observe, make_pool=make_pool
        )


def _pool(options: RayOptions, first: Arm) -> Pool:
    from optsweep.launch.pools.ray import RayPool
    from optsweep.launch.pools.ray_cluster import Needs, RayPlace
    from optsweep.tracking.store import preload

    threads, ranks = first.trainer.threads, first.trainer.ranks
    gpus = 0.0 if first.trainer.device == "cpu" and options.num_gpus is None else options.num_gpus
    cpus = float(threads * ranks) if options.num_cpus is None else options.num_cpus
    place, needs = RayPlace(options.address, options.runtime_env), Needs(cpus, gpus, options.resources, ranks)
    return RayPool(threads, place, needs, options.workers, meanwhile=preload)
