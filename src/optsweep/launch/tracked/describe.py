"""What MLflow is told of a sweep and its arms before anything trains, and of each call when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optsweep.config.arm import Arm
from optsweep.errors import without_secrets
from optsweep.inference.looks import AUTO, LOOKS, REPEAT_LOOKS, in_words, searches_in_words
from optsweep.launch.environment import environment
from optsweep.launch.planner import Planner
from optsweep.launch.prepare.description import Description
from optsweep.launch.tracked.home import show_plan
from optsweep.launch.worker.job import Job
from optsweep.search.space import Dimension, Space
from optsweep.tracking import names
from optsweep.tracking.schema import (
    ArmFacts,
    ArmSheet,
    ArmTitle,
    ConfirmTerms,
    RangeRecord,
    SearchTerms,
    Session,
    Setting,
    Size,
    SweepPlan,
    SweepSheet,
)
from optsweep.tracking.writer import Tracker


def describe_sweep(
    tracker: Tracker, arms: Sequence[Arm], labels: Mapping[str, str], baseline: str | None, device: str, command: str
) -> tuple[str, SweepPlan]:
    """The run of kind `sweep`: plan, machine, the command that repeats the call. Returns its id and the plan.

    Without a baseline an earlier call's stays. So do its arms, which this call may not know, its repeats, which are
    judged where they are complete, and planned looks: seeds or searches that were looked at are judged as such, even
    where a fixed number is asked for later.
    """
    first = arms[0]
    run = tracker.sweep_run()
    before = tracker.sweep_sheet(run) or SweepSheet()
    titles = {title.name: title for title in before.plan.arms}
    titles |= {arm.name: ArmTitle(arm.name, labels[arm.name]) for arm in arms}
    plan = SweepPlan(
        baseline=baseline or before.plan.baseline or first.name,
        seed=first.seed,
        objective=names.VAL_LOSS,
        arms=tuple(titles.values()),
        search=SearchTerms(
            trials=first.search.trials,
            reruns=first.search.reruns,
            lag=first.search.lag,
            sampler=first.search.sampler,
            pruner=first.search.pruner,
        ),
        confirm=ConfirmTerms(
            seeds=first.confirm_seeds,
            looks=LOOKS if first.confirm_seeds == AUTO else before.plan.confirm.looks,
            delta=first.confirm_delta,
        ),
        **_repeats(first, before.plan),
        grown=_grown(first, before),
    )
    sheet = replace(before, plan=plan, environment=environment(device), command=command)
    if sheet != before:  # jobs of a stock launcher, which begin together, have nothing to add
        tracker.write_sheet(run, sheet)
    show_plan(tracker, run, plan, [arm.task.name for arm in arms], command, new=not before.reported)
    return run, plan


def _repeats(arm: Arm, before: SweepPlan) -> dict[str, Any]:
    """The plan's searches, after those of an earlier call."""
    fixed = max(before.repeats_before, 0 if before.repeats == AUTO else before.repeats)
    if arm.repeats == AUTO:
        return {"repeats": AUTO, "repeat_looks": REPEAT_LOOKS, "repeats_before": fixed}
    return {"repeats": max(arm.repeats, fixed), "repeat_looks": before.repeat_looks}


def _grown(arm: Arm, before: SweepSheet) -> tuple[Size, ...]:
    """The sizes that a verdict was seen at before this call asks for more."""
    plan = before.plan
    size = Size(plan.repeats, plan.search.trials, plan.confirm.seeds)
    same = size == Size(arm.repeats, arm.search.trials, arm.confirm_seeds)
    return plan.grown if same or not before.reported or size in plan.grown else (*plan.grown, size)


