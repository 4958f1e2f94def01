"""What the command line hands through Hydra to the launchers: the task function of every job.

Hydra gives it to our launcher as it is, and pickles it for the jobs that a stock launcher runs in other processes; so
nothing has to be left in the environment or in a module for them to find. It is no part of `hydra_plugins`: those
modules Hydra's scan executes once more where they are installed, and what they define exists twice then.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from optsweep.errors import without_secrets


@dataclass(frozen=True)
class Command:
    """A call of `optsweep`."""

    arguments: tuple[str, ...]  # as typed, with the sweep's name
    axes: tuple[str, ...]  # keys other than groups that the multirun sweeps over: they tell arms apart
    labels: Mapping[str, str] = field(default_factory=dict)  # of all arms, for jobs that know one

    @property
    def line(self) -> str:
        """The command line that repeats the call, without passwords: it goes into the report."""
        return without_secrets(shlex.join(["optsweep", *self.arguments]))

    def __call__(self, config: DictConfig) -> Any:
        """One job of a stock launcher: plans and works its own arm in this process."""
        from optsweep.config.door import arm_of
        from optsweep.launch.display import Display
        from optsweep.launch.sweep import run_sweep

        full = OmegaConf.create({**config, "hydra": HydraConfig.get()})
        with Display() as display:
            arms = [arm_of(full, self.axes)]
            return run_sweep(arms, workers=0, among=self.labels, command=self.line, observe=display)
