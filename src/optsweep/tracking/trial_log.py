"""What a worker says of a trial while it trains, so that it comes to stand in MLflow.

Nothing here waits for MLflow: records go into the trial's file in the spool, at rungs, every two seconds at most, and a
courier delivers them. A trial's end is on the disk before its study is told, so a told trial is complete in MLflow or
in the spool.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.records import Ended, MetricPoint, Opened, Points, Record, TextFile
from optsweep.tracking.schema import TrialEnd, TrialHead
from optsweep.tracking.source import source_tags
from optsweep.tracking.writer import TAG_CHARACTERS

if TYPE_CHECKING:
    from optsweep.train.trial import Outcome, Rung

WRITE_SECONDS = 2.0


class Sink(Protocol):
    """Where a trial's records go: the spool, or MLflow at once."""

    def add(self, *records: Record) -> None:
        """Keep records for the next write."""

    def write(self) -> None:
        """Write what was kept, as far as that can be done now."""

    def secure(self) -> None:
        """Write what was kept so that it can't be lost. Raises StoreFailureError when nobody waits any longer."""

    def close(self) -> None:
        """Nothing more comes."""


class TrialLog:
    """One trial's run: opened at its start, written at rungs, ended before its study is told, closed afterwards.

    `resume` are the ids of earlier attempts whose run goes on, the last one first: it keeps its points, and what it
    has of a curve up to a step isn't written again. `before` are the points up to there, in case that they are gone.
    `again` tells that earlier attempts at the slot were cut off.
    """

    def __init__(
        self,
        sink: Sink,
        parent: str,
        name: str,
        head: TrialHead,
        metric: str,
        *,
        resume: str | None = None,
        again: bool = False,
        before: Sequence[MetricPoint] = (),
    ) -> None:
        self.metric, self._sink = metric, sink
        self.points = list(before)  # of all curves
        self._before = {key: max(p[3] for p in before if p[0] == key) for key in {p[0] for p in before}}
        self._kept = 0  # how many of them the sink has
        self._last: Rung | None = None  # after the first step
        self._written = time.monotonic()
        begun = Opened(
            id=head.id,
            name=name,
            arm=head.arm,
            phase=head.phase.value,
            slot=head.slot,
            repeat=head.repeat,
            tags={names.PARENT: parent, **head.tags(), **source_tags()},
            params=head.params(),
            time=_now(),
            again=again,
            resume=resume or "",
        )
        self._sink.add(begun)

    def rung(self, rung: Rung) -> None:
        """Keep everything since the rung before, and write it if the last write is long enough ago."""
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
        self._last = rung if rung.step else None
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was kept."""
        self._keep_points()
        self._written = time.monotonic()
        self._sink.write()

    def end(self, outcome: Outcome) -> None:
        """Write the result: it can't be lost any more. `close` follows when the study has been told."""
        if outcome.test_loss is not None and outcome.test_score is not None:
            if outcome.test_aside is None:
                self._add(names.TEST_LOSS, outcome.test_loss, outcome.step)
            else:
                self._add(names.TEST_OBJECTIVE, outcome.test_loss, outcome.step)
                self._add(names.TEST_LOSS, outcome.test_aside, outcome.step)
            self._add(names.test_metric(self.metric), outcome.test_score, outcome.step)
            for block, loss in enumerate(outcome.test_blocks):
                self._add(names.TEST_BLOCKS, loss, block)
        self._cost(outcome.train_seconds, outcome.step)
        self._keep_points()
        self._sink.add(*(TextFile(name, text) for name, text in outcome.artifacts.items()))
        end = TrialEnd(Status(outcome.end.value), outcome.reason, outcome.train_seconds, outcome.state_bytes)
        self._sink.add(_ended(end, failed=False))
        self._sink.secure()

    def crash(self, reason: str) -> None:
        """Write that it crashed, or that its result doesn't count; nothing more comes."""
        if self._last is not None:
            self._cost(self._last.train_seconds, self._last.step)
        self._keep_points()
        self._sink.add(_ended(TrialEnd(Status.CRASHED, reason), failed=True))
        self._sink.write()
        self._sink.close()

    def put_down(self) -> None:
        """Write what was kept; its run goes on with another attempt."""
        self.write()
        self._sink.close()

    def close(self) -> None:
        """Its study has been told."""
        self._sink.close()

    def _cost(self, seconds: float, step: int) -> None:
        """What it has cost, once: points at every rung would be a tenth of all."""
        self._add(names.TRAIN_SECONDS, seconds, step)
        if self._last is not None:
            self._add(names.PEAK_BYTES, float(self._last.peak_bytes), step)

    def _add(self, key: str, value: float, step: int) -> None:
        if step > self._before.get(key, -1):  # a checkpoint that didn't fit has it told from the beginning
            self.points.append((key, float(value), _now(), int(step)))

    def _keep_points(self) -> None:
        if fresh := self.points[self._kept :]:
            self._sink.add(Points(tuple(fresh)))
            self._kept = len(self.points)


def _ended(end: TrialEnd, *, failed: bool) -> Ended:
    tags = {key: _writable(text)[:TAG_CHARACTERS] for key, text in end.tags().items()}
    return Ended(tags, end.params(), failed, _now())


def _writable(text: str) -> str:
    """As any database takes it: names of files may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _now() -> int:
    return int(time.time() * 1000)
