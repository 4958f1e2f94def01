"""A whole sweep from its arms to its last result: prepare, open the stores, train, time the steps, summarise.

Prints nothing (`events.py` says what an observer hears) and writes no report (`api.run` does).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from optsweep.address import STORAGE_KEY, TRACKING_KEY, check_apart, read_address
from optsweep.config.arm import Arm
from optsweep.config.sections import NUM_WORKERS
from optsweep.errors import UserError
from optsweep.launch.deferred import Deferred
from optsweep.launch.elsewhere.posted import post
from optsweep.launch.events import Note, Observer, Planned, RepeatEnded, Started, Stopped, Trained, TrialEnded, silent
from optsweep.launch.files import SweepFiles, spool_of, sweep_files
from optsweep.launch.outcome import Basis, SweepResult
from optsweep.launch.planner import PlannedArm, Planner
from optsweep.launch.pools.local import LocalPool
from optsweep.launch.pools.pool import Pool
from optsweep.launch.prepare.continuity import as_begun, check_history, note_content, seconds_before
from optsweep.launch.prepare.cost import foreseen
from optsweep.launch.prepare.decided import decide, remember
from optsweep.launch.prepare.description import Description
from optsweep.launch.prepare.devices import deal
from optsweep.launch.prepare.labels import baseline_of, colours_of, labels_of
from optsweep.launch.prepare.together import check_together, notes, without_looks
from optsweep.launch.reconcile import Found, reconcile
from optsweep.launch.settled import may_be_finished, trials_digest
from optsweep.launch.standing import search_plan
from optsweep.launch.stated import results_digest
from optsweep.launch.status import FINISHED, PLANNED, first_failure, size_of
from optsweep.launch.timing import Measured, measure_all, note_untimed, to_measure
from optsweep.launch.tracked.curves import summarise_arms
from optsweep.launch.tracked.describe import describe_arm, describe_chosen, describe_session, describe_sweep
from optsweep.launch.tracked.home import of_known, show_views
from optsweep.launch.work import work
from optsweep.launch.worker.checkpoints import Checkpoints
from optsweep.launch.worker.inquiries import Asker, here
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.shared_folder import KEY as CHECKPOINTS_KEY
from optsweep.launch.worker.shared_folder import check_folder
from optsweep.search.seats import Seat
from optsweep.search.storage import check_names
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.outage import patiently, storage_outage, tracking_outage
from optsweep.tracking.postman import deliver
from optsweep.tracking.schema import SweepPlan
from optsweep.tracking.spool import Spool
from optsweep.tracking.writer import Tracker

T = TypeVar("T")


def run_sweep(
    arms: Sequence[Arm],
    *,
    workers: int | None = None,
    pool: Pool | None = None,
    among: Mapping[str, str] | None = None,
    command: str = "",
    observe: Observer = silent,
) -> SweepResult:
    """Run all arms to the end. `workers` 0: in this process; None: one per `trainer.threads` cores, or per GPU.

    `pool`: workers that the caller has started already. `among`: what all arms of the sweep are called, of which this
    call, a stock launcher's job, knows its own only. `command` repeats the call.

    Raises UserError before anything is written or trained if an arm, the store or the plan is not right, and
    KeyboardInterrupt when the user stops it.
    """
    begin = time.time()
    with contextlib.ExitStack() as until_the_end:
        if workers != 0 and pool is None:
            pool = until_the_end.enter_context(LocalPool(arms[0].trainer.threads, meanwhile=store.preload))
        prepared = _prepare(arms, workers, pool, among, observe)
        seat = until_the_end.enter_context(_seat(prepared, whole=among is None))
        files = until_the_end.enter_context(sweep_files(prepared.arms[0], seat))
        prepared.spool.make_home()
        deliver(prepared.spool)
        opened = waiting(prepared.arms[0], lambda: _open(prepared, seat, files, command, observe))
        for text in opened.notes:
            observe(Note(text))
        observe(_planned(prepared, opened))
        trained = _train(prepared, opened, begin, command, observe)
        with stopping_said(opened.planner.num_done(), command, observe):
            if prepared.pool is not None:
                prepared.pool.retire()
            deliver(prepared.spool)
            first = prepared.arms[0]
            waiting(first, opened.planner.deferred.send)
            waiting(first, lambda: _note_session(prepared, opened, begin))
            timed = waiting(first, lambda: _time_steps(prepared, opened, observe))
            result = waiting(first, lambda: _conclude(prepared, opened, trained, timed, begin, observe))
            prepared.spool.clean()  # of what outages have left since
            return result


@dataclass(frozen=True)
class _Prepared:
    """Arms that were found right, and stores that can hold them; nothing of the sweep is written yet."""

    arms: Sequence[Arm]
    known: Sequence[Description]
    labels: Mapping[str, str]  # by arm
    baseline: str | None
    workers: int
    devices: Sequence[str]
    pool: Pool | None  # None: the trials run in this process
    asker: Asker  # whoever runs the arms' own code
    studies: Studies

    @property
    def spool(self) -> Spool:
        """Where trials wait for their way into MLflow."""
        return spool_of(self.arms[0])

    @property
    def size(self) -> list[object]:
        """What a finished arm has."""
        return size_of(self.arms[0])


@dataclass(frozen=True)
class _Opened:
    """The sweep as the stores have it."""

    tracker: Tracker
    run: str
    plan: SweepPlan
    jobs: Sequence[Job]
    planner: Planner
    seat: Seat
    files: SweepFiles
    notes: Sequence[str]  # what is said of the arms at each call


def _prepare(
    arms: Sequence[Arm], workers: int | None, pool: Pool | None, among: Mapping[str, str] | None, observe: Observer
) -> _Prepared:
    NUM_WORKERS("hydra.launcher.workers", workers)
    check_together(arms)
    if among is not None:
        arms, note = without_looks(arms)
        if note:
            observe(Note(note))
    labels = {**labels_of(arms), **(among or {})}
    asker = pool or here()
    size = pool.size if pool is not None and workers is None else workers
    count, devices = deal(asker, arms[0], size, lambda text: observe(Note(text)))
    baseline = baseline_of(arms, labels, all_arms=among is None)
    if pool is not None:
        pool.deal([devices[i % len(devices)] for i in range(count)])
    arms, known, memory = decide(asker, arms, labels)
    if pool is not None and not may_be_finished(arms[0]):
        pool.start()  # workers import while the stores are opened, and made
    studies = _stores(arms, known, observe)
    known = as_begun(studies, arms, known)
    for text in remember(memory, arms, known, labels):
        observe(Note(text))
    prepared = _Prepared(arms, known, labels, baseline, count, devices, pool, asker, studies)
    if pool is not None and any(studies.note(arm.name, FINISHED) != prepared.size for arm in arms):
        pool.start()
    return prepared


def open_stores(arms: Sequence[Arm], command: str) -> tuple[Studies, Mapping[str, str]]:
    """Make the stores of arms that a stock launcher's jobs are going to run, each its own, and say what they all are.

    Returns what the arms are called too. Raises UserError as a sweep does, before anything is made.
    """
    prepared = _prepare(without_looks(arms)[0], 0, None, None, silent)
    first = prepared.arms[0]
    with _seat(prepared, whole=True):  # jobs of another call may still be at it
        tracker = Tracker(first.tracking_uri, first.sweep)
        describe_sweep(tracker, prepared.arms, prepared.labels, prepared.baseline, prepared.devices[0], command)
    return prepared.studies, prepared.labels


def _stores(arms: Sequence[Arm], known: Sequence[Description], observe: Observer) -> Studies:
    """Open both stores. One that is missing is made only when nothing can be refused any more."""
    tracking, storage = arms[0].tracking_uri, arms[0].storage
    runs = read_address(TRACKING_KEY, tracking)
    check_names(storage, arms[0].sweep, [arm.name for arm in arms])
    studies_at = read_address(STORAGE_KEY, storage)
    check_apart(studies_at, runs)
    store.check_usable(studies_at)
    store.check_usable(runs)
    if arms[0].checkpoints is not None:
        check_folder(CHECKPOINTS_KEY, arms[0].checkpoints)
    if runs.is_there:
        _check_tracking(tracking, observe)  # waits for another process that makes its tables
        store.check_sweep(tracking, arms[0].sweep)
    studies = Studies.open(storage, arms[0].sweep)
    check_history(studies, arms, known)
    _check_tracking(tracking, observe)
    return studies


def _check_tracking(uri: str, observe: Observer) -> None:
    if (text := store.check(uri)) is not None:
        observe(Note(text))


def _seat(prepared: _Prepared, *, whole: bool) -> AbstractContextManager[Seat]:
    """The right to plan these arms."""
    return prepared.studies.take_seat([arm.name for arm in prepared.arms], whole=whole)


def _reconcile(prepared: _Prepared, tracker: Tracker, seat: Seat, observe: Observer) -> Found:
    """Let MLflow hold just what the studies know, and say what it didn't."""
    first = prepared.arms[0]
    found = reconcile(prepared.studies, seat, tracker, [arm.name for arm in prepared.arms], prepared.spool.trials)
    stores = [read_address(TRACKING_KEY, first.tracking_uri).file, read_address(STORAGE_KEY, first.storage).file]
    tracking, storage = (file.name if file else name for file, name in zip(stores, ("MLflow", "Optuna"), strict=True))
    for text in found.sentences(tracking, storage):
        observe(Note(text))
    return found


