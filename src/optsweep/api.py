"""What a program calls; the command line calls the same. Nothing here prints: it returns, or raises UserError.

Everything is imported where it is called: `status` and `suggest` answer without the parts that train and draw.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.address import TRACKING_KEY, read_address
from optsweep.config.arm import Arm
from optsweep.errors import SweepFailedError

if TYPE_CHECKING:
    from optsweep.build.arithmetic import Suggestion
    from optsweep.build.named_task import Given
    from optsweep.build.suggestions import TaskFacts
    from optsweep.config.spoken import Spoken
    from optsweep.launch.check.checked import Checked
    from optsweep.launch.events import Observer
    from optsweep.launch.outcome import SweepResult
    from optsweep.launch.pools.pool import Pool
    from optsweep.launch.status import SweepStatus
    from optsweep.launch.verify import Verified
    from optsweep.report import Report
    from optsweep.report.judged.write import JudgedReport
    from optsweep.result.result import Result
    from optsweep.tasks.pieces import Pieces
    from optsweep.train.own.loop import Loop

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


@dataclass(frozen=True)
class Freed:
    """What `retry` has freed."""

    failures: int  # that no longer count
    arguments: tuple[str, ...]  # of the command that runs the sweep; empty where it isn't known whole


@dataclass(frozen=True)
class Synced:
    """What `sync` has delivered."""

    trials: int
    complete: bool  # whether all trials of the sweep are trained: its report can be written
    arguments: tuple[str, ...] = ()  # of the command that runs the sweep; empty where it isn't known whole


def run(
    arms: Sequence[Arm],
    *,
    workers: int | None = None,
    report: bool = True,
    command: str = "",
    observe: Observer | None = None,
    make_pool: Callable[[], Pool] | None = None,
) -> Finished:
    """Run a sweep to its end and write its report into reports/NAME, unless one of just these results is there.

    `make_pool` makes the workers where they aren't to be processes of this machine.

    Of several repeats a provisional one is written whenever a further one is complete. A sweep that is finished, and
    where nothing has changed since, isn't opened again.

    Raises what `run_sweep` raises.
    """
    from optsweep.launch.settled import check_page, settled

    index = REPORTS / arms[0].sweep / "index.html"
    if report:
        if (before := settled(arms, command, index.parent, observe)) is not None:
            return Finished(before, None, index)
        check_page(arms[0], index.parent)
    from optsweep.launch.pools.local import LocalPool
    from optsweep.tracking.store import preload

    with contextlib.ExitStack() as until_written:
        pool: Pool | None = None
        if workers != 0:
            made = make_pool() if make_pool else LocalPool(arms[0].trainer.threads, meanwhile=preload)
            pool = until_written.enter_context(made)
            pool.start_one()  # it imports what it needs while this process does
        from optsweep.launch.environment import num_cores
        from optsweep.launch.events import silent
        from optsweep.launch.files import spool_of
        from optsweep.launch.last_page import note_unasked, prepared_to_draw, reported
        from optsweep.launch.sweep import run_sweep
        from optsweep.report import HelpersOnCall

        drawing = HelpersOnCall(num_cores(), until_written)
        heard = observe = observe or silent
        with contextlib.ExitStack() as until_trained:
            if report and arms[0].most_repeats > 1:
                from optsweep.launch.provisional import pages

                heard = until_trained.enter_context(pages(spool_of(arms[0]), index, observe, aside=workers != 0))
            if report and pool is not None:
                heard = prepared_to_draw(drawing, heard)
            result = run_sweep(arms, workers=workers, pool=pool, command=command, observe=heard)
        if pool is not None:
            pool.dismiss()  # which takes moments, while this process imports what draws
        if not report:
            note_unasked(arms, result)
            return Finished(result, None, None)
        return Finished(result, reported(arms, result, index, command, observe, drawing), index)


def compare(
    task: Pieces | Loop | Callable[..., Any],
    arms: Sequence[Spoken],
    *,
    name: str,
    search: int | Mapping[str, Any] = 16,
    confirm: int | str = 8,
    repeats: int = 1,
    workers: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Tune every arm alike on the task, confirm it on fresh seeds, judge: what `optsweep -m` does, from Python.

    `task` is an `optsweep.Task`, a function that returns one, whose arguments are its options, or a loop of one's own:
    a function `train(trial, …)`, or an `optsweep.Loop` of one. `arms` are strings ('soap + schedule_free'), or keys of
    the config by name; the first is the baseline. `search` are trials per arm, or keys of that section:
    {"trials": 16, "space": {"task.dropout": {"low": 0, "high": 0.5}}}. `confirm` are seeds or "auto", `repeats` whole
    searches, `workers` processes (0: this one); `settings` are sections of the config, for all arms:
    trainer={"steps": 300}.
    The same call goes on where it was stopped. Raises UserError, in one line, for a mistake, and SweepFailedError where
    every trial crashed.
    """
    from optsweep.build.named_task import task_of
    from optsweep.launch.display import Display
    from optsweep.launch.environment import without_script
    from optsweep.launch.events import silent

    built = _arms_on(task_of(task), arms, name, search, confirm, repeats, settings)
    with without_script():
        if quiet:
            finished = run(built, workers=workers, observe=silent)
        else:
            with Display() as display:
                finished = run(built, workers=workers, observe=display)
        if finished.result.failure is not None:
            raise SweepFailedError(name, finished.result.failure)
        if finished.report is None and not (REPORTS / name / "results.json").is_file():
            report(built[0].tracking_uri, [name], storage=built[0].storage)
    return load(REPORTS / name)


