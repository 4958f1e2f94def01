"""What a rank is to follow, and how ranks meet: the same for those started here and by torchrun."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from optsweep.config.arm import Arm
from optsweep.errors import UserError, located
from optsweep.launch.worker.builds import Builds
from optsweep.tracking.outage import PATIENCE_SECONDS

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    from optsweep.search.space import Params
    from optsweep.train.ranks import Ranks

TIMEOUT = timedelta(seconds=PATIENCE_SECONDS + 1800)
"""How long ranks wait for one another at most: rank 0 may wait for a store between two steps."""


@dataclass(frozen=True)
class LostRank:
    """Why a rank follows no more."""

    reason: str
    died: bool = False  # as killed from outside; else it is the trial's own error

    @classmethod
    def of(cls, rank: int, error: BaseException) -> LostRank:
        """In a line."""
        said = str(error) if isinstance(error, UserError) else located(error)[:500]
        return cls(f"rank {rank}: {said}")


class RankError(UserError):
    """A rank has failed, or died."""

    def __init__(self, failed: LostRank) -> None:
        super().__init__(failed.reason)
        self.failed = failed


@dataclass(frozen=True)
class ToFollow:
    """What a rank is to train next with rank 0: a setting of an arm, which is another where the fingerprint is."""

    arm: Arm
    repeat: int
    params: Params
    fingerprint: str

    @classmethod
    def of(cls, arm: Arm, repeat: int, params: Params, builds: Builds) -> ToFollow:
        """As it may travel: where the stores are, and by which password, is nothing to a rank."""
        bare = replace(arm, storage=Arm.storage, tracking_uri="sqlite:///none.db", yaml="")
        return cls(bare, repeat, params, builds.of(arm, repeat).fingerprint)

    def run(self, builds: Builds, group: Ranks) -> None:
        """Follow rank 0 until it has done with this. Raises whatever the model raises."""
        from optsweep.train.following import follow
        from optsweep.train.process import threads
        from optsweep.train.program import Program

        with threads(self.arm.trainer.threads):
            built = builds.of(self.arm, self.repeat)
            if built.fingerprint != self.fingerprint:
                raise UserError(f"the arm is another in rank {group.rank} than in rank 0: other code, data or device")
            program = built.program_for(self.params)
            assert isinstance(program, Program), "loops of users are refused"
            follow(program, group)


def opened(store: Store, rank: int, size: int, device: str) -> Ranks:
    """This process as one of a group that meets in a store."""
    import torch
    import torch.distributed as dist

    from optsweep.train.ranks import Ranks

    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    return Ranks(rank, size)


def device_of_rank(device: str, rank: int) -> str:
    """Where a rank on the machine of rank 0 trains, whose device is the first of theirs."""
    kind, _, number = device.partition(":")
    return f"cuda:{int(number or 0) + rank}" if kind == "cuda" else device
