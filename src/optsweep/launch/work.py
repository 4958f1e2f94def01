"""Runs planner and workers until nothing is left, or the user stops them. A storage that fails is waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import partial

from optsweep.errors import UserError
from optsweep.launch.events import Observer, Progressed, Stopped
from optsweep.launch.files import spool_of
from optsweep.launch.planner import Planner
from optsweep.launch.pools.pool import Pool
from optsweep.launch.stop import StopRequest
from optsweep.launch.worker.job import Job
from optsweep.tracking.courier import Courier
from optsweep.tracking.outage import Outage, StoreFailureError, once, patiently

POLL_SECONDS = 1.0
"""The planner wakes up when a trial ends, and this often."""


def work(
    planner: Planner, jobs: Sequence[Job], pool: Pool | None, command: str, observe: Observer, storage: Outage
) -> int:
    """Run until the planner has nothing left, here if there is no pool; returns the number of trials that ended.

    Raises KeyboardInterrupt when the user stopped it; what ran is given up then, and free for the next call.
    StoreFailureError when the studies' `storage` was away for too long.
    """
    finished = patiently(planner.step, storage)
    planner.done_before = before = planner.num_done()
    observe(Progressed(planner.progress))
    if finished:
        return 0
    with StopRequest(at_a_rung=pool is None) as stop:
        try:
            if pool is None:
                _work_here(planner, jobs, observe, stop, storage)
            else:
                _work_there(planner, jobs, pool, observe, stop, storage)
        except KeyboardInterrupt:  # the second one
            with contextlib.suppress(Exception):  # of a write that it cut off
                _stop(planner, pool, command, observe, storage)
            raise
        except StoreFailureError:
            if not stop.asked:  # else nobody waits for the store any longer, which is no fault of it
                raise
        if stop.asked:
            _stop(planner, pool, command, observe, storage)
            raise KeyboardInterrupt
    observe(Progressed(planner.progress))
    return planner.num_done() - before


def _step(planner: Planner, storage: Outage) -> bool:
    """One step, which comes again where the storage fails: workers are watched meanwhile, and the user is heard."""
    return bool(once(planner.step, storage))


def _watch(pool: Pool, planner: Planner, stop: StopRequest, storage: Outage) -> None:
    """Wait for something to happen. A worker that dies while the sweep is stopped got the same signal: no crash."""
    try:
        dead = pool.wait(POLL_SECONDS)
    except UserError:
        if stop.asked:
            return
        raise
    if not stop.asked:
        for worker, reason in dead:
            patiently(partial(planner.lose_worker, worker, reason), storage, lambda: stop.asked)


def _stop(planner: Planner, pool: Pool | None, command: str, observe: Observer, storage: Outage) -> None:
    """Give up what runs, and say how to go on."""
    if pool is not None:
        pool.stop()
    with contextlib.suppress(StoreFailureError):  # the next call finds that its workers are gone
        patiently(lambda: planner.release_all("interrupted by the user"), storage, lambda: True)
    observe(Stopped(sum(p.done for p in planner.progress), sum(p.total for p in planner.progress), command))


def _work_there(
    planner: Planner, jobs: Sequence[Job], pool: Pool, observe: Observer, stop: StopRequest, storage: Outage
) -> None:
    """Workers train; this process has MLflow anyway, and delivers what they write."""
    with contextlib.closing(Courier(spool_of(jobs[0].arm), seconds=POLL_SECONDS)):
        pool.assign(jobs)
        while not stop.asked and not _step(planner, storage):
            observe(Progressed(planner.progress))
            _watch(pool, planner, stop, storage)


def _work_here(planner: Planner, jobs: Sequence[Job], observe: Observer, stop: StopRequest, storage: Outage) -> None:
    from optsweep.launch.worker.worker import Worker  # which trains

    with contextlib.closing(Worker(jobs, stopping=lambda: stop.asked)) as worker:
        while not stop.asked and not _step(planner, storage):
            observe(Progressed(planner.progress))
            if not worker.work_once():
                time.sleep(POLL_SECONDS)