def _open(prepared: _Prepared, seat: Seat, files: SweepFiles, command: str, observe: Observer) -> _Opened:
    """Tell the stores what is going to be run."""
    arms, known, first, pool = prepared.arms, prepared.known, prepared.arms[0], prepared.pool
    note_content(prepared.studies, seat, arms, known)
    for arm in arms:
        if prepared.studies.note(arm.name, PLANNED) != prepared.size:
            prepared.studies.set_note(arm.name, PLANNED, prepared.size)
    tracker = Tracker(first.tracking_uri, first.sweep)
    _reconcile(prepared, tracker, seat, observe)
    run, plan = describe_sweep(tracker, arms, prepared.labels, prepared.baseline, prepared.devices[0], command)
    labels, colours = prepared.labels, colours_of(plan)
    jobs = [
        describe_arm(tracker, arm, its, labels[arm.name], colours[arm.name])
        for arm, its in zip(arms, known, strict=True)
    ]
    moved = post(prepared.studies, jobs)
    show_views(tracker, of_known(known))
    planner = Planner(
        [
            PlannedArm(job, search_plan(job.arm, repeat), its.space, repeat)
            for repeat in range(first.most_repeats)
            for job, its in zip(jobs, known, strict=True)
        ],
        prepared.studies,
        seat,
        tracker,
        seeds=first.confirm_seeds,
        repeats=first.repeats,
        repeats_before=plan.repeats_before,
        baseline=plan.baseline,
        delta=first.confirm_delta,
        retries=first.retries,
        on_done=lambda label, phase, slot: observe(TrialEnded(label, phase, slot)),
        on_hung=pool.kill if pool else lambda worker: None,
        on_repeat=lambda complete: observe(RepeatEnded(complete, first.repeats)),
        deferred=Deferred(tracking_outage(first.tracking_uri, prepared.spool.folder, training=True)),
        check_files=files.check,
    )
    said = notes([labels[arm.name] for arm in arms], [its.algorithm for its in known], [its.warnings for its in known])
    return _Opened(tracker, run, plan, jobs, planner, seat, files, [*said, *moved, *planner.out_of_sight()])