def describe_arm(tracker: Tracker, arm: Arm, known: Description, label: str, colour: str = "") -> Job:
    """The parent run of an arm: what it is, what is searched, from which source. Returns the arm as workers get it.

    What an earlier call found, its choice and its timing, stays.
    """
    run = tracker.arm_run(arm.name, label)
    before = tracker.arm_sheet(run)
    if before is None or before.fingerprint != known.fingerprint:  # of an arm that came to no result yet
        before = ArmSheet(arm.name, label)
    sheet = replace(
        before,
        label=label,
        choices=arm.combination,
        fingerprint=known.fingerprint,
        space=_ranges(known.space),
        fixed=known.space.fixed,
        facts=before.facts if before.chosen and known.space.program else known.facts,
        schedule=known.schedule,
        config=without_secrets(arm.yaml),
        optimizer=known.optimizer,
        warnings=known.warnings,
        device=known.begun_on.device,
        versions=known.begun_on.versions,
    )
    tracker.write_sheet(run, sheet)
    # the label too: a grid that grew may tell its arms apart by more than before
    painted = {names.COLOUR: colour} if colour else {}
    tracker.set_tags(run, {names.NOTE: _note(arm, known, known.facts), names.RUN_NAME: label, **painted})
    tracker.set_params(run, {key: value for key, value in known.content.items() if value is not None})
    tracker.set_dataset(run, arm.task.name, known.facts.data, arm.task.target, {"num_train": known.num_train})
    tracker.log_text(run, without_secrets(arm.yaml), "config.yaml")
    return Job(arm, label, known.fingerprint, run, tuple(known.space.program), known.fitted.key, colour, known.begun_on)


def describe_chosen(tracker: Tracker, job: Job, known: Description, facts: ArmFacts | None) -> None:
    """The chosen setting in the note, and the facts of its program, where the search chose among programs."""
    sheet = tracker.arm_sheet(job.parent_run)
    if sheet is None or sheet.chosen is None:
        return
    if facts is not None:
        facts = replace(facts, lanes_found=known.fitted.found)
    if facts is not None and facts != sheet.facts:
        tracker.write_sheet(job.parent_run, replace(sheet, facts=facts))
    found = [sheet.chosen, *sheet.chosen_again]
    said = [_setting(known.space.restored({**held.params, **held.choices})) for held in found if held is not None]
    if said[0]:
        chosen = f"Chosen: {said[0]}" if len(said) == 1 else "\n".join(["Chosen by each search:", "", *_listed(said)])
        note = _note(job.arm, known, facts or sheet.facts or known.facts)
        tracker.set_tags(
            job.parent_run, {names.NOTE: f"**{chosen}**\n\n{note}" if len(said) == 1 else f"{chosen}\n\n{note}"}
        )


def _setting(params: Mapping[str, Setting]) -> str:
    return ", ".join(f"{key} = {_value(value)}" for key, value in params.items())


def _listed(items: Sequence[str]) -> list[str]:
    """Items of a Markdown list."""
    return [f"- {item}" for item in items]


def _value(value: Setting) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ranges(space: Space) -> dict[str, RangeRecord]:
    """The searched ranges of numbers."""
    ranges = {key: (found.number, found.source) for key, found in space.dimensions.items()}
    return {
        key: RangeRecord(found.low, found.high, found.log, source)
        for key, (found, source) in ranges.items()
        if found is not None
    }


def _values(dimension: Dimension) -> str:
    """What is searched, in words."""
    found = dimension.number
    return ", ".join(map(str, dimension.choices)) if found is None else f"{found.low:g} – {found.high:g}"


def _note(arm: Arm, known: Description, facts: ArmFacts) -> str:
    """Markdown shown on the arm's page in MLflow."""
    times = f"{searches_in_words(arm.repeats)}, each " if arm.repeats != 1 else ""
    rows = [f"| {key} | {_values(found)} | {found.source} |" for key, found in known.space.dimensions.items()]
    fixed = ", ".join(f"{key} = {value:g}" for key, value in known.space.fixed.items())
    return "\n".join(
        [
            f"{times}{arm.search.trials} search trials, "
            f"{in_words(arm.confirm_seeds)}, {facts.num_steps} steps of {facts.batch_size} samples, "
            f"{facts.num_parameters:,} parameters.",
            "",
            *(["| searched | range | source |", "| --- | --- | --- |", *rows, ""] if rows else []),
            f"Fixed: {fixed}" if fixed else "",
        ]
    )


def describe_session(tracker: Tracker, run: str, begin: float, end: float, workers: int, planner: Planner) -> None:
    """Add this call to the sweep's list of sessions."""
    sheet = tracker.sweep_sheet(run)
    before = sheet.sessions if sheet else ()
    session = Session(
        start=round(begin, 3),
        end=round(end, 3),
        workers=workers,
        train_seconds=round(planner.train_seconds() - sum(s.train_seconds for s in before), 3),
        trials=planner.num_done() - sum(s.trials for s in before),
    )
    tracker.note_session(run, session)
