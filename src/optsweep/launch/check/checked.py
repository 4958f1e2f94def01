"""What `check` found, and how it looks in 80 columns."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from optsweep.launch.prepare.cost import Cost
from optsweep.report.wording import duration, number, plural, size

COLUMNS = 80


@dataclass(frozen=True)
class TriedOptimizer:
    """An optimizer's first steps."""

    label: str
    lr: float
    ms_per_step: float | None = None  # None: it was not tried, or failed
    losses: tuple[float, float] = (math.nan, math.nan)  # of the first steps, and after as many more
    state_bytes: int | None = None
    peak_bytes: int | None = None
    trouble: str = ""

    @property
    def finite(self) -> bool:
        """Whether its losses are numbers."""
        return all(math.isfinite(loss) for loss in self.losses)


@dataclass(frozen=True)
class CheckedTask:
    """A task, line by line, and how every optimizer begins on it."""

    name: str
    facts: tuple[tuple[str, str], ...]  # what, and what was found
    optimizers: tuple[TriedOptimizer, ...]
    reference: str  # label of the optimizer that times are relative to
    losses: str  # which ones the optimizers have

    def relative(self, tried: TriedOptimizer) -> float | None:
        """Time per step as a multiple of the reference's."""
        of = next((o.ms_per_step for o in self.optimizers if o.label == self.reference), None)
        return None if tried.ms_per_step is None or not of else tried.ms_per_step / of


@dataclass(frozen=True)
class Checked:
    """What a sweep would meet. `findings` are what would fail, `remarks` what is worth knowing, a line each."""

    tasks: tuple[CheckedTask, ...]
    cost: Cost | None  # None: a task can't be trained
    remarks: tuple[str, ...]
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing would fail."""
        return not self.findings

    def __str__(self) -> str:
        console = Console(
            file=io.StringIO(),
            width=COLUMNS,
            highlight=False,
            markup=False,
            emoji=False,
            color_system=None,
            force_jupyter=False,  # else rich shows it itself in a notebook
        )
        with console.capture() as captured:
            for part in self._parts():
                console.print(part)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def _parts(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            yield _facts(task)
            if task.optimizers:
                yield ""
                yield f"First steps of every optimizer, with {task.losses}"
                yield _optimizers(task)
            yield ""
        if self.cost is not None:
            yield from _cost(self.cost)
            yield ""
        if self.remarks:
            yield from _listed("Worth knowing", self.remarks)
            yield ""
        if self.findings:
            yield from _listed("This would fail", self.findings)
        else:
            yield "Nothing was found that would fail."


def plain(found: Checked) -> dict[str, Any]:
    """What `optsweep check --json` prints. Keys are only ever added."""
    cost = None
    if found.cost is not None:
        cost = {"trials": found.cost.trials, "seconds": found.cost.seconds, **asdict(found.cost)}
    return {"ok": found.ok, **asdict(replace(found, cost=None)), "cost": cost}


def _listed(title: str, lines: Sequence[str]) -> Iterator[RenderableType]:
    yield title
    table = Table.grid(padding=(0, 1))
    for line in lines:
        table.add_row("-", line)
    yield table


def _facts(task: CheckedTask) -> Table:
    table = Table(title=f"task {task.name}", title_justify="left", title_style="", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, found in task.facts:
        table.add_row(what, found)
    return table


def _optimizers(task: CheckedTask) -> RenderableType:
    table = Table(box=None)
    peaks = any(tried.peak_bytes is not None for tried in task.optimizers)
    table.add_column("optimizer", overflow="fold")
    for name in ("LR", "ms/step", f"× {task.reference}", "state", *(["peak"] if peaks else []), "loss", "then"):
        table.add_column(name, justify="right", no_wrap=True)
    for tried in task.optimizers:
        if tried.trouble:
            table.add_row(tried.label, number(tried.lr, 2) if tried.lr else "–", "failed")
            continue
        relative = task.relative(tried)
        table.add_row(
            tried.label,
            number(tried.lr, 2),
            number(tried.ms_per_step, 3),
            "–" if relative is None else f"{relative:.2f}",
            size(tried.state_bytes),
            *([size(tried.peak_bytes)] if peaks else []),
            *(f"{loss:.4g}" for loss in tried.losses),
        )
    return table


def _cost(cost: Cost) -> Iterator[RenderableType]:
    table = Table(box=None)
    table.add_column("arm", overflow="fold")
    for name in ("trials", "steps", "a trial", "together"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in cost.arms:
        table.add_row(
            arm.label, _range(arm.trials), f"{arm.steps:,}", duration(arm.trial_seconds), _seconds(arm.seconds)
        )
    yield "What this sweep would take: training and evaluation, by one worker"
    yield table
    seconds = cost.seconds
    told = f"{_range(cost.trials)} {'trial' if cost.trials == (1, 1) else 'trials'}"
    if seconds is None:
        yield f"{told}; of the arms without a time no step was timed"
        return
    told += f", {_seconds(seconds)} by one worker"
    if cost.workers > 1:
        shared = _seconds((seconds[0] / cost.workers, seconds[1] / cost.workers))
        told += f", at best {shared} by the {plural(cost.workers, 'worker')} that it would have"
    yield told


def _range(found: tuple[int, int]) -> str:
    least, most = found
    return f"{least:,}" if least == most else f"{least:,} – {most:,}"


def _seconds(found: tuple[float, float] | None) -> str:
    if found is None:
        return "–"
    least, most = (duration(_rounded(seconds)) for seconds in found)
    return least if least == most else f"{least} – {most}"


def _rounded(seconds: float) -> float:
    """Two digits: more would be a claim."""
    return float(f"{seconds:.2g}")
