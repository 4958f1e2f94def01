"""How many lanes a device has room for: fewer, once its memory ran out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optsweep.launch.worker.lane_memory import LaneMemory
from optsweep.terminal import complain
from optsweep.train.device import is_out_of_memory

if TYPE_CHECKING:  # who asks
    from optsweep.launch.worker.job import Job


class LaneRoom:
    """What a worker has learnt of its device, by arm; what is of a measured program is kept for the next sweep too."""

    def __init__(self) -> None:
        self._most: dict[str, int] = {}

    def lanes(self, job: Job) -> int:
        """The arm's lanes, as many as there is room for."""
        lanes = job.arm.trainer.given_lanes or 1
        return min(lanes, self._most.get(job.arm.name, lanes))

    def ran_out(self, job: Job, together: int, error: Exception) -> str:
        """Why trials that trained together go on in half as many lanes; empty if that isn't what the error asks for."""
        if together < 2 or not is_out_of_memory(error):
            return ""
        most = self._most[job.arm.name] = together // 2
        LaneMemory.of(job.arm.storage).narrow(job.lanes_key, most)
        now = f"{most} at a time" if most > 1 else "one by one"
        reason = f"memory ran out with {together} trials in lanes, which go on {now}"
        complain(f"{job.label}: {reason}")
        return reason
