"""What a program calls; the command line calls the same. Nothing here prints: it returns, or raises UserError.

Everything is imported where it is called: `status` and `suggest` answer without the parts that train and draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.config.arm import Arm

if TYPE_CHECKING:
    from optsweep.build.suggestions import Suggestion, TaskFacts
    from optsweep.config.spoken import Spoken
    from optsweep.launch.events import Observer
    from optsweep.launch.status import PhaseStatus
    from optsweep.launch.sweep import SweepResult
    from optsweep.report import Report
    from optsweep.tasks.pieces import Pieces

REPORTS = Path("reports")


@dataclass(frozen=True)
class Finished:
    """A sweep that ran to its end, and its report."""

    result: SweepResult
    report: Report | None  # None: none was asked for, or the one that is there states these results already
    index: Path | None  # of the report; None: none was asked for

    @property
    def summary(self) -> str:
        """What is said on a terminal."""
        if self.index is None:
            return f"{self.result.trials} trials ended; no report was asked for"
        return self.report.summary if self.report else f"nothing was left to do; the report is {self.index}"


@dataclass(frozen=True)
class Suggested:
    """The suggested values of an arm, and the facts of its task that they come from."""

    facts: TaskFacts
    suggestions: tuple[Suggestion, ...]


def run(
    arms: Sequence[Arm],
    *,
    workers: int | None = None,
    report: bool = True,
    command: str = "",
    observe: Observer | None = None,
) -> Finished:
    """Run a sweep to its end and write its report into reports/NAME, unless one of just these results is there.

    Raises what `run_sweep` raises.
    """
    from optsweep.launch.environment import num_cores
    from optsweep.launch.events import silent
    from optsweep.launch.sweep import note_report, run_sweep, stopping_said

    observe = observe or silent
    result = run_sweep(arms, workers=workers, command=command, observe=observe)
    if not report:
        return Finished(result, None, None)
    index = REPORTS / result.sweep / "index.html"
    if result.reported and index.is_file():
        return Finished(result, None, index)
    from optsweep.report import write_report

    with stopping_said(result.done, command, observe):
        written = write_report(result.tracking_uri, [result.sweep], index.parent, processes=num_cores())
        note_report(result)
    return Finished(result, written, index)


@dataclass(frozen=True)
class Compared:
    """What a comparison came to."""

    verdict: str  # in sentences
    page: Path  # of the report
    arms: tuple[str, ...]  # labels
    columns: tuple[str, ...]  # of the table
    rows: tuple[tuple[str, ...], ...]  # one per arm

    def __str__(self) -> str:
        return f"{self.verdict}\n\nreport: {self.page}"


def compare(
    task: Pieces,
    arms: Sequence[Spoken],
    *,
    name: str,
    search: int = 16,
    confirm: int | str = 8,
    repeats: int = 1,
    workers: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Compared:
    """Tune every arm alike on the task, confirm it on fresh seeds, judge: what `optsweep -m` does, from Python.

    `arms` are strings ('soap + schedule_free'), or keys of the config by name; the first is the baseline. `search` are
    trials per arm, `confirm` seeds or "auto", `repeats` whole searches, `workers` processes (0: this one). `settings`
    are sections of the config, for all arms: trainer={"steps": 300}.
    The same call goes on where it was stopped. Raises UserError, in one line, for a mistake.
    """
    from optsweep.build.targets import pickled
    from optsweep.config.spoken import arms_of
    from optsweep.launch.display import Display
    from optsweep.launch.environment import without_script
    from optsweep.launch.events import silent
    from optsweep.launch.labels import labels_of

    shared = {
        "task": "own",
        "task.name": task.name,
        "task._target_": "optsweep.Task",
        "task.batch_size": task.batch_size,
        "task.steps": task.steps,
        "sweep.name": name,
        "sweep.repeats": repeats,
        **({"search.trials": search} if search else {"search": "none"}),
        "confirm.seeds": confirm,
        **_dotted(settings),
    }
    content = pickled(task, "task")
    built = [replace(arm, task=replace(arm.task, pickled=content)) for arm in arms_of(arms, shared)]
    built = [replace(arm, choices={**arm.choices, "task": task.name}) for arm in built]
    with without_script():
        if quiet:
            finished = run(built, workers=workers, observe=silent)
        else:
            with Display() as display:
                finished = run(built, workers=workers, observe=display)
        written = finished.report or report(built[0].tracking_uri, [name])
    labels = tuple(labels_of(built).values())
    return Compared("\n\n".join(written.verdicts), written.index, labels, written.columns, written.rows)


def _dotted(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the config from sections by name; what is no section is a choice."""
    keys: dict[str, Any] = {}
    for section, values in sections.items():
        if isinstance(values, dict):
            keys |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            keys[section] = values
    return keys


def report(tracking_uri: str, sweeps: Sequence[str], out: Path | None = None) -> Report:
    """Write the report of one or several sweeps, into reports/NAME unless told otherwise.

    Raises UserError for a store that can't be opened, and ValueError, naming the nearest, for a sweep that isn't there.
    """
    from optsweep.launch.environment import num_cores
    from optsweep.report import write_report
    from optsweep.tracking.store import check

    check(tracking_uri, create=False)
    return write_report(tracking_uri, sweeps, out or REPORTS / "+".join(sweeps), processes=num_cores())


def status(storage: str, sweep: str) -> tuple[PhaseStatus, ...]:
    """How far every arm of a sweep is, phase by phase. Raises UserError for a sweep that isn't there."""
    from optsweep.launch.status import status_of

    return tuple(status_of(storage, sweep))


def suggest(arm: Arm) -> Suggested:
    """Suggested learning rate, warm-up and so on, with the source of each; λ of both modes for an arm without decay."""
    from optsweep.build.assemble import build_task, task_facts
    from optsweep.build.hyperparameters import lr_options
    from optsweep.build.suggestions import suggest_all, weight_decay

    facts = task_facts(arm, build_task(arm.task))
    options = lr_options(arm.optimizer.options)
    suggestions = suggest_all(arm.optimizer.name, arm.schedule.name, arm.decay.mode, facts, **options)
    if arm.decay.mode == "none":  # who asks before choosing wants to see λ too
        for mode in ("decoupled", "l2"):
            decay = weight_decay(arm.optimizer.name, mode, facts, arm.schedule.name)
            suggestions += [replace(decay, note=f"with weight_decay={mode}")] if decay else []
    return Suggested(facts, tuple(suggestions))
