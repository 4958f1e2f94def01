"""Whether torchrun has started this process, as one of the ranks of a trial."""

from __future__ import annotations

import os
from dataclasses import dataclass

from optsweep.config.arm import Arm
from optsweep.errors import UserError


@dataclass(frozen=True)
class Launched:
    """What torchrun says of this process."""

    rank: int
    size: int
    local_rank: int

    def check(self, arm: Arm, workers: int | None) -> None:
        """Raise UserError if these are no ranks of one trial of the arm."""
        if self.rank:
            raise UserError("torchrun: optsweep's own command is to be started by it (-m optsweep …), not a script")
        if arm.trainer.ranks != self.size:
            raise UserError(
                f"trainer.ranks: a trial of this sweep takes {arm.trainer.ranks}, and torchrun has started {self.size} "
                f"processes; give --nnodes and --nproc-per-node whose product is trainer.ranks"
            )
        if workers not in (None, 1):
            raise UserError(f"workers: the processes that torchrun has started are one worker, not {workers}")

    def first_device(self, devices: list[str]) -> str:
        """Of this process, whose machine has these."""
        return devices[self.local_rank] if len(devices) > self.local_rank else devices[0]


def launched() -> Launched | None:
    """What torchrun says; None: it hasn't started this process, or only this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    found = Launched(*(int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    return found if found.size > 1 else None
