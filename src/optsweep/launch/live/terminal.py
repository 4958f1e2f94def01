"""A sweep on a terminal while it goes on: drawn again in place, or in a pipe a line when something changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optsweep.errors import SweepFailedError, UserError
from optsweep.launch.live.reading import LOOK_SECONDS, LiveView, Watching
from optsweep.launch.live.state import Incident, Snapshot, State
from optsweep.report.wording import duration, number

STOPPED_SECONDS = 10.0
"""Without a planner, after which a sweep has stopped: a launcher's jobs plan one after the other."""

REPORT_SECONDS = 300.0
"""That a report may take once all trials are there."""

MOST_SHOWN = 6
"""Incidents, and workers, on a terminal."""


def watch(watching: Watching, out: TextIO) -> None:
    """Show the sweep until it ends.

    Returns where its report is complete, or none was asked for. Raises SweepFailedError where every trial crashed,
    UserError where it stopped.
    """
    console = Console(file=out, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        before = None
        for view in _until_it_ends(watching):
            for line in changes(before, view):
                print(line, file=out, flush=True)
            before = view
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        for view in _until_it_ends(watching):
            live.update(drawn(view), refresh=True)


def _until_it_ends(watching: Watching) -> Iterator[LiveView]:
    """What is seen at each look."""
    while True:
        view = watching.look()
        yield view
        if is_over(view):
            return
        time.sleep(LOOK_SECONDS)


def is_over(view: LiveView) -> bool:
    """Whether there is no more to come. Raises as `watch` does, where that is not a report."""
    snapshot, name = view.snapshot, view.snapshot.sweep
    if view.ended:
        if view.finding.failure is not None:
            raise SweepFailedError(name, view.finding.failure)
        return True
    again = view.finding.record.command or "its own command"
    if snapshot.state is State.STOPPED and view.quiet > STOPPED_SECONDS:
        raise UserError(
            f"sweep {name} has stopped, {snapshot.done} of {total(snapshot)} trials are done; to go on: {again}"
        )
    if snapshot.state is State.TRAINED and view.quiet > REPORT_SECONDS:
        raise UserError(f"sweep {name}: all trials are there and its report isn't; to write it: {again}")
    return False


# -- in a pipe -------------------------------------------------------------------------------------------------------


def changes(before: LiveView | None, view: LiveView) -> Iterator[str]:
    """A line for each thing that is other than before."""
    now = view.snapshot
    was = before.snapshot if before is not None else None
    if before is None or _seen(before) != _seen(view):
        yield headline(view)
    for incident in reversed(now.incidents):
        if was is None or incident not in was.incidents:
            yield f"  {said(incident)}"
    for worker in now.workers:
        if was is not None and worker.state != "at work":
            states = {held.process: held.state for held in was.workers}
            if states.get(worker.process) != worker.state:
                yield f"  {worker.process} is {worker.state}: {worker.doing}"
    if now.checkpoints and (was is None or was.checkpoints != now.checkpoints):
        yield f"  {now.checkpoints}"
    texts = [verdict.text for verdict in view.finding.verdicts]
    if texts and (before is None or texts != [verdict.text for verdict in before.finding.verdicts]):
        yield from (f"  {kind(view)}: {text}" for text in texts)
    for trouble in view.troubles:
        if before is None or trouble not in before.troubles:
            yield f"  {trouble}"


def _seen(view: LiveView) -> tuple[object, ...]:
    now = view.snapshot
    return now.done, now.total, _ending(view)


def headline(view: LiveView) -> str:
    """ "sweep NAME: 12 of 40 trials done, …"."""
    return f"sweep {view.snapshot.sweep}: {standing(view)}"


def standing(view: LiveView) -> str:
    """ "12 of 40 trials done, 2 running, about 3 min left; best on validation so far …"."""
    now = view.snapshot
    running = sum(arm.running for arm in now.arms)
    left = now.seconds_left
    parts = [f"{now.done} of {total(now)} trials done"]
    parts += [f"{running} running"] if running else []
    parts += [f"{'at least' if now.may_grow else 'about'} {duration(round(left))} left"] if left is not None else []
    parts += [ending] if (ending := _ending(view)) else []
    best = min((arm for arm in now.arms if arm.best is not None), key=lambda arm: arm.best or 0.0, default=None)
    tail = f"; best on validation so far {number(best.best)}, {best.label}" if best is not None else ""
    return ", ".join(parts) + tail


def _ending(view: LiveView) -> str:
    """How it stands with a sweep that isn't trained any more."""
    now = view.snapshot
    if now.state is not State.TRAINED:
        return "nobody plans it" if now.state is State.STOPPED else ""
    if view.finding.reported:
        return "its report is complete" + (f": {now.report.where}" if now.report and not now.report.unasked else "")
    return str(now.report) if now.report else "its report is being written"


def total(snapshot: Snapshot) -> str:
    """ "40", or "40+" where `auto` may add some."""
    return f"{snapshot.total}{'+' if snapshot.may_grow else ''}"


def kind(view: LiveView) -> str:
    """What a verdict is called by now."""
    return "verdict" if view.ended else "provisional verdict"


def said(incident: Incident) -> str:
    """An incident in a line."""
    what = f" ({incident.what})" if incident.what else ""
    when = "" if incident.when is None else f"{incident.when.astimezone():%H:%M:%S} "
    return f"{when}{incident.where} {_KINDS[incident.kind]}{what}"


_KINDS = {"diverged": "diverged", "failed": "failed", "dead": "lost its worker", "jump": "jumps"}

# -- on a terminal ---------------------------------------------------------------------------------------------------


def drawn(view: LiveView) -> Group:
    """All of it, for one screen: the arms last, of which there may be more than it has lines."""
    now = view.snapshot
    lines: list[RenderableType] = [Text(headline(view))]
    lines += [Text(f"{kind(view).capitalize()}: {verdict.text}") for verdict in view.finding.verdicts]
    for worker in now.workers[:MOST_SHOWN]:
        ago = "" if worker.seconds is None else f", heard of {duration(round(worker.seconds))} ago"
        style = "" if worker.state == "at work" else "bold red"
        lines.append(Text(f"{worker.process}: {worker.state}, {worker.doing}{ago}", style))
    if (more := len(now.workers) - MOST_SHOWN) > 0:
        lines.append(Text(f"and {more} more processes"))
    lines += [Text(now.checkpoints)] if now.checkpoints else []
    lines += [Text(said(incident), "red") for incident in now.incidents[:MOST_SHOWN]]
    lines += [Text(trouble, "bold red") for trouble in view.troubles]
    return Group(*lines, _table(now))


def _table(now: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", overflow="fold", max_width=34)
    for name in ("phase", "done", "running", "pruned", "diverged", "failed", "best"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    for arm in now.arms:
        counts = (arm.running, arm.pruned, arm.diverged, arm.failed)
        done = f"{arm.done}/{arm.total}{'+' if now.may_grow else ''}"
        table.add_row(arm.label, arm.phase, done, *(str(count or "–") for count in counts), number(arm.best))
    return table
