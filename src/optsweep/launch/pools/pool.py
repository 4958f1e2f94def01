"""What a pool of workers is, wherever they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from optsweep.launch.worker.inquiries import Asker
from optsweep.launch.worker.job import Job


class Pool(Asker, Protocol):
    """Workers that the planner deals jobs to, asks, and watches; a dead one is replaced.

    Use as a context manager: leaving it ends them all, in the middle of their trials if an error is the reason.
    """

    @property
    def size(self) -> int | None:
        """How many workers it has room for, where nobody says how many; None: as this machine has cores or devices."""

    def start_one(self) -> None:
        """Start a worker, if there is none."""

    def deal(self, devices: Sequence[str]) -> None:
        """As many workers are wanted as there are devices in this list."""

    def start(self) -> None:
        """Start the workers that are not there yet. All import what trials take, which may be before there are jobs."""

    def assign(self, jobs: Sequence[Job]) -> None:
        """Tell the workers what to work on."""

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Wait until a trial ends, a worker dies, or time is up; returns (name, reason) of dead workers.

        They are replaced, after a pause that grows until trials end again. Raises UserError if a worker fails before it
        is ready, if several in a row are killed then while none trains, or if one can no longer write.
        """

    def retire(self) -> None:
        """Keep one worker, which is to answer alone on the machine."""

    def kill(self, worker: str) -> None:
        """End one worker, by its name; `wait` finds it dead. One that isn't of this pool is left alone."""

    def dismiss(self) -> None:
        """Tell the workers to end; that they have is waited for when the pool is left."""

    def stop(self) -> None:
        """End all workers at once, in the middle of their trials."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
