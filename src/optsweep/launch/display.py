"""An observer that shows a sweep on a terminal: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from optsweep.inference.looks import repeats_done
from optsweep.inference.repeats import repeat_of
from optsweep.launch.events import (
    ArmProgress,
    Event,
    Note,
    PageWritten,
    Planned,
    Progressed,
    RepeatEnded,
    Started,
    Stopped,
    Trained,
    TrialEnded,
)
from optsweep.report.wording import number, plural
from optsweep.search.slots import Slot
from optsweep.search.space import as_typed
from optsweep.terminal import replace_what_cannot_be_shown
from optsweep.train.trial import Phase

PLAIN_SECONDS = 15.0
"""Between two lines of progress where there is no terminal."""
_ROOMY = 110  # columns from which on a long bar leaves the arms' names enough


class Display:
    """Hears the events of a sweep and shows them; use as a context manager, so that the terminal is left as it was."""

    def __init__(self) -> None:
        self.sweep, self.workers = "", 1
        replace_what_cannot_be_shown()
        self.console = Console(file=sys.stdout, markup=False, emoji=False)  # [ and : of a name are letters
        self.begin = self._last_line = time.monotonic()
        self._done_before: int | None = None
        self._first: tuple[float, int] | None = None
        """When the first trial of this run was done, and how many were done by then."""
        self._planned: Planned | None = None
        self._live: Live | None = None
        self._arms: Sequence[ArmProgress] = ()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Note(text):
                print(f"note: {text}")
            case Planned():
                self._planned = event
            case Started(sweep, workers):
                self._start(sweep, workers)
            case Progressed(arms):
                self._update(arms)
            case TrialEnded(label, phase, slot):
                self._trial_ended(label, phase, slot)
            case PageWritten(complete, planned, index):
                self.console.print(f"{repeats_done(complete, planned)}: {index}", soft_wrap=True, highlight=False)
            case RepeatEnded():
                pass  # a page follows, where there are pages
            case Stopped(done, total, command):
                self._stop()
                again = f" To go on: {command}" if command else ""
                sys.stderr.write(f"stopped; {done} of {total} trials are kept.{again}\n")
            case Trained():
                self._stop()
                if crashed := sum(arm.crashed for arm in self._arms):
                    self._print(f"{crashed} crashed without a result; “What failed” in the report has their errors")

    def _start(self, sweep: str, workers: int) -> None:
        self.sweep, self.workers = sweep, workers
        self.begin = self._last_line = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=2)
            self._live.start()

    def _stop(self) -> None:
        """Leave the terminal as it is."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _update(self, arms: Sequence[ArmProgress]) -> None:
        """Show the present state."""
        self._arms = arms
        done = sum(arm.done for arm in arms)
        if self._first is None and self._done_before is not None and done > self._done_before:
            self._first = time.monotonic(), done
        if self._done_before is None:
            self._done_before = done
            if self._planned is not None and any(arm.total > arm.done for arm in arms):
                self.console.print(_cost(self._planned, arms, self.workers), highlight=False, soft_wrap=True)
            if self._live is None:
                self._print(
                    f"sweep {self.sweep}: {plural(len(arms), 'arm')}, {_total(arms)} trials, {done} done, "
                    f"{plural(self.workers, 'worker')}"
                )
        elif self._live is None and time.monotonic() - self._last_line > PLAIN_SECONDS:
            self._print(self._line())

    def _trial_ended(self, label: str, phase: Phase, slot: Slot) -> None:
        """A trial ended; said in a line where there is no terminal."""
        if self._live is None and (slot.crashed or slot.value == math.inf):
            params = ", ".join(f"{key}={_plain(as_typed(value))}" for key, value in slot.params.items())
            repeat = f"repeat {repeat_of(slot.seed)}, " if repeat_of(slot.seed) else ""
            trial = f"{repeat}{phase} {slot.number}" + (f" ({params})" if params else "")
            self._print(f"  {label}: {trial} {'crashed' if slot.crashed else 'diverged'}")

    def __rich__(self) -> Table:
        table = Table(title=f"sweep {self.sweep} · {self._line()}", title_justify="left", box=None, expand=False)
        width = 24 if self.console.width >= _ROOMY else 8
        for name in ("arm", "phase", "trials", "", "running", "best", "diverged"):
            table.add_column(name, justify="left" if name in ("arm", "phase", "trials") else "right")
        for arm in self._arms:
            phase = "done" if arm.done >= arm.total else arm.phase
            bar = ProgressBar(total=max(arm.total, 1), completed=arm.done, width=width)
            table.add_row(
                arm.label,
                phase,
                bar,
                f"{arm.done}/{_total([arm])}",
                str(arm.running),
                number(arm.best),
                str(arm.diverged) + (f" (+{arm.crashed} crashed)" if arm.crashed else ""),
            )
        return table

    def _line(self) -> str:
        done, total = sum(a.done for a in self._arms), sum(a.total for a in self._arms)
        best = "; ".join(f"{a.label} {number(a.best)}" for a in self._arms if a.best is not None)
        left = self._seconds_left()
        about = "at least" if any(arm.may_grow for arm in self._arms) else "about"
        eta = f", {about} {_duration(left)} left" if left is not None and done < total else ""
        elapsed = _duration(time.monotonic() - self.begin)
        text = f"{done}/{_total(self._arms)} trials in {elapsed}{eta}"
        return text if self._live is not None or not best else f"{text}; best so far: {best}"

    def _seconds_left(self) -> float | None:
        """From each arm's own seconds per trial, over all workers, scaled by how busy they were so far."""
        known = [a.mean_seconds for a in self._arms if a.mean_seconds]
        if not known:
            return None
        typical = sum(known) / len(known)
        work = sum((a.total - a.done) * (a.mean_seconds or typical) for a in self._arms)
        return work / self.workers / self._busy()

    def _busy(self) -> float:
        """The share of the workers' time that went into trials, not into starting workers or choosing settings."""
        if self._first is None:
            return 0.9
        since, at_first = self._first
        elapsed, done = time.monotonic() - since, sum(a.done for a in self._arms)
        spent = sum(a.done * (a.mean_seconds or 0.0) for a in self._arms) * (done - at_first) / done
        return min(1.0, spent / (elapsed * self.workers)) if spent and elapsed > 5 else 0.9

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        print(line, flush=True)