def _planned(prepared: _Prepared, opened: _Opened) -> Planned:
    """What is going to be trained, and what is known of its cost."""
    arms, known, labels = prepared.arms, prepared.known, prepared.labels
    fitted = {arm.name: its.fitted for arm, its in zip(arms, known, strict=True)}
    before = seconds_before(prepared.studies, arms, known)
    return foreseen(arms, labels, fitted, before, labels.get(opened.plan.baseline, opened.plan.baseline))


def _train(prepared: _Prepared, opened: _Opened, begin: float, command: str, observe: Observer) -> int:
    """Train what is missing; returns the number of trials that ended. The session is noted however this ends."""
    planner, workers, first = opened.planner, max(1, prepared.workers), prepared.arms[0]
    storage = storage_outage(first.storage, prepared.spool.folder)
    observe(Started(first.sweep, workers))
    try:
        trained = work(planner, opened.jobs, prepared.pool, command, observe, storage)
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong is said, and not that this did too
            _note_session(prepared, opened, begin)
        observe(Trained())
        raise
    observe(Trained())
    patiently(partial(_note_finished, prepared), storage)
    searches = {task.key for task in planner.tasks}
    files = Checkpoints.of(first.storage, first.sweep, first.checkpoints)
    patiently(partial(files.forget, prepared.studies, searches), storage)
    return trained


