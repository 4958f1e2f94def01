"""The "across" part of results.json: everything that the page states over several groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from optsweep.inference.statistics import Interval
from optsweep.report.across.factorial import Factorial
from optsweep.report.across.findings import Across
from optsweep.report.across.frontier import OnFrontier
from optsweep.report.across.lengths import LengthArm, RunLengths
from optsweep.report.across.tasks import OverTasks, TaskResult, scores
from optsweep.report.arm_result import ArmResult


def across_results(found: Across) -> dict[str, Any]:
    """Findings over run lengths, over tasks, and of choices that are crossed 2 × 2."""
    return {
        "run_lengths": [
            {**_run_lengths(lengths), "sentences": finding.sentences, "notes": finding.notes}
            for lengths, finding in found.run_lengths
        ],
        "tasks": [
            {**_tasks(tasks), "sentences": finding.sentences, "notes": finding.notes} for tasks, finding in found.tasks
        ],
        "factorials": [
            {**_factorial(crossed), "sentences": finding.sentences, "notes": finding.notes}
            for crossed, finding in found.factorials
        ],
    }


def _run_lengths(lengths: RunLengths) -> dict[str, Any]:
    return {
        "title": lengths.title,
        "lengths": lengths.lengths,
        "baseline": lengths.baseline.label,
        "baseline_curve": asdict(lengths.curve) if lengths.curve else None,
        "confidence": lengths.level.confidence,
        "arms": [_length_arm(arm, lengths.time_ratios) for arm in lengths.arms],
        "frontier": [_frontier(found, lengths.baseline) for found in lengths.frontier],
    }


def _length_arm(arm: LengthArm, time_ratios: Mapping[int, float]) -> dict[str, Any]:
    return {
        "label": arm.label,
        "runs": [{"num_steps": length, **_run(run)} for length, run in arm.runs.items()],
        "steps_ratios": [asdict(found) for found in arm.ratios],
        "steps_ratio": _interval(arm.overall),
        "method": arm.method,
        "time_ratio": time_ratios.get(arm.longest.style),
    }


def _run(run: ArmResult) -> dict[str, Any]:
    return {
        "sweep": run.sweep.name,
        "arm": run.name,
        "test_loss": _interval(run.test),
        "val_loss": _interval(run.val),
        "diverged_seeds": run.diverged_seeds,
        "unbracketed": run.unbracketed,
    }


def _frontier(found: OnFrontier, baseline: LengthArm) -> dict[str, Any]:
    held = zip(found.num_steps, found.differences, found.p_holm, found.sides, strict=True)
    return {
        "label": found.arm.label,
        "num_steps": found.arm.num_steps,
        "diverged_seeds": found.arm.diverged_seeds,
        "counts": found.counts,
        "differences": [
            {
                "num_steps": length,
                "paired_t": asdict(test),
                "p_holm": p,
                "side": side,
                "baseline_diverged_seeds": baseline.runs[length].diverged_seeds,
            }
            for length, test, p, side in held
        ],
    }


def _tasks(tasks: OverTasks) -> dict[str, Any]:
    seconds = tasks.seconds
    by_steps = scores(tasks.steps) if tasks.solvable else None
    return {
        "setting": tasks.title,
        "baseline": tasks.arms[0].label,
        "confidence": tasks.level.confidence,
        "arms": [
            {
                "label": arm.label,
                "mean_rank": _interval(tasks.mean_ranks[place]) if tasks.mean_ranks else None,
                "outcomes": tasks.outcomes[place],
                "score_steps": None if by_steps is None else by_steps[place],
                "score_seconds": None if seconds is None else scores(seconds)[place],
            }
            for place, arm in enumerate(tasks.arms)
        ],
        "tasks": [_task(task) for task in tasks.tasks],
    }


def _task(task: TaskResult) -> dict[str, Any]:
    return {
        "task": task.task,
        "sweep": task.group.sweep.name,
        "group": task.group.title,
        "target": None if task.target is None else task.target.loss,
        "target_of_task": None if task.target is None else task.target.of_task,
        "arms": [arm.name for arm in task.arms],
        "steps_to_target": task.steps,
        "seconds_to_target": task.seconds,
        "ranks": task.ranks,
        "num_seeds": task.seeds,
    }


def _factorial(crossed: Factorial) -> dict[str, Any]:
    base, first, second, both = crossed.arms
    return {
        "group": crossed.title,
        "factors": crossed.factors,
        "instead_of": crossed.instead_of,
        "arms": {"baseline": base.name, "first": first.name, "second": second.name, "both": both.name},
        "confidence": crossed.level.confidence,
        "paired_over": "searches" if crossed.over_searches else "seeds",
        "first_alone": asdict(crossed.alone[0]),
        "second_alone": asdict(crossed.alone[1]),
        "together": asdict(crossed.together),
        "interaction": asdict(crossed.interaction),
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return asdict(interval) if interval else None
