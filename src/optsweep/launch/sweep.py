"""A whole sweep from its arms to its report: check, plan, work, time, report."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optsweep.build.assemble import Built, algorithm_of, build_arm, check_arm, device_of
from optsweep.config.arm import Arm, fingerprint_of
from optsweep.errors import UserError
from optsweep.inference.looks import AUTO, LOOKS
from optsweep.launch.continuity import check_history, note_content
from optsweep.launch.curves import summarise_arms
from optsweep.launch.describe import command_line, describe_arm, describe_session, describe_sweep
from optsweep.launch.display import Display
from optsweep.launch.environment import num_cores
from optsweep.launch.labels import baseline_of, labels_of
from optsweep.launch.planner import PlannedArm, Planner
from optsweep.launch.pool import Pool
from optsweep.launch.stop import StopRequest
from optsweep.launch.timing import time_arms
from optsweep.launch.worker import Job, Worker, is_alive, worker_name
from optsweep.search.slots import SearchPlan
from optsweep.search.studies import Studies
from optsweep.tasks.base import Task
from optsweep.tracking import names
from optsweep.tracking import writer as tracking
from optsweep.tracking.writer import Tracker

POLL_SECONDS = 1.0
"""The planner wakes up when a trial ends, and this often."""


@dataclass(frozen=True)
class Summary:
    """What a sweep came to."""

    sweep: str
    arms: tuple[str, ...]
    trials: int  # run by this call
    seconds: float


def run_sweep(arms: Sequence[Arm], *, workers: int | None, report: bool, alone: bool = False) -> Summary:
    """Run all arms to the end. `workers` 0: in this process; None: one per `trainer.threads` cores, or per GPU.

    `alone`: a stock launcher's job, which knows one arm only of those that the sweep has.

    Raises UserError before anything is written or trained if an arm, the store or the plan is not right.
    """
    begin = time.time()
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise UserError(
            f"hydra.launcher.workers: {workers!r} is not allowed; give a whole number ≥ 0 (0: in this process), or null"
        )
    _check_together(arms)
    arms = _without_looks(arms) if alone else arms
    first = arms[0]
    built = _build(arms)
    labels = labels_of(arms)
    count, devices = _deal(first, workers)
    baseline = baseline_of(arms, labels, all_arms=not alone)
    studies = Studies.open(first.storage, first.sweep)
    check_history(studies, arms, built)
    with Pool(count, devices, first.trainer.threads) as pool:
        size = [first.search.trials, first.confirm_seeds]
        if count and any(studies.note(arm.name, "finished") != size for arm in arms):
            pool.start()  # workers import while the stores are opened
        tracking.check(first.tracking_uri)
        _be_the_planner(studies, arms)
        note_content(studies, arms, built)
        tracker = Tracker(first.tracking_uri, first.sweep)
        sweep_run, plan = describe_sweep(tracker, arms, baseline, devices[0])
        jobs = [describe_arm(tracker, arm, b, labels[arm.name]) for arm, b in zip(arms, built, strict=True)]
        tasks = [_task(job, b) for job, b in zip(jobs, built, strict=True)]
        _say(built, labels, arms)
        with Display(first.sweep, max(1, count)) as display:
            planner = Planner(
                tasks,
                studies,
                tracker,
                seeds=first.confirm_seeds,
                baseline=plan["baseline"],
                delta=first.confirm_delta,
                retries=first.retries,
                on_done=display.trial_done,
            )
            try:
                trained = _work(planner, jobs, display, pool if count else None)
            finally:
                if planner.num_done() > planner.done_before:
                    describe_session(tracker, sweep_run, begin, time.time(), max(1, count), planner)
        for arm in arms:
            studies.set_note(arm.name, "finished", size)
    timings = time_arms(jobs, built, tracker)
    for run, timing in timings.items():
        tracker.set_tags(run, {names.TIMING: timing})
    results = fingerprint_of({"plan": plan, "results": planner.num_done()})
    fresh = tracker.client.get_run(sweep_run).data.tags.get(names.REPORTED) == results
    if timings or not fresh:
        summarise_arms(tracker, jobs)
    for job in jobs:
        tracker.end(job.parent_run)
    tracker.end(sweep_run)
    folder = Path("reports") / first.sweep
    if report and not (fresh and (folder / "index.html").is_file()):
        finish_report(first.tracking_uri, first.sweep)
        tracker.set_tags(sweep_run, {names.REPORTED: results})
    elif report:
        print(f"nothing was left to do; the report is {folder / 'index.html'}")
    return Summary(first.sweep, tuple(arm.name for arm in arms), trained, time.time() - begin)


def finish_report(uri: str, sweep: str) -> None:
    """Write the report of a sweep and say where it is."""
    from optsweep.report import write_report

    print(write_report(uri, [sweep], Path("reports") / sweep, processes=num_cores()).summary)


# -- before training -----------------------------------------------------------------------------------------------


_SHARED = {  # field of an Arm: its key
    "sweep": "sweep.name",
    "seed": "sweep.seed",
    "tracking_uri": "tracking.uri",
    "storage": "tracking.storage",
    "retries": "sweep.retries",
    "baseline": "sweep.baseline",
    "confirm_seeds": "confirm.seeds",
    "confirm_delta": "confirm.delta",
}


def _check_together(arms: Sequence[Arm]) -> None:
    seen: dict[str, Arm] = {}
    for arm in arms:
        if arm.name in seen:
            raise UserError(f"the same arm twice: {arm.name}")
        seen[arm.name] = arm
        for field, key in _SHARED.items():
            if getattr(arm, field) != getattr(arms[0], field):
                raise UserError(f"{key} differs between arms of one sweep: it can't be swept over")
        for key in ("device", "threads"):  # dealt out to workers, which any arm may use
            if getattr(arm.trainer, key) != getattr(arms[0].trainer, key):
                raise UserError(f"trainer.{key} differs between arms of one sweep: it can't be swept over")
        if arm.search.trials != arms[0].search.trials:
            raise UserError("search.trials differs between arms of one sweep: every arm gets the same budget")


def _without_looks(arms: Sequence[Arm]) -> Sequence[Arm]:
    """`confirm.seeds=auto` compares arms, so where the others are unknown it means all seeds of the last look."""
    if arms[0].confirm_seeds != AUTO:
        return arms
    print(
        f"note: confirm.seeds=auto: a job of this launcher doesn't know the other arms, so it runs all {LOOKS[-1]} "
        f"seeds; hydra/launcher=local stops as soon as the arms are told apart"
    )
    return [replace(arm, confirm_seeds=LOOKS[-1]) for arm in arms]


def _build(arms: Sequence[Arm]) -> list[Built]:
    """Build and check every arm; arms of one task share its data."""
    tasks: dict[str, Task] = {}
    built = []
    for arm in arms:
        key = repr(arm.task)
        built.append(build_arm(arm, tasks.get(key)))
        tasks[key] = built[-1].task
        built[-1] = replace(built[-1], warnings=(*built[-1].warnings, *check_arm(built[-1])))
    return built


def _say(built: Sequence[Built], labels: Mapping[str, str], arms: Sequence[Arm]) -> None:
    """Print each warning once, with the arms it concerns."""
    same: dict[str, list[str]] = {}
    for arm, b in zip(arms, built, strict=True):
        same.setdefault(algorithm_of(b), []).append(labels[arm.name])
    for twins in same.values():
        if len(twins) > 1:
            print(f"note: {' and '.join(twins)} are the same algorithm under different names")
    concerned: dict[str, list[str]] = {}
    for arm, b in zip(arms, built, strict=True):
        for warning in b.warnings:
            concerned.setdefault(warning, []).append(labels[arm.name])
    for warning, names_of_arms in concerned.items():
        print(f"note: {warning} ({', '.join(names_of_arms)})")


def _be_the_planner(studies: Studies, arms: Sequence[Arm]) -> None:
    """Two planners of one arm would enqueue its trials twice. Raises UserError if another one is alive."""
    me = worker_name()
    for arm in arms:
        other = studies.note(arm.name, "planner")
        if other is not None and other != me and is_alive(other):
            raise UserError(
                f"sweep.name={arm.sweep}: process {other.split('/')[1]} is running this sweep; wait for it, or stop it"
            )
    for arm in arms:
        studies.set_note(arm.name, "planner", me)


def _deal(arm: Arm, workers: int | None) -> tuple[int, list[str]]:
    """Number of workers (0: this process) and the devices to deal out."""
    device = device_of(arm.trainer.device)
    devices = [str(device)]
    if device.type == "cuda" and arm.trainer.device in ("auto", "cuda"):
        import torch

        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if workers is not None:
        return workers, devices
    if device.type != "cpu":
        return len(devices), devices
    return max(1, num_cores() // arm.trainer.threads), devices


def _task(job: Job, built: Built) -> PlannedArm:
    arm = job.arm
    plan = SearchPlan(
        trials=arm.search.trials,
        lag=arm.search.lag,
        sampler=arm.search.sampler,
        pruner=arm.search.pruner,
        reruns=arm.search.reruns,
        seed=arm.seed,
        arm=arm.name,
    )
    return PlannedArm(job, plan, built.space)


# -- work ----------------------------------------------------------------------------------------------------------


def _work(planner: Planner, jobs: Sequence[Job], display: Display, pool: Pool | None) -> int:
    """Run until the planner has nothing left, here if there is no pool; returns the number of trials that ended."""
    finished = planner.step()
    planner.done_before = before = planner.num_done()
    display.update(planner.progress)
    if finished:
        return 0
    with StopRequest(at_a_rung=pool is None) as stop:
        try:
            if pool is None:
                _work_here(planner, jobs, display, stop)
            else:
                pool.assign(jobs)
                while not stop.asked and not planner.step():
                    display.update(planner.progress)
                    _watch(pool, planner, stop)
        except KeyboardInterrupt:  # the second one
            with contextlib.suppress(Exception):  # of a write that it cut off
                _stop(planner, display, pool)
            raise
        if stop.asked:
            _stop(planner, display, pool)
            raise KeyboardInterrupt
    display.update(planner.progress)
    return planner.num_done() - before


def _watch(pool: Pool, planner: Planner, stop: StopRequest) -> None:
    """Wait for something to happen. A worker that dies while the sweep is stopped got the same signal: no crash."""
    try:
        dead = pool.wait(POLL_SECONDS)
    except UserError:
        if stop.asked:
            return
        raise
    if not stop.asked:
        for worker, reason in dead:
            planner.lose_worker(worker, reason)


def _stop(planner: Planner, display: Display, pool: Pool | None) -> None:
    """Give up what runs, and say how to go on."""
    if pool is not None:
        pool.stop()
    planner.release_all("interrupted by the user")
    done, total = sum(p.done for p in planner.progress), sum(p.total for p in planner.progress)
    display.stop()
    sys.stderr.write(f"stopped; {done} of {total} trials are kept. To go on: {command_line()}\n")


def _work_here(planner: Planner, jobs: Sequence[Job], display: Display, stop: StopRequest) -> None:
    worker = Worker(jobs, stopping=lambda: stop.asked)
    while not stop.asked and not planner.step():
        display.update(planner.progress)
        if not worker.work_once():
            time.sleep(POLL_SECONDS)
