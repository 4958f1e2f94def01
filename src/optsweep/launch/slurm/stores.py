"""What a sweep's jobs ask its stores before they begin, and its command when they are over. Nothing is made there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from optsweep.address import STORAGE_KEY, read_address
from optsweep.config.arm import Arm
from optsweep.errors import without_secrets
from optsweep.inference.looks import most_of
from optsweep.launch.elsewhere.posted import JOB
from optsweep.launch.outcome import SweepResult
from optsweep.launch.prepare.continuity import IDENTITY
from optsweep.launch.stated import results_digest
from optsweep.launch.status import FINISHED, PLANNED, first_failure, is_finished, size_of
from optsweep.search.helping import notes
from optsweep.search.process import is_alive
from optsweep.search.seats import planners
from optsweep.search.storage import looking_into
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.writer import Tracker


def is_open(storage: str, sweep: str) -> bool:
    """Whether a sweep has arms that are posted, and something left to train."""
    if not read_address(STORAGE_KEY, storage).is_there:
        return False
    try:
        with looking_into(storage) as engine:
            found = notes(engine, sweep, (JOB, IDENTITY, PLANNED, FINISHED))
    except SQLAlchemyError:  # its tables aren't there yet, or it is away
        return False
    posted = any({JOB, IDENTITY} <= of.keys() for of in found.values())
    return posted and not all(is_finished(of) for of in found.values())


def seconds_of_seat(storage: str, sweep: str) -> float:
    """For how long somebody who may be alive still has the right to plan a sweep; 0: nobody."""
    if not read_address(STORAGE_KEY, storage).is_there:
        return 0.0
    try:
        with looking_into(storage) as engine, engine.connect() as connection:
            held = planners(connection, sweep)
    except SQLAlchemyError:
        return 0.0
    return max((left for holder, left in held if is_alive(holder) is not False), default=0.0)


def finished(arms: Sequence[Arm], *, report: bool) -> SweepResult | None:
    """What a sweep has come to; None where trials, or a report of just its results, are missing.

    What the arms' own code is by now is known to the jobs only.
    """
    first, begin = arms[0], time.time()
    if not read_address(STORAGE_KEY, first.storage).is_there:
        return None
    studies = Studies.open(first.storage, first.sweep)
    found = notes(studies.engine, first.sweep, (JOB, PLANNED, FINISHED))
    for arm in arms:
        of = found.get(arm.name, {})
        same = of.get(JOB, {}).get("config") == without_secrets(arm.yaml)
        if not (same and is_finished(of) and of[PLANNED] == size_of(first)):
            return None
    store.check(first.tracking_uri, create=False)
    tracker = Tracker(first.tracking_uri, first.sweep)
    sheet = tracker.sweep_sheet(run := tracker.sweep_run())
    if sheet is None:
        return None
    names = [title.name for title in sheet.plan.arms]
    keys = [(arm, repeat) for arm in names for repeat in range(most_of(sheet.plan.repeats))]
    results = results_digest(studies, sheet.plan, keys, [arm.name for arm in arms])
    reported = sheet.reported == results
    if report and not reported:
        return None
    done = sum(trial.told for trial in studies.known(names))
    failure = first_failure(studies)
    names_of_arms = tuple(arm.name for arm in arms)
    seconds = time.time() - begin
    return SweepResult(
        first.sweep, first.tracking_uri, names_of_arms, 0, done, seconds, run, results, reported, failure
    )
