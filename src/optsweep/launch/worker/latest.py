"""A worker's word on its trials in training, for whoever looks on: every two seconds at most, where there is news."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from optsweep.search.heartbeat import Heartbeat
from optsweep.search.latest import Latest, forget_ended, write_latest
from optsweep.search.ownership import Claim
from optsweep.tracking import names
from optsweep.tracking.records import MetricPoint

TELL_SECONDS = 2.0
"""Between two words; of a trial that takes no longer there is often none, and its result is soon there."""

Told = Callable[[], Sequence[MetricPoint]]


class Teller:
    """Tells the storage of trials in training, from a thread of its own. A word that fails is left out.

    A step costs nothing by it: points are kept for MLflow anyway, and are looked at here.
    """

    def __init__(self, engine: Engine, seconds: float = TELL_SECONDS) -> None:
        self._engine = engine
        self._training: dict[Claim, Told] = {}
        self._said: dict[Claim, int] = {}  # points
        self._tidy = False
        self._heartbeat = Heartbeat(self.beat, seconds)
        self._heartbeat.start()

    def close(self) -> None:
        """Say no more."""
        self._heartbeat.stop()

    @contextmanager
    def of_all(self) -> Iterator[None]:
        """Within it trials train; however they leave, none is in training behind it."""
        try:
            yield
        finally:
            self._training.clear()

    def add(self, claim: Claim, points: Told) -> None:
        """A trial begins; its points grow from now on."""
        self._training[claim] = points

    def ended(self, claim: Claim) -> None:
        """A trial is in training no more, here."""
        self._training.pop(claim, None)

    def beat(self) -> None:
        """Tell what is new since the last word; the first one forgets what others have left."""
        now = {claim: points() for claim, points in list(self._training.items())}
        fresh = {claim: points for claim, points in now.items() if len(points) > self._said.get(claim, 0)}
        ended = [claim for claim in self._said if claim not in now]
        try:
            if not self._tidy:
                forget_ended(self._engine)
                self._tidy = True
            if fresh or ended:
                write_latest(self._engine, {claim: latest_of(points) for claim, points in fresh.items()}, ended)
        except SQLAlchemyError:  # the next word has it all
            return
        for claim in ended:
            del self._said[claim]
        self._said |= {claim: len(points) for claim, points in fresh.items()}


def latest_of(points: Sequence[MetricPoint]) -> Latest:
    """What is shown of a trial: the loss that decides, and the training loss."""
    points = points[: len(points)]  # others are added meanwhile
    curves = {key: [(step, value) for k, value, _, step in points if k == key] for key in _SHOWN}
    return Latest.of(curves[names.VAL_OBJECTIVE] or curves[names.VAL_LOSS], curves[names.TRAIN_LOSS])


_SHOWN = (names.VAL_OBJECTIVE, names.VAL_LOSS, names.TRAIN_LOSS)
