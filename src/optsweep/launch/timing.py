"""The timing pass: milliseconds per step of every arm, one lane, arms in turn, nothing else running.

It runs in the planner's process, when the workers are gone: timings taken while workers share a machine, or lanes a
computation, say nothing about an optimizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from statistics import quantiles

from optsweep.build.assemble import Built
from optsweep.launch.worker import Job
from optsweep.tracking.schema import Timing
from optsweep.tracking.writer import Tracker
from optsweep.train.process import threads
from optsweep.train.trial import Trial

ROUNDS = 5
STEPS = 20
"""Steps per arm and round; a multiple of SOAP's refresh interval, so that each round has the same number."""


def time_arms(jobs: Sequence[Job], built: Sequence[Built], tracker: Tracker) -> dict[str, Timing]:
    """Timing by parent run, of the arms that have none yet. An arm that crashes here gets none."""
    samples: dict[str, list[float]] = {}
    work = []
    for job, arm_built in zip(jobs, built, strict=True):
        sheet = tracker.arm_sheet(job.parent_run)
        if sheet is not None and sheet.timing is None:
            # Without a choice every trial diverged; the time of a step does not depend on the numbers.
            space, chosen = arm_built.space, sheet.chosen
            params = space.restored({**chosen.params, **chosen.choices}) if chosen else space.first
            trial = Trial(arm_built.space.hyper(params), seed=0)
            work.append((job, arm_built.workload_for(params), trial))
            samples[job.parent_run] = []
    for _ in range(ROUNDS):
        for job, workload, trial in work:
            with threads(job.arm.trainer.threads), contextlib.suppress(Exception):  # told as crashed trials already
                samples[job.parent_run].append(workload.time_steps(trial, STEPS))
    result: dict[str, Timing] = {}
    for run, values in samples.items():
        if len(values) == ROUNDS:
            first, median, third = quantiles(values, n=4, method="inclusive")
            result[run] = Timing(median, first, third, len(values))
    return result
