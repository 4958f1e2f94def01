"""The timing pass: milliseconds per step of every arm, one lane, arms in turn, nothing else running.

Timings taken while workers share a machine, or lanes a computation, say nothing about an optimizer.
"""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import quantiles
from typing import Any

import torch

from optsweep import tracking_names as names
from optsweep.assemble import Built, build_arm, device_of
from optsweep.launch.worker import Job
from optsweep.tracking import Tracker
from optsweep.train.loop import time_steps
from optsweep.train.trial import Trial

ROUNDS = 5
STEPS = 20
"""Steps per arm and round; a multiple of SOAP's refresh interval, so that each round has the same number."""


def time_arms(
    jobs: Sequence[Job], built: Sequence[Built], tracker: Tracker, device: str, *, inline: bool
) -> dict[str, Mapping[str, Any]]:
    """Timing by parent run, of the arms that have none yet; measured in a process of its own unless `inline`."""
    known = {job.parent_run: tracker.client.get_run(job.parent_run).data.tags for job in jobs}
    pending = [(j, b) for j, b in zip(jobs, built, strict=True) if names.TIMING not in known[j.parent_run]]
    if not pending:
        return {}
    work = [(job, _hyper(built, known[job.parent_run])) for job, built in pending]
    if inline:
        return _measure(work, device)
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (work, device))


def _hyper(built: Built, tags: Mapping[str, str]) -> dict[str, float]:
    """The chosen setting, or where there is none the low end of what was searched."""
    import json

    chosen = json.loads(tags.get(names.CHOSEN, "null"))
    params = chosen["params"] if chosen else {key: r.low for key, r in built.space.ranges.items()}
    return built.space.hyper(params)


def _measure(work: Sequence[tuple[Job, Mapping[str, float]]], device: str) -> dict[str, Mapping[str, Any]]:
    tasks: dict[str, Any] = {}
    samples: dict[str, list[float]] = {job.parent_run: [] for job, _ in work}
    programs = []
    for job, hyper in work:
        torch.set_num_threads(job.arm.trainer.threads)
        key = repr(job.arm.task)
        program = build_arm(job.arm, tasks.get(key), device_of(device)).program
        tasks[key] = program.task
        programs.append((job, replace(program, vmapped=False), Trial(hyper, seed=0)))
    for _ in range(ROUNDS):
        for job, program, trial in programs:
            samples[job.parent_run].append(time_steps(program, trial, STEPS))
    result: dict[str, Mapping[str, Any]] = {}
    for run, values in samples.items():
        low, median, high = quantiles(values, n=4, method="inclusive")
        result[run] = {"ms_per_step": median, "low": low, "high": high, "n": len(values)}
    return result