def _arms_on(
    given: Given,
    arms: Sequence[Spoken],
    name: str,
    search: int | Mapping[str, Any],
    confirm: int | str,
    repeats: int,
    settings: Mapping[str, Any],
) -> list[Arm]:
    """The arms of a comparison on a task, which travels with them."""
    from optsweep.build.targets import pickled
    from optsweep.config.spoken import arms_of, dotted, search_of
    from optsweep.tasks.base import UNNAMED

    shared = {
        "task": "own",
        "task.name": name if given.task.name == UNNAMED else given.task.name,
        "task._target_": given.target,
        "task.batch_size": given.task.batch_size,
        "task.steps": given.task.steps,
        **{f"task.{key}": value for key, value in given.options.items()},
        "sweep.name": name,
        "sweep.repeats": repeats,
        **search_of(search),
        "confirm.seeds": confirm,
        **dotted(settings),
    }
    content = pickled(given.sent, "task")
    return [replace(arm, task=replace(arm.task, pickled=content)) for arm in arms_of(arms, shared)]


def load(source: str | Path, *, tracking_uri: str | None = None) -> Result:
    """The result of a sweep by its name, from reports/NAME or, where no report is, the store; or of a results.json.

    `result.note` says if the report is behind the store, or absent. Raises UserError for a sweep that isn't there,
    naming the nearest, and for a file that is damaged or of another version.
    """
    from optsweep.result.finding import load as found

    return found(source, REPORTS, tracking_uri)


def report(
    tracking_uri: str,
    sweeps: Sequence[str],
    out: Path | None = None,
    *,
    storage: str = Arm.storage,
    pdf: bool = False,
) -> Report:
    """Write the report of one or several sweeps, into reports/NAME unless told otherwise; `pdf`: of each figure too.

    Where runs are on a server, trials that wait for it lie beside the `storage` of the studies.

    Raises UserError for a store that can't be opened, and ValueError, naming the nearest, for a sweep that isn't there.
    """
    from optsweep.launch.environment import num_cores
    from optsweep.launch.tracked.home import written_and_shown
    from optsweep.report import helpers
    from optsweep.tracking.postman import deliver_all
    from optsweep.tracking.store import check

    with helpers(num_cores() if read_address(TRACKING_KEY, tracking_uri).is_there else 1) as helped:
        check(tracking_uri, create=False)
        for sweep in sweeps:
            deliver_all(tracking_uri, storage, sweep)
        own = REPORTS / "+".join(sweeps)
        return written_and_shown(tracking_uri, storage, sweeps, out or own, helped, pdf=pdf, own=out in (None, own))


def judge(
    source: str | Path | Iterable[Mapping[str, object]],
    *,
    out: Path | None = None,
    tracking_uri: str | None = None,
    **question: Any,
) -> JudgedReport:
    """Judge runs that something else made, and write the report into reports/NAME unless told otherwise.

    `source`: a CSV file, `mlflow:EXPERIMENT`, or records such as `frame.to_dict("records")`. What is asked of them
    (`arm="optimizer", metric="test_loss", seed="seed"`) are the fields of `report.judged.question.Question`.

    Raises UserError for runs that can't answer it.
    """
    from optsweep.address import tracking_address
    from optsweep.report.judged.question import Question
    from optsweep.report.judged.table import read_table
    from optsweep.report.judged.write import write_judgement

    asked = Question(**question)
    table = read_table(source, asked.metric, asked.step, tracking_uri or tracking_address())
    named = str(source) if isinstance(source, (str, Path)) else table.name
    return write_judgement(table, asked, out or REPORTS / table.name, named)


def verify(results: str | Path, share: float = 0.1, seed: int = 0, tolerance: float | None = None) -> Verified:
    """Run a random share of the trials of a sweep's results.json again, and compare their losses.

    Raises UserError for a file that doesn't say how its trials were trained.
    """
    from optsweep.launch.pools.local import LocalPool

    with LocalPool(1, needs="optsweep.launch.verify") as pool:
        pool.start_one()  # it imports what it needs while this process does
        from optsweep.launch.verify import TOLERANCE, ToVerify, verify_aside

        wanted = ToVerify(Path(results), share, seed, TOLERANCE if tolerance is None else tolerance)
        return verify_aside(pool, wanted)