def _note_finished(prepared: _Prepared) -> None:
    for arm in prepared.arms:
        prepared.studies.set_note(arm.name, FINISHED, prepared.size)


def _note_session(prepared: _Prepared, opened: _Opened, begin: float) -> None:
    """Add this call to the sweep's sessions, unless it trained nothing."""
    planner = opened.planner
    if not opened.seat.lost and planner.num_done() > planner.done_before:
        describe_session(opened.tracker, opened.run, begin, time.time(), max(1, prepared.workers), planner)


def waiting(arm: Arm, call: Callable[[], T]) -> T:
    """A call that may be repeated, which waits for the tracking store of an arm's sweep. Raises StoreFailureError."""
    spool = spool_of(arm)
    return patiently(call, tracking_outage(spool.tracking_uri, spool.folder))


def _time_steps(prepared: _Prepared, opened: _Opened, observe: Observer) -> bool:
    """Describe what was chosen, and time its steps where there is no timing yet; returns whether there was one."""
    tracker, pairs = opened.tracker, list(zip(opened.jobs, prepared.known, strict=True))
    wanted = [to_measure(prepared.studies, tracker, job, known) for job, known in pairs]
    found = measure_all(prepared.asker, [arm for arm in wanted if arm is not None])
    for job, known in pairs:
        measured = found.get(job.arm.name, Measured())
        describe_chosen(tracker, job, known, measured.facts if known.space.program else None)
        if measured.timing is not None:
            tracker.note_timing(job.parent_run, measured.timing)
        elif measured.trouble:
            observe(Note(f"{job.label}: {note_untimed(prepared.studies, job, measured.trouble)}"))
    return any(measured.timing is not None for measured in found.values())


def _conclude(
    prepared: _Prepared, opened: _Opened, trained: int, timed: bool, begin: float, observe: Observer
) -> SweepResult:
    """Summarise the arms in MLflow, close their runs, and say what all came to.

    Raises UserError if runs of finished trials were lost while the sweep ran.
    """
    opened.files.check()
    tracker, first = opened.tracker, prepared.arms[0]
    if trained and (found := _reconcile(prepared, tracker, opened.seat, observe)):
        if found.again:
            raise UserError(
                f"sweep.name={first.sweep}: runs of {len(found.again)} finished trials have vanished from "
                f"{TRACKING_KEY} while the sweep ran; the same command runs these trials again"
            )
        _note_finished(prepared)  # what was mended changed no trial
    keys = [task.key for task in opened.planner.tasks]
    results = results_digest(prepared.studies, opened.plan, keys, [arm.name for arm in prepared.arms])
    sheet = tracker.sweep_sheet(opened.run)
    reported = not timed and sheet is not None and sheet.reported == results
    if not reported:
        summarise_arms(tracker, {job.arm.name: job.parent_run for job in opened.jobs})
    for job in opened.jobs:
        tracker.end(job.parent_run)
    tracker.end(opened.run)
    failure = first_failure(prepared.studies)
    return SweepResult(
        sweep=first.sweep,
        tracking_uri=first.tracking_uri,
        arms=tuple(arm.name for arm in prepared.arms),
        trials=trained,
        done=opened.planner.num_done(),
        seconds=time.time() - begin,
        run=opened.run,
        results=results,
        reported=reported,
        failure=failure,
        basis=_basis(prepared, opened) if failure is None else None,
    )


def _basis(prepared: _Prepared, opened: _Opened) -> Basis | None:
    """What the next call would find again; None where it would do more than look, or may find what isn't known here."""
    reads = [its.reads for its in prepared.known]
    files = {file for its in reads for file in its or ()}
    if None in reads:
        return None
    for job, known in zip(opened.jobs, prepared.known, strict=True):
        wanted = to_measure(prepared.studies, opened.tracker, job, known)
        if wanted is not None and wanted.timed:
            return None
    trials = trials_digest(prepared.arms[0])
    return None if trials is None else Basis(tuple(opened.notes), tuple(sorted(files)), trials)


@contextlib.contextmanager
def stopping_said(done: int, command: str, observe: Observer) -> Iterator[None]:
    """Say how to go on where the user stops what follows the training: all trials are kept."""
    try:
        yield
    except KeyboardInterrupt:
        observe(Stopped(done, done, command))
        raise
