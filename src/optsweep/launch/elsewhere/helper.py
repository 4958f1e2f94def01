"""Workers for a sweep that another process plans, anywhere that reaches its stores: what `optsweep work` does.

They are as its planner's own: each trial is had by one worker, and any may die. The planner learns of them from the
studies only, so what they tell there has reached MLflow before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from optuna.storages import RDBStorage

from optsweep.address import STORAGE_KEY, TRACKING_KEY, read_address
from optsweep.build.machine import THE_DEVICE
from optsweep.checks import whole
from optsweep.config.sections import MOST_WORKERS
from optsweep.errors import UserError
from optsweep.launch.elsewhere.posted import JOB, Posted, ToCompare, check_shared, taken_down
from optsweep.launch.pools.local import LocalPool
from optsweep.launch.prepare.continuity import IDENTITY
from optsweep.launch.prepare.devices import deal
from optsweep.launch.status import FINISHED, PLANNED, is_finished, repeats_of
from optsweep.launch.stop import StopRequest
from optsweep.launch.work import POLL_SECONDS
from optsweep.launch.worker.inquiries import DiedError
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.shared_folder import CHECKPOINTS
from optsweep.report.wording import plural
from optsweep.search.helping import Help, notes
from optsweep.search.storage import storage_at
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.outage import Outage, StoreFailureError, once, patiently, storage_outage
from optsweep.tracking.postman import deliver
from optsweep.tracking.spool import Spool

WAIT_SECONDS = 600.0
"""How long workers wait for a planner of a sweep that isn't done: one that was stopped may be started again."""

LOOK_SECONDS = 2.0
"""Between two looks whether the sweep is done, or planned by another process."""

T = TypeVar("T")
Say = Callable[[str], None]

Compare = Callable[[Sequence[Posted]], Sequence[str]]
"""What is another here than there, in words, by arm."""


def work_elsewhere(
    storage: str,
    tracking_uri: str,
    sweep: str,
    workers: int | None,
    say: Say,
    wait_seconds: float = WAIT_SECONDS,
    checkpoints: Path | None = None,
) -> None:
    """Train for a sweep until its planner says that it is done; `say` hears what there is to say.

    `checkpoints` is its folder of these where that has another path here; None: as its planner has it.
    Raises UserError for stores that can't be had, a sweep that isn't there, arms that are others here, and where nobody
    plans the sweep for `wait_seconds`. KeyboardInterrupt when the user stops it: its trials are given back.
    """
    if workers is not None:
        whole("--workers", workers, most=MOST_WORKERS)
    _check_stores(storage, tracking_uri)
    held = storage_at(storage, make=False)
    repeats_of(studies := Studies(held, sweep))
    store.check(tracking_uri, create=False)
    store.check_sweep(tracking_uri, sweep)
    spool = Spool.of(tracking_uri, storage, sweep)
    spool.make_home()
    outage = storage_outage(storage, spool.folder)
    if text := check_shared(notes(held.engine, sweep, (CHECKPOINTS,)), checkpoints):
        say(text)
    here = partial(_posted, held, sweep, storage, tracking_uri, checkpoints)
    posted = here()
    threads = posted[0].job.arm.trainer.threads
    with ExitStack() as until_the_end:
        pool = until_the_end.enter_context(LocalPool(threads, meanwhile=store.preload, apart=True))
        like = str(posted[0].identity.exact.get(THE_DEVICE, ""))
        count, devices = deal(pool, posted[0].job.arm, workers, say, like)
        help_ = until_the_end.enter_context(Help(held.engine, sweep, count))
        pool.deal([devices[i % len(devices)] for i in range(count)])
        helper = Helper(held, studies, pool, help_, outage, say, partial(_compared_beside, threads, devices[0]))
        helper.run(here, wait_seconds)
    with suppress(StoreFailureError):
        deliver(spool, lambda: True)  # what trials that were cut off have left


def _check_stores(storage: str, tracking_uri: str) -> None:
    """Raise UserError for a store that can't be had; none is made."""
    runs = read_address(TRACKING_KEY, tracking_uri)
    address = read_address(STORAGE_KEY, storage)
    for found in (address, runs):
        store.check_usable(found)
        if not found.is_there:
            raise UserError(f"{found.key}: there is no store at {found.file}; name that of the sweep's planner")


def _posted(
    held: RDBStorage, sweep: str, storage: str, tracking_uri: str, checkpoints: Path | None
) -> Sequence[Posted]:
    noted = notes(held.engine, sweep, (JOB, IDENTITY, CHECKPOINTS))
    found = {arm: of for arm, of in noted.items() if {JOB, IDENTITY} <= of.keys()}
    if not found:
        raise UserError(f"sweep {sweep} has no arm that its planner has posted; start its own command first")
    return taken_down(found, storage, tracking_uri, checkpoints)


def _compared_beside(threads: int, device: str, posted: Sequence[Posted]) -> Sequence[str]:
    """What is another here, from a process of its own: a worker answers between trials only, which may take hours."""
    with LocalPool(threads) as beside:
        beside.deal([device])
        return beside.ask(ToCompare(posted))


