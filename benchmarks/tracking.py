"""Where the milliseconds of a trial's tracking go: each call of MLflow, and what the training thread waits for.

    python benchmarks/tracking.py [TRIALS [POINTS]]

Trials of four curves of POINTS points each, and two of 13, are written to a database by two ways in turn: at once, by
the thread that trains, and through the spool, by its courier; then popped, reported and told in a study without MLflow.
Medians, of the process's time and, in brackets, of the clock's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.courier import Courier
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.spool import Spool
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase, Point, Rung

RUNGS, POINTS, STEPS = 12, 30, 600
WARM_UP = 3
CALLS = ("create_run", "log_batch", "set_terminated")

Times = defaultdict[str, list[tuple[float, float]]]


def timed(times: Times, name: str, call: Callable[[], Any]) -> Any:
    """What the call gives; its milliseconds are noted."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = call()
    times[name].append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
    return found


def watch(tracker: Tracker, times: Times, way: str) -> None:
    """Note every call that the tracker's client makes."""
    for name in CALLS:
        call = getattr(tracker.client, name)
        setattr(tracker.client, name, partial(_timed_call, times, f"{way}: {name}", call))


def _timed_call(times: Times, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return timed(times, name, partial(call, *args, **options))


def train(log: TrialLog, num_points: int) -> None:
    """What a trial says of itself."""
    for rung in range(RUNGS + 1):
        last, step = (rung - 1) * STEPS // RUNGS, rung * STEPS // RUNGS
        steps = [(point + 1) * STEPS // num_points for point in range(num_points)]
        points = tuple(Point(at, 0.1, 0.1, 0.1, 0.1) for at in steps if last < at <= step)
        log.rung(Rung(step, 0.1, 0.2, points, 1.0, 1, 0.1))
    log.end(Outcome(End.FINISHED, STEPS, 0.1, 0.2, None, None, 0.1, 8))
    log.close()


def measure(folder: Path, trials: int, points: int) -> Times:
    """Times by way and call."""
    uri, times = f"sqlite:///{folder}/mlflow.db", Times(list)
    store.check(uri)
    tracker = Tracker(uri, "made-up")
    parent = tracker.arm_run("arm", "arm")
    courier = Courier(Spool.of(uri, f"sqlite:///{folder}/optuna.db", "made-up"), start=False)
    watch(tracker, times, "at once")
    watch(courier._postman.tracker, times, "by the courier")
    for number in range(trials + WARM_UP):
        heads = (
            TrialHead("arm", Phase.SEARCH, number, 0, "model", {"lr": 1e-3, "weight_decay": 0.1}, id=f"{way}{number}")
            for way in "ab"
        )
        at_once = TrialLog(AtOnce(tracker), parent, "a trial", next(heads), "accuracy")
        timed(times, "at once: the training thread", partial(train, at_once, points))
        head = next(heads)
        spooled = TrialLog(courier.open(head.id), parent, "a trial", head, "accuracy")
        timed(times, "by the courier: the training thread", partial(train, spooled, points))
        timed(times, "by the courier: its thread", courier.once)
    _studies(folder, times, trials)
    return times


def _studies(folder: Path, times: Times, trials: int) -> None:
    """What a trial costs in Optuna's storage: the planner makes it, a worker has the rest."""
    studies = Studies.open(f"sqlite:///{folder}/optuna.db", "made-up")
    seat = studies.take_seat(["arm"], whole=True)
    for number in range(trials + WARM_UP):
        slot = Slot(number, {"lr": 1e-3}, 0, "fixed")
        timed(times, "study: enqueue", partial(studies.enqueue, seat, "arm", Phase.SEARCH, slot))
        (work,) = timed(times, "study: pop", partial(studies.pop, "arm", Phase.SEARCH, "a worker", 300.0, 1))
        timed(times, "study: report, for a pruner", partial(studies.report, work.claim, 10, 0.1, 300.0))
        timed(times, "study: tell", partial(studies.tell, work.claim, End.FINISHED, 0.1, 1.0))


def main() -> int:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    points = int(sys.argv[2]) if len(sys.argv) > 2 else POINTS
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), trials, points)
    for name in sorted(times):
        found = times[name][WARM_UP:]
        print(f"{name:40} {median(cpu for cpu, _ in found):6.1f} ({median(wall for _, wall in found):.1f}) ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