def status(storage: str, sweep: str) -> SweepStatus:
    """How far a sweep is, arm by arm, who is at work, and the last error. Raises UserError for one that isn't there."""
    from optsweep.launch.status import status_of

    return status_of(storage, sweep)


def sync(storage: str, tracking_uri: str, sweep: str) -> Synced:
    """Deliver what waits of a sweep for its way into the tracking store.

    Raises UserError for a sweep that isn't there, and StoreFailureError, with what waits, if the store is still away.
    """
    from optsweep.launch.status import is_trained
    from optsweep.tracking.postman import deliver_all
    from optsweep.tracking.store import check, client, find_experiment
    from optsweep.tracking.writer import Tracker

    check(tracking_uri, create=False)
    delivered = deliver_all(tracking_uri, storage, sweep)
    find_experiment(client(tracking_uri), sweep)  # looking makes none
    tracker = Tracker(tracking_uri, sweep)
    sheet = tracker.sweep_sheet(tracker.sweep_run())
    if sheet is None or not is_trained(storage, sweep, sheet.plan):
        return Synced(delivered, complete=False)
    return Synced(delivered, complete=True, arguments=_arguments(sheet.command))


def _arguments(command: str) -> tuple[str, ...]:
    """Of a sweep's command; none where a password in it is starred out."""
    import shlex

    return () if "***" in command else tuple(shlex.split(command)[1:])


def retry(storage: str, tracking_uri: str, sweep: str) -> Freed:
    """Free what a sweep has given up: its own command, or `run`, runs it again.

    Raises UserError for a sweep that isn't there, or that is being run.
    """
    from optsweep.launch.status import forgive
    from optsweep.tracking.store import check
    from optsweep.tracking.writer import Tracker

    check(tracking_uri, create=False)
    failures = forgive(storage, sweep)
    tracker = Tracker(tracking_uri, sweep)
    sheet = tracker.sweep_sheet(tracker.sweep_run())
    return Freed(failures, _arguments(sheet.command if sheet is not None else ""))


def check(
    task: Pieces | Loop | Callable[..., Any] | Sequence[Arm],
    arms: Sequence[Spoken] = ("adamw + cosine",),
    *,
    name: str = "check",
    search: int | Mapping[str, Any] = 16,
    confirm: int | str = 8,
    repeats: int = 1,
    workers: int | None = None,
    seconds: float | None = None,
    tell: Callable[[str], None] = lambda what: None,
    **settings: Any,
) -> Checked:
    """Try a comparison before it is started: model, data, every optimizer for some steps; and what it would cost.

    The arguments are those of `compare`, so that its name is all that changes in a script, or the arms of a sweep.
    After `seconds` (120) no further optimizer of the catalogue is begun; `tell` hears what is being tried. Nothing is
    written. What would fail in training stands in the result's `findings`; raises UserError for what can't be built.
    """
    if isinstance(task, Sequence) and not isinstance(task, str):
        return _check_aside(task, workers, seconds, tell)
    from optsweep.build.named_task import task_of
    from optsweep.launch.check.check import SECONDS, check_arms

    seconds = SECONDS if seconds is None else seconds
    given = task_of(task)
    built = _arms_on(given, arms, name, search, confirm, repeats, settings)
    return check_arms(built, task=given.sent, workers=workers, seconds=seconds, tell=tell)


def _check_aside(
    arms: Sequence[Arm], workers: int | None, seconds: float | None, tell: Callable[[str], None]
) -> Checked:
    """Try arms of a config in a process of its own, which their code may end."""
    from optsweep.launch.pools.local import LocalPool

    with LocalPool(arms[0].trainer.threads, needs="optsweep.launch.check.check") as pool:
        pool.start_one()  # it imports what it needs while this process does
        from optsweep.launch.check.check import SECONDS, ToCheck, check_aside

        return check_aside(pool, ToCheck(arms, workers, SECONDS if seconds is None else seconds), tell)


def suggest(arm: Arm) -> Suggested:
    """Suggested learning rate, warm-up and so on, with the source of each; λ of both modes for an arm without decay."""
    from optsweep.build.assemble import task_facts
    from optsweep.build.hyperparameters import lr_options
    from optsweep.build.named_task import task_for
    from optsweep.build.suggestions import suggest_all, weight_decay

    facts = task_facts(arm, task_for(arm))
    options = lr_options(arm.optimizer.options)
    suggestions = suggest_all(arm.optimizer.name, arm.schedule.name, arm.decay.mode, facts, **options)
    if arm.decay.mode == "none":  # who asks before choosing wants to see λ too
        for mode in ("decoupled", "l2"):
            decay = weight_decay(arm.optimizer.name, mode, facts, arm.schedule.name)
            suggestions += [replace(decay, note=f"with weight_decay={mode}")] if decay else []
    return Suggested(facts, tuple(suggestions))
