"""Curves of an arm on its parent run: the median over its confirm trials, so that the MLflow UI compares arms at once.

The UI shows parents first and hides their children; without these its charts would be empty until one unfolds an arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from optsweep.launch.worker import Job
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase


def summarise_arms(tracker: Tracker, jobs: Sequence[Job]) -> None:
    """Log every arm's median curves; sent again they change nothing: timestamps are the arm's start and the step."""
    for job in jobs:
        finished = {
            (head.repeat, head.slot): run  # of a slot that ran twice, the last
            for run in tracker.trials(job.arm.name, Phase.CONFIRM)
            if run.data.tags.get(names.STATUS) == Status.FINISHED
            for head in [TrialHead.of(run.data.tags, run.data.params)]
        }
        runs = list(finished.values())
        if not runs:
            continue
        started = int(tracker.client.get_run(job.parent_run).info.start_time)
        keys = sorted({key for run in runs for key in run.data.metrics if not key.startswith("cost/")})
        points: list[tuple[str, float, int, int]] = []
        for key in keys:
            values: dict[int, list[float]] = {}
            for run in runs:
                for metric in tracker.client.get_metric_history(run.info.run_id, key):
                    values.setdefault(metric.step, []).append(metric.value)
            points += [(key, median(found), started + step, step) for step, found in sorted(values.items())]
        tracker.log_points(job.parent_run, points)
