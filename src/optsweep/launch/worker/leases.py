"""The leases of trials in training: kept as long as there is progress, and given up by who sees them run out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from optsweep.search.heartbeat import BEAT_SECONDS, Heartbeat
from optsweep.search.ownership import Claim, Lease, LeaseLostError
from optsweep.search.process import is_alive, machine_of
from optsweep.search.studies import Studies

LEASE_SECONDS = 300.0
"""How long a worker may be silent, whose code may hold the interpreter; on one machine its death is noticed at once."""

MACHINE_SECONDS = 60.0
"""How long it may be silent on a machine of which nothing is heard: whoever helps there runs nobody's code."""

LOOK_SECONDS = 5.0
"""Between two looks for such machines."""

FIRST_RUNG_SECONDS = 6 * 3600.0
"""How long a worker may take to build an arm and train its first rung: nobody knows yet how long that is."""

RUNGS_WITHOUT = 10
LEAST_PROGRESS_SECONDS = 600.0
"""A worker that takes ten times its longest rung, and at least as long as this, over one hangs."""

Clock = Callable[[], float]
"""Seconds that only grow, whatever is done to the time of day."""


class LeaseKeeper:
    """Renews the leases of trials, named by their keys, from a thread of its own while they make progress.

    A rung of any is progress of all: they train side by side or one after the other. Trials that hang are renewed no
    more, so that they are taken from their worker, whose thread may well be alive.
    """

    def __init__(
        self,
        studies: Studies,
        clock: Clock = time.monotonic,
        timeout: float | None = None,  # seconds without progress; None: as long as its rungs suggest
    ) -> None:
        self.lost: set[int] = set()  # those that somebody else has by now
        self._studies, self._clock, self._timeout = studies, clock, timeout
        self._storing = 0
        self._held: dict[int, Claim] = {}
        self._last = clock()
        self._longest: float | None = None  # seconds between two rungs
        self._heartbeat = Heartbeat(self.beat)

    def __enter__(self) -> LeaseKeeper:
        self._heartbeat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._heartbeat.stop()

    def rung(self, step: int) -> None:
        """A trial was evaluated after `step` steps; before the first, that says nothing of how long a rung takes."""
        now = self._clock()
        if step > 0:
            self._longest = max(self._longest or 0.0, now - self._last)
        self._last = now

    def add(self, key: int, claim: Claim) -> None:
        """Keep the lease of a trial, too."""
        self._held[key] = claim

    def ended(self, key: int) -> None:
        """A trial needs no lease any more."""
        self._held.pop(key, None)

    def beat(self) -> None:
        """Renew, unless they hang."""
        if self.overdue():
            return
        for key, claim in list(self._held.items()):
            try:
                self._studies.renew(claim, LEASE_SECONDS)
            except LeaseLostError:
                if self._held.pop(key, None) is not None:  # and not told just now
                    self.lost.add(key)

    @property
    def all_lost(self) -> bool:
        """Whether whoever trains does so for nobody."""
        return bool(self.lost) and not self._held

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Within it the stores are written: what that takes, an outage included, is none of the trials' time."""
        self._storing += 1
        try:
            yield
        finally:
            self._last = self._clock()
            self._storing -= 1

    def overdue(self) -> bool:
        """Whether the trials hang: no rung of any of them for longer than the patience with them."""
        return not self._storing and self._clock() - self._last > self.patience

    @property
    def patience(self) -> float:
        """Seconds that they may be without progress."""
        if self._timeout is not None:
            return self._timeout
        if self._longest is None:
            return FIRST_RUNG_SECONDS
        return max(RUNGS_WITHOUT * self._longest, LEAST_PROGRESS_SECONDS)


class LeaseWatch:
    """Tells which workers are gone: dead on this host, or silent until their lease had run out, here or elsewhere.

    A lease that has run out is looked at again after three beats: the database's clock may have been set, or the
    machine may have slept, and a worker that lives renews it by then. `lost` are machines of which nothing is heard any
    more: what is left of the leases there counts for less.
    """

    def __init__(
        self,
        clock: Clock = time.monotonic,
        patience: float = 3 * BEAT_SECONDS,
        lost: Callable[[], Collection[str]] = lambda: (),
    ) -> None:
        self._clock, self._patience, self._lost = clock, patience, lost
        self._expired_since: dict[Claim, float] = {}
        self._found: tuple[float, Collection[str]] = -math.inf, ()  # when, and which

    def dead(self, leases: Iterable[Lease]) -> set[str]:
        """The workers of these leases that are known to be dead; each is looked at once."""
        return {worker for worker in {lease.worker for lease in leases} if is_alive(worker) is False}

    def out_of_sight(self, lease: Lease) -> bool:
        """Whether nobody here can tell if its worker lives: another host's, or another container's."""
        return is_alive(lease.worker) is None

    def seconds_until_silent(self, lease: Lease) -> float:
        """How long it is until then, if its worker doesn't renew it."""
        return max(0.0, lease.left - self.left(lease)) + self._patience

    def left(self, lease: Lease) -> float:
        """Seconds of a lease that count as none."""
        if not self.out_of_sight(lease):
            return 0.0
        if self._clock() - self._found[0] > LOOK_SECONDS:
            self._found = self._clock(), self._lost()
        return LEASE_SECONDS - MACHINE_SECONDS if machine_of(lease.worker) in self._found[1] else 0.0

    def silent(self, lease: Lease) -> bool:
        """Whether its worker has had its chance to renew a lease that ran out."""
        if not lease.expired and lease.left >= self.left(lease):
            self._expired_since.pop(lease.claim, None)
            return False
        since = self._expired_since.setdefault(lease.claim, self._clock())
        return self._clock() - since >= self._patience