def _cost(planned: Planned, arms: Sequence[ArmProgress], workers: int) -> str:
    """ "held against adamw + cosine; 48 trials of 600 steps are left, about 3 min 20 s by 2 workers (…)"."""
    least, most = planned.steps
    left = {arm.label: arm.total - arm.done for arm in arms if arm.total > arm.done}
    count = f"{sum(left.values()):,}{'+' if any(arm.may_grow for arm in arms) else ''}"
    trials = f"{count} {'trial' if count == '1' else 'trials'}"
    text = f"held against {planned.baseline}; " if planned.baseline else ""
    text += (
        f"{trials} of {least:,}{'' if least == most else f' to {most:,}'} steps {'is' if count == '1' else 'are'} left"
    )
    if left.keys() <= planned.trial_seconds.keys():
        seconds = sum(count * planned.trial_seconds[label] for label, count in left.items()) / workers
        text += f", about {_duration(max(seconds, 1.0))} of training by {plural(workers, 'worker')} ({planned.basis})"
    else:
        text += "; how long that takes shows with the first ones (optsweep check tries it before)"
    return text


def _total(arms: Sequence[ArmProgress]) -> str:
    """ "26", or "26+" where auto may add some."""
    return f"{sum(arm.total for arm in arms)}{'+' if any(arm.may_grow for arm in arms) else ''}"


def _plain(value: object) -> str:
    """A setting of a trial, as a config would have it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
