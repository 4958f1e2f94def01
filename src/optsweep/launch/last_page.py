"""The report at the end of a sweep: made ready while its last trials train, and written unless it is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from optsweep.config.arm import Arm
from optsweep.launch.events import Event, Observer, Progressed, Started, Trained
from optsweep.launch.noted import note_page
from optsweep.launch.outcome import SweepResult
from optsweep.launch.settled import keep
from optsweep.launch.sweep import stopping_said, waiting
from optsweep.launch.tracked.home import show_report
from optsweep.report import HelpersOnCall, Report, write_report
from optsweep.tracking.writer import Tracker

TO_PREPARE_SECONDS = 2.0
"""Before the end of training: what importing takes that draws, here and in another process, while workers train."""


def prepared_to_draw(drawing: HelpersOnCall, observe: Observer) -> Observer:
    """An observer that has ready what draws when the last trials end; a sweep that has nothing to train needs none."""
    workers = 1

    def hear(event: Event) -> None:
        nonlocal workers
        observe(event)
        if isinstance(event, Started):
            workers = event.workers
        if isinstance(event, Progressed) and event.ends_within(TO_PREPARE_SECONDS, workers):
            drawing.prepare()
        if isinstance(event, Trained):
            drawing.leave_the_machine_alone()

    return hear


def reported(
    arms: Sequence[Arm], result: SweepResult, index: Path, command: str, observe: Observer, drawing: HelpersOnCall
) -> Report | None:
    """The report of a sweep that ran to its end; None where the one that is there states its results already."""
    first, written = arms[0], None
    if not (result.reported and is_whole(index.parent, result.run)):
        with stopping_said(result.done, command, observe):
            helped, uri = drawing.there, result.tracking_uri
            written = waiting(first, lambda: write_report(uri, [result.sweep], index.parent, helped=helped))
            waiting(first, lambda: show_report(uri, result.sweep, index.parent, curves=False))
            waiting(first, lambda: note_report(result))
    note_page(arms, index)
    keep(arms, command, result, index.parent)
    return written


def note_unasked(arms: Sequence[Arm], result: SweepResult) -> None:
    """Remember that no report of what these arms have come to was asked for, unless there is one."""
    if not result.reported:
        note_page(arms, None)


def is_whole(folder: Path, run_id: str) -> bool:
    """Whether all of a report of the sweep with this run lies in a folder, and not that of another store's sweep."""
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        drawn = [f"figures/{figure['name']}.{kind}" for figure in content["figures"] for kind in ("png", "svg")]
        return bool(content["sweeps"][0]["run_id"] == run_id) and all(
            (folder / file).is_file() for file in ("index.html", "results.csv", "references.bib", *drawn)
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False


def note_report(result: SweepResult) -> None:
    """Remember that a report states the sweep's present results."""
    tracker = Tracker(result.tracking_uri, result.sweep)
    tracker.note_report(tracker.sweep_run(), result.results)
