"""A trial's run in MLflow, which its worker writes.

Curves are buffered and sent at rungs, every two seconds at most. A trial's run is closed before its study is told, so
a told trial is always complete here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.schema import TrialEnd, TrialHead
from optsweep.tracking.source import source_tags
from optsweep.tracking.store import failures_told_apart
from optsweep.tracking.writer import METRICS_PER_CALL, TAG_CHARACTERS, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from optsweep.train.trial import Outcome, Rung

FLUSH_SECONDS = 2.0


class TrialLog:
    """One trial's run: opened at its start, written at rungs, closed before its study is told.

    A write costs about 10 ms on SQLite whatever it holds, so rungs that follow each other faster than
    `FLUSH_SECONDS` are sent together.
    """

    def __init__(self, tracker: Tracker, parent: str, name: str, head: TrialHead, metric: str) -> None:
        from mlflow.entities import Param, RunTag

        self.tracker, self.metric = tracker, metric
        self._pending: list[Metric] = []
        self._written = time.monotonic()
        tags = {names.PARENT: parent, **head.tags(), **source_tags()}
        with failures_told_apart():
            run = tracker.client.create_run(tracker.experiment_id, run_name=name, tags={})
            self.run_id = str(run.info.run_id)
            tracker.client.log_batch(
                self.run_id,
                params=[Param(key, value) for key, value in head.params().items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )

    def rung(self, rung: Rung) -> None:
        """Keep everything since the rung before, and send it if the last write is long enough ago."""
        if rung.val_aside is None:
            self._add(names.VAL_LOSS, rung.val_loss, rung.step)
        else:
            self._add(names.VAL_OBJECTIVE, rung.val_loss, rung.step)
            self._add(names.VAL_LOSS, rung.val_aside, rung.step)
        self._add(names.val_metric(self.metric), rung.val_score, rung.step)
        for point in rung.points:
            if point.loss is not None:
                self._add(names.TRAIN_LOSS, point.loss, point.step)
            self._add(names.LR, point.lr, point.step)
            self._add(names.GRAD_NORM, point.grad_norm, point.step)
            self._add(names.UPDATE_RATIO, point.update_ratio, point.step)
        if rung.step:
            self._add(names.TRAIN_SECONDS, rung.train_seconds, rung.step)
            self._add(names.PEAK_BYTES, float(rung.peak_bytes), rung.step)
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self._send()

    def end(self, outcome: Outcome) -> None:
        """Write the result and close the run."""
        if outcome.test_loss is not None and outcome.test_score is not None:
            if outcome.test_aside is None:
                self._add(names.TEST_LOSS, outcome.test_loss, outcome.step)
            else:
                self._add(names.TEST_OBJECTIVE, outcome.test_loss, outcome.step)
                self._add(names.TEST_LOSS, outcome.test_aside, outcome.step)
            self._add(names.test_metric(self.metric), outcome.test_score, outcome.step)
            for block, loss in enumerate(outcome.test_blocks):
                self._add(names.TEST_BLOCKS, loss, block)
        self._add(names.TRAIN_SECONDS, outcome.train_seconds, outcome.step)
        self._send(TrialEnd(Status(outcome.end.value), outcome.reason, outcome.train_seconds, outcome.state_bytes))
        with failures_told_apart():
            for name, text in outcome.artifacts.items():
                self.tracker.client.log_text(self.run_id, text, name)
            self.tracker.client.set_terminated(self.run_id, "FINISHED")

    def crash(self, reason: str) -> None:
        """Close the run as crashed."""
        self._send(TrialEnd(Status.CRASHED, reason))
        with failures_told_apart():
            self.tracker.client.set_terminated(self.run_id, "FAILED")

    def _add(self, key: str, value: float, step: int) -> None:
        from mlflow.entities import Metric

        self._pending.append(Metric(key, value, int(time.time() * 1000), step))

    def _send(self, end: TrialEnd | None = None) -> None:
        """Write what is pending, in as few calls as MLflow allows, the trial's end with the last."""
        from mlflow.entities import Param, RunTag

        pending, self._pending, self._written = self._pending, [], time.monotonic()
        parts = [pending[i : i + METRICS_PER_CALL] for i in range(0, len(pending), METRICS_PER_CALL)] or [[]]
        tags = [RunTag(key, text[:TAG_CHARACTERS]) for key, text in end.tags().items()] if end else []
        params = [Param(key, text) for key, text in end.params().items()] if end else []
        with failures_told_apart():
            for part in parts[:-1]:
                self.tracker.client.log_batch(self.run_id, metrics=part)
            self.tracker.client.log_batch(self.run_id, metrics=parts[-1], tags=tags, params=params)
