"""A page of what is there after each complete repeat, while the others run: provisional, and replaced in the end."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

from optsweep.children import end_with_parent, ignore_interrupts, interrupts_blocked
from optsweep.launch.events import Event, Observer, PageWritten, Progressed, RepeatEnded, Stopped, Trained
from optsweep.report import write_report
from optsweep.tracking.postman import deliver
from optsweep.tracking.spool import Spool

NICENESS = 10
"""The page's process gets what the workers leave."""


@dataclass
class _Pages:
    """Hears a sweep's events, passes them on, and has a page written after each complete repeat."""

    spool: Spool
    index: Path
    aside: bool  # in a process of its own, while workers train; else here, between two trials
    observe: Observer
    stopped: bool = False
    wanted: RepeatEnded | None = None
    writing: tuple[SpawnProcess, RepeatEnded] | None = None

    def __call__(self, event: Event) -> None:
        self.observe(event)
        match event:
            case RepeatEnded():
                self.wanted = event
            case Progressed():
                self._ended()
            case Stopped():
                self.stopped = True
            case Trained():
                self.join()
                if not self.stopped:  # the last page follows
                    return
        if self.wanted is not None and self.writing is None:
            self._begin(self.wanted)
            self.wanted = None

    def join(self) -> None:
        """Wait for the page that is being written."""
        if self.writing is not None:
            self.writing[0].join()
            self._ended()

    def _begin(self, repeat: RepeatEnded) -> None:
        if not self.aside:
            if _written(self.spool, self.index.parent):
                self._say(repeat)
            return
        process = mp.get_context("spawn").Process(
            target=_aside, args=(self.spool, self.index.parent), name="provisional page", daemon=True
        )
        with interrupts_blocked():
            process.start()
        self.writing = process, repeat

    def _ended(self) -> None:
        if self.writing is not None and not self.writing[0].is_alive():
            process, repeat = self.writing
            self.writing = None
            if process.exitcode == 0:
                self._say(repeat)

    def _say(self, repeat: RepeatEnded) -> None:
        self.observe(PageWritten(repeat.complete, repeat.planned, self.index))


@contextlib.contextmanager
def pages(spool: Spool, index: Path, observe: Observer, *, aside: bool) -> Iterator[Observer]:
    """An observer of the sweep that keeps the page `index` up to date; at the end no page is being written any more."""
    held = _Pages(spool, index, aside, observe)
    try:
        yield held
    finally:
        held.join()


def _written(spool: Spool, out: Path) -> bool:
    """Write the page; false if that went wrong, which costs the sweep nothing: the last page comes yet."""
    with contextlib.suppress(Exception):
        deliver(spool, lambda: True)
        write_report(spool.tracking_uri, [spool.sweep], out, attach=False)
        return True
    return False


def _aside(spool: Spool, out: Path) -> None:
    ignore_interrupts()  # Ctrl-C stops the sweep, and leaves no page half written
    end_with_parent()
    os.nice(NICENESS)
    sys.exit(0 if _written(spool, out) else 1)
