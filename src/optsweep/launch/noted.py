"""Where a sweep's report lies, or that none was asked for: noted, so that nobody who looks on waits for one.

Where the studies can't be had nothing is noted: nothing else of the sweep is wrong, or whoever needs them says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from optsweep.config.arm import Arm
from optsweep.launch.stated import plan_digest
from optsweep.launch.status import PLANNED, REPORT, is_trained
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.search.studies import Studies
from optsweep.tracking.writer import Tracker


def note_page(arms: Sequence[Arm], page: Path | None) -> None:
    """Note the report of what these arms have come to; None: none was asked for."""
    with suppress(Exception):
        _note(Studies.open(arms[0].storage, arms[0].sweep, make=False), [arm.name for arm in arms], page)


def note_written(tracking_uri: str, storage: str, sweep: str, page: Path) -> None:
    """Note a report that no sweep's own command has written, of one that has all its trials and nobody at work."""
    with suppress(Exception):
        tracker = Tracker(tracking_uri, sweep)
        sheet = tracker.sweep_sheet(run := tracker.sweep_run())
        if sheet is None or not is_trained(storage, sweep, sheet.plan):
            return
        studies = Studies.open(storage, sweep, make=False)
        if any(sign.at_work for sign in studies.signs_of_life(LEASE_SECONDS)):
            return  # whose report follows, and whose sheet this is meanwhile
        if (results := plan_digest(studies, sheet.plan)) != sheet.reported:
            tracker.note_report(run, results)
        _note(studies, [title.name for title in sheet.plan.arms], page)


def _note(studies: Studies, arms: Iterable[str], page: Path | None) -> None:
    for arm in arms:
        noted = {"of": studies.note(arm, PLANNED), "page": None if page is None else str(page.absolute())}
        if studies.note(arm, REPORT) != noted:
            studies.set_note(arm, REPORT, noted)