class Helper:
    """A pool of workers for a sweep, from the first look at it to the last. `beside` compares while they train."""

    def __init__(
        self,
        held: RDBStorage,
        studies: Studies,
        pool: LocalPool,
        help_: Help,
        outage: Outage,
        say: Say,
        beside: Compare,
    ) -> None:
        self._held, self._studies, self._pool, self._help = held, studies, pool, help_
        self._outage, self._say, self._beside = outage, say, beside
        self._posted: Sequence[Posted] = ()  # what was looked at
        self._jobs: Sequence[Job] = ()  # those of it that are worked

    def run(self, anew: Callable[[], Sequence[Posted]], wait_seconds: float) -> None:
        """Work until the sweep is done. Raises UserError and KeyboardInterrupt as `work_elsewhere` has it."""
        sweep = self._help.sweep
        with StopRequest(at_a_rung=False) as stop:
            planner = self._help.planner()  # before what it posts: another one's is seen to be another's
            self._posted = anew()
            if self._done([held.job for held in self._posted]):
                self._say(f"sweep {sweep} is done")
                return
            self._jobs = self._suitable(self._posted, lambda posted: self._pool.ask(ToCompare(posted)), [])
            self._pool.assign(self._jobs)
            self._say(
                f"sweep {sweep}: {plural(len(self._jobs), 'arm')}, {plural(self._help.workers, 'worker')} from here"
            )
            try:
                self._until_done(stop, planner, anew, wait_seconds)
            except UserError:
                self._stop("its helper has ended")
                raise
            if stop.asked:
                self._stop("interrupted by the user")
                raise KeyboardInterrupt
            self._pool.dismiss()
        self._say(f"sweep {sweep} is done")

    def _until_done(
        self, stop: StopRequest, planner: float | None, anew: Callable[[], Sequence[Posted]], wait_seconds: float
    ) -> None:
        """Until then, or it is asked to stop. Raises UserError where nobody plans it, or all is another here by now."""
        seen = time.monotonic()
        while not stop.asked and not self._safely(lambda: self._done(self._jobs)):
            now = self._safely(self._help.planner)
            if now is not None:
                seen = time.monotonic()
                another = now != planner  # which may have posted others
                if (another or self._safely(self._lacks)) and (found := self._safely(anew)) is not None:
                    planner = now
                    self._take(found)
            if time.monotonic() - seen > wait_seconds:
                raise UserError(
                    f"sweep.name={self._help.sweep}: nobody has planned this sweep for {wait_seconds:.0f} s, and it "
                    f"isn't done; start its own command, and then this one"
                )
            self._watch(stop, time.monotonic() + LOOK_SECONDS)

    def _lacks(self) -> bool:
        """Whether an arm is planned that wasn't there yet: they are posted one by one."""
        planned = {arm for arm, of in notes(self._held.engine, self._help.sweep, (PLANNED,)).items() if of[PLANNED]}
        return not planned <= {held.job.arm.name for held in self._posted}

    def _take(self, found: Sequence[Posted]) -> None:
        """Work what is posted now. A planner that goes on with the same arms changes nothing for the workers."""
        fresh = [held for held in found if held not in self._posted]
        if fresh:
            kept = [held.job for held in found if held not in fresh and held.job in self._jobs]
            self._jobs = self._suitable(fresh, self._beside, kept)
            self._pool.assign(self._jobs)
        self._posted = found

    def _watch(self, stop: StopRequest, until: float) -> None:
        """Wait, and free what a worker had that died."""
        while not stop.asked and time.monotonic() < until:
            for worker, reason in self._pool.wait(POLL_SECONDS):
                if not stop.asked:
                    free = partial(self._give_back, [worker], reason, died=True)
                    patiently(free, self._outage, lambda: stop.asked)

    def _stop(self, reason: str) -> None:
        """End all workers; what they had is free for others."""
        names = self._pool.names
        self._pool.stop()
        with suppress(StoreFailureError):  # else their leases run out
            patiently(partial(self._give_back, names, reason, died=False), self._outage, lambda: True)

    def _give_back(self, workers: Sequence[str], reason: str, *, died: bool) -> None:
        for claim in self._help.held_by(workers):
            self._studies.fail(claim, reason, excused=not died, died=died)

    def _done(self, jobs: Sequence[Job]) -> bool:
        """Whether the arms have all that is planned of them."""
        found = notes(self._held.engine, self._help.sweep, (PLANNED, FINISHED))
        return all(is_finished(found.get(job.arm.name, {})) for job in jobs)

    def _safely(self, look: Callable[[], T]) -> T | None:
        """What a look at the storage finds; None while it is away."""
        return once(look, self._outage)

    def _suitable(self, posted: Sequence[Posted], compare: Compare, kept: Sequence[Job]) -> Sequence[Job]:
        """Those kept, and jobs that are here what they are there; what is not is said. Raises UserError if none is."""
        try:
            found = compare(posted)
        except DiedError as error:
            raise UserError(f"building {error.at}: {error.how}") from None
        suitable = [*kept, *(held.job for held, differs in zip(posted, found, strict=True) if not differs)]
        declined = [f"{held.job.label}: {differs}" for held, differs in zip(posted, found, strict=True) if differs]
        if not suitable:
            raise UserError(f"sweep.name={self._help.sweep}: its arms are others here: {declined[0]}")
        for text in declined:
            self._say(f"declined, because it is another arm here: {text}")
        return suitable
