"""Signs of life: who plans a sweep and who trains for it, and how long ago the storage heard of them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from optsweep.search.helping import HELP_SECONDS
from optsweep.search.overview import in_sweep
from optsweep.search.process import in_words, is_alive
from optsweep.search.seats import SEAT_SECONDS, planners
from optsweep.search.tables import HELPERS, LEASES, STUDIES, TRIALS, clock


@dataclass(frozen=True)
class Sign:
    """A process that holds something of a sweep."""

    process: str  # in words
    trials: int | None  # that it trains; None: it plans, or helps
    seconds: float  # since it renewed its lease
    alive: bool | None  # None: it is on another host
    helpers: int = 0  # workers of a process that helps, as `optsweep work` does
    expired: bool = False  # what it holds is free for others

    @property
    def at_work(self) -> bool:
        """Whether it lives; of another host's that is known by its lease only."""
        return not self.expired if self.alive is None else self.alive


def signs_of_life(engine: Engine, sweep: str, lease_seconds: float) -> list[Sign]:
    """The planner first, then who helps, then the workers with a trial, whose leases are for `lease_seconds`."""
    now = clock(engine)
    joined = LEASES.join(TRIALS, TRIALS.c.trial_id == LEASES.c.trial_id).join(STUDIES)
    leases = (
        select(LEASES.c.worker, func.count(), func.max(LEASES.c.expires - now))
        .select_from(joined)
        .where(in_sweep(sweep), LEASES.c.worker.is_not(None))
        .group_by(LEASES.c.worker)
        .order_by(LEASES.c.worker)
    )
    helping = select(HELPERS.c.process, HELPERS.c.workers, HELPERS.c.expires - now).where(HELPERS.c.sweep == sweep)
    with engine.connect() as connection:
        helpers = connection.execute(helping.where(HELPERS.c.expires > now).order_by(HELPERS.c.process)).all()
        planning = planners(connection, sweep)
        workers = connection.execute(leases).all()

    def sign(name: str, trials: int | None, left: float, lease: float, helpers: int = 0) -> Sign:
        return Sign(in_words(name), trials, max(0.0, lease - left), is_alive(name), helpers, left < 0)

    return [
        *(sign(holder, None, left, SEAT_SECONDS) for holder, left in planning),
        *(sign(name, None, left, HELP_SECONDS, count) for name, count, left in helpers),
        *(sign(worker, count, left, lease_seconds) for worker, count, left in workers),
    ]
