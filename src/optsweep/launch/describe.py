"""What MLflow is told of a sweep and its arms before anything trains, and of each call when it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from optsweep.build.assemble import Built
from optsweep.config.arm import Arm
from optsweep.errors import without_secrets
from optsweep.inference.looks import AUTO, LOOKS, in_words
from optsweep.launch.environment import environment
from optsweep.launch.planner import Planner
from optsweep.launch.worker import Job
from optsweep.search.space import Dimension
from optsweep.tasks.base import Split
from optsweep.tracking import names
from optsweep.tracking import writer as tracking
from optsweep.tracking.writer import Tracker

MAX_SESSIONS = 40
_ADDED = ("train_seconds", "trials")


def command_line() -> str:
    """The command that repeats this call, without passwords: it goes into the report."""
    return without_secrets(" ".join(["optsweep", *(shlex.quote(a) for a in sys.argv[1:])]))


def describe_sweep(
    tracker: Tracker, arms: Sequence[Arm], baseline: str | None, device: str
) -> tuple[str, Mapping[str, Any]]:
    """The run of kind `sweep`: plan, machine, command. Returns its id and the plan.

    Without a baseline an earlier call's stays. So do planned looks: seeds that were looked at are judged as such, even
    where a fixed number is asked for later.
    """
    first = arms[0]
    run = tracker.sweep_run()
    earlier = tracking.parse(tracker.client.get_run(run).data.tags.get(names.PLAN, "{}"))
    looks = LOOKS if first.confirm_seeds == AUTO else earlier.get("confirm", {}).get("looks", ())
    plan = {
        "baseline": baseline or earlier.get("baseline") or first.name,
        "seed": first.seed,
        "objective": names.VAL_LOSS,
        "search": {
            "trials": first.search.trials,
            "reruns": first.search.reruns,
            "lag": first.search.lag,
            "sampler": first.search.sampler,
            "pruner": first.search.pruner,
        },
        "confirm": {"seeds": first.confirm_seeds, "looks": list(looks), "delta": first.confirm_delta},
    }
    tracker.set_tags(run, {names.PLAN: plan, names.ENVIRONMENT: environment(device), names.COMMAND: command_line()})
    return run, plan


def describe_arm(tracker: Tracker, arm: Arm, built: Built, label: str) -> Job:
    """The parent run of an arm: what it is, what is searched, from which source. Returns the arm as workers get it."""
    run = tracker.arm_run(arm.name, label)
    program, task = built.program, built.program.task
    facts = {
        "num_parameters": program.layout.num_parameters,
        "num_steps": program.num_steps,
        "batch_size": program.batch_size,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "loss_unit": task.loss_unit,
        "chance_loss": task.chance_loss,
        "target_loss": task.target_loss,
        "warmup_steps": program.schedule.length,
        "device": arm.trainer.device,
        "precision": program.precision,
        "lanes": arm.trainer.lanes,
        "threads": arm.trainer.threads,
        "data": task.digest(),
    }
    ranges = {key: (found.number, found.source) for key, found in built.space.dimensions.items()}
    space = {
        key: {"low": found.low, "high": found.high, "log": found.log, "source": source}
        for key, (found, source) in ranges.items()
        if found is not None
    }
    tags = {
        names.LABEL: label,
        names.CHOICES: arm.combination,
        names.FINGERPRINT: built.fingerprint,
        names.SPACE: space,
        names.FIXED: built.space.fixed,
        names.FACTS: facts,
        names.WARNINGS: list(built.warnings),
        "mlflow.note.content": _note(arm, built, label),
        "mlflow.runName": label,  # a grid that grew may tell its arms apart by more than before
    }
    tracker.set_tags(run, tags)
    tracker.set_params(run, {key: value for key, value in built.content.items() if value is not None})
    tracker.set_dataset(run, arm.task.name, task.digest(), arm.task.target, {"num_train": task.size(Split.TRAIN)})
    tracker.log_text(run, without_secrets(arm.yaml), "config.yaml")
    return Job(arm, label, built.fingerprint, run)


def _values(dimension: Dimension) -> str:
    """What is searched, in words."""
    found = dimension.number
    return ", ".join(map(str, dimension.choices)) if found is None else f"{found.low:g} – {found.high:g}"


def _note(arm: Arm, built: Built, label: str) -> str:
    """Markdown shown on the arm's page in MLflow."""
    rows = [f"| {key} | {_values(found)} | {found.source} |" for key, found in built.space.dimensions.items()]
    fixed = ", ".join(f"{key} = {value:g}" for key, value in built.space.fixed.items())
    return "\n".join(
        [
            f"### {label}",
            f"{arm.search.trials} search trials, {in_words(arm.confirm_seeds)}, {built.program.num_steps} steps of "
            f"{built.program.batch_size} samples, {built.program.layout.num_parameters:,} parameters.",
            "",
            *(["| searched | range | source |", "| --- | --- | --- |", *rows, ""] if rows else []),
            f"Fixed: {fixed}" if fixed else "",
        ]
    )


def describe_session(tracker: Tracker, run: str, begin: float, end: float, workers: int, planner: Planner) -> None:
    """Add this call to the sweep's list of sessions."""
    before = tracker.client.get_run(run).data.tags.get(names.SESSIONS)
    sessions = tracking.parse(before) if before else []
    known_seconds = sum(s["train_seconds"] for s in sessions)
    known_trials = sum(s["trials"] for s in sessions)
    session = {
        "start": round(begin, 3),
        "end": round(end, 3),
        "workers": workers,
        "train_seconds": round(planner.train_seconds() - known_seconds, 3),
        "trials": planner.num_done() - known_trials,
    }
    sessions.append(session)
    while len(sessions) > MAX_SESSIONS:  # a tag holds some 75; the two oldest become one
        a, b = sessions[:2]
        sessions[:2] = [{**b, "start": b["start"] - (a["end"] - a["start"])} | {k: a[k] + b[k] for k in _ADDED}]
    tracker.set_tags(run, {names.SESSIONS: sessions})
