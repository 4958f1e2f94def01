"""Runs planner and workers until nothing is left, or the user stops them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from optsweep.errors import UserError
from optsweep.launch.events import Observer, Progressed, Stopped
from optsweep.launch.planner import Planner
from optsweep.launch.pool import Pool
from optsweep.launch.stop import StopRequest
from optsweep.launch.worker import Job, Worker

POLL_SECONDS = 1.0
"""The planner wakes up when a trial ends, and this often."""


def work(planner: Planner, jobs: Sequence[Job], pool: Pool | None, command: str, observe: Observer) -> int:
    """Run until the planner has nothing left, here if there is no pool; returns the number of trials that ended.

    Raises KeyboardInterrupt when the user stopped it; what ran is given up then, and free for the next call.
    """
    finished = planner.step()
    planner.done_before = before = planner.num_done()
    observe(Progressed(planner.progress))
    if finished:
        return 0
    with StopRequest(at_a_rung=pool is None) as stop:
        try:
            if pool is None:
                _work_here(planner, jobs, observe, stop)
            else:
                pool.assign(jobs)
                while not stop.asked and not planner.step():
                    observe(Progressed(planner.progress))
                    _watch(pool, planner, stop)
        except KeyboardInterrupt:  # the second one
            with contextlib.suppress(Exception):  # of a write that it cut off
                _stop(planner, pool, command, observe)
            raise
        if stop.asked:
            _stop(planner, pool, command, observe)
            raise KeyboardInterrupt
    observe(Progressed(planner.progress))
    return planner.num_done() - before


def _watch(pool: Pool, planner: Planner, stop: StopRequest) -> None:
    """Wait for something to happen. A worker that dies while the sweep is stopped got the same signal: no crash."""
    try:
        dead = pool.wait(POLL_SECONDS)
    except UserError:
        if stop.asked:
            return
        raise
    if not stop.asked:
        for worker, reason in dead:
            planner.lose_worker(worker, reason)


def _stop(planner: Planner, pool: Pool | None, command: str, observe: Observer) -> None:
    """Give up what runs, and say how to go on."""
    if pool is not None:
        pool.stop()
    planner.release_all("interrupted by the user")
    observe(Stopped(sum(p.done for p in planner.progress), sum(p.total for p in planner.progress), command))


def _work_here(planner: Planner, jobs: Sequence[Job], observe: Observer, stop: StopRequest) -> None:
    worker = Worker(jobs, stopping=lambda: stop.asked)
    while not stop.asked and not planner.step():
        observe(Progressed(planner.progress))
        if not worker.work_once():
            time.sleep(POLL_SECONDS)
