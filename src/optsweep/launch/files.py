"""The files of a sweep's stores, which somebody may take away while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from optsweep.address import STORAGE_KEY, TRACKING_KEY, read_address
from optsweep.config.arm import Arm
from optsweep.database import OpenFiles, StoreGoneError
from optsweep.search.seats import Seat
from optsweep.tracking.spool import Spool


@dataclass(frozen=True)
class SweepFiles:
    """The files that a sweep's planner has open. A seat in one that is gone can't be given up any more."""

    open_files: OpenFiles
    seat: Seat

    def check(self) -> None:
        """Raises StoreGoneError."""
        try:
            self.open_files.check()
        except StoreGoneError:
            self.seat.lost = True
            raise


@contextlib.contextmanager
def sweep_files(arm: Arm, seat: Seat) -> Iterator[SweepFiles]:
    """Those of an arm's sweep; what fails while one is gone is its fault."""
    addresses = [read_address(TRACKING_KEY, arm.tracking_uri), read_address(STORAGE_KEY, arm.storage)]
    files = SweepFiles(OpenFiles(addresses), seat)
    try:
        yield files
    except Exception:
        files.check()
        raise


def spool_of(arm: Arm) -> Spool:
    """Where the trials of an arm's sweep wait for their way into MLflow."""
    return Spool.of(arm.tracking_uri, arm.storage, arm.sweep)
