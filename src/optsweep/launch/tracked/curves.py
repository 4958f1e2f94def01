"""Curves of an arm on its own run: mean over its confirm trials, and both ends of the mean's 95 % interval beside it.

MLflow shows parents first and hides their children, and draws no band by itself; with these it compares arms at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from optsweep.inference.repeats import independent
from optsweep.inference.statistics import mean_interval
from optsweep.tracking import names
from optsweep.tracking.contents import History, histories
from optsweep.tracking.names import Status
from optsweep.tracking.reader import infinity
from optsweep.tracking.records import MetricPoint
from optsweep.tracking.rewrite import rewrite_curves
from optsweep.tracking.schema import TrialHead
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

_LATE = 0.1  # share of a run whose steep start may leave a chart
_EDGE = 0.05  # of an axis, beyond what it shows


def summarise_arms(tracker: Tracker, arms: Mapping[str, str]) -> None:
    """Write the curves of these arms to their runs, over the confirm trials that finished.

    Where they are as before nothing is sent.
    """
    finished = {run: _finished(tracker, arm) for arm, run in arms.items()}
    wanted = {run: keys for held in finished.values() for run, keys in held.values()}
    found = histories(tracker.client, wanted)
    for run_id, trials in finished.items():
        started = int(tracker.client.get_run(run_id).info.start_time)
        keys = sorted({key for _, held in trials.values() for key in held})
        points: list[MetricPoint] = []
        for key in keys:
            curves = {seed: found[run, key] for seed, (run, held) in trials.items() if key in held}
            points += [(name, value, started + step, step) for name, value, step in summary(key, curves)]
        rewrite_curves(tracker, run_id, points)


def _finished(tracker: Tracker, arm: str) -> dict[int, tuple[str, list[str]]]:
    """Run and curves by seed; of a slot that ran twice, the last."""
    found = {}
    for run in tracker.trials(arm, Phase.CONFIRM):
        if run.data.tags.get(names.STATUS) == Status.FINISHED:
            head = TrialHead.of(run.data.tags, run.data.params)
            found[head.repeat, head.slot] = head.seed, (str(run.info.run_id), _drawn(run.data.metrics))
    return dict(found.values())


def _drawn(keys: Mapping[str, float]) -> list[str]:
    """What people look at: no costs, which lanes share, and no losses of parts of the test split."""
    return [key for key in keys if not key.startswith("cost/") and key != names.TEST_BLOCKS]


def summary(key: str, curves: Mapping[int, History]) -> Iterator[tuple[str, float, int]]:
    """(key, value, step) of the mean over seeds, or over searches where there are several, and of its interval's ends.

    At the steps at which all of them have a finite value, so that no point is over fewer than the next.
    """
    tables = {seed: dict(history) for seed, history in curves.items()}
    for step in sorted(set.intersection(*(set(table) for table in tables.values()))):
        values = {seed: infinity(table[step]) for seed, table in tables.items()}
        if not all(map(math.isfinite, values.values())):
            continue
        interval = mean_interval(list(independent(values).values()))
        yield key, interval.estimate, step
        if names.has_ends(key) and interval.low is not None and interval.high is not None:
            yield names.low(key), interval.low, step
            yield names.high(key), interval.high, step


def spans(tracker: Tracker, runs: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Of curves that these runs have, both ends of an axis that shows how they end: key, lowest, highest."""
    ends = (names.low, names.high)
    found = histories(
        tracker.client, {run: [of for key in keys for of in (key, *(end(key) for end in ends))] for run in runs}
    )
    for key in keys:
        late = [value for run in runs for value in _late(found[run, key])]
        last = [value for run in runs for end in ends for _, value in found[run, end(key)][-1:]]
        low, high = min([*late, *last], default=0.0), max([*late, *last], default=0.0)
        if high > low:
            yield key, low - _EDGE * (high - low), high + _EDGE * (high - low)


def _late(history: History) -> list[float]:
    last = max((step for step, _ in history), default=0)
    return [value for step, value in history if step >= _LATE * last]
