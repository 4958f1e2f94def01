"""What the runs of a sweep say while it goes on: arms, provisional verdicts with their conditions, curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from optsweep.launch.stated import plan_digest
from optsweep.launch.status import first_failure
from optsweep.report.comparison import Group, compare
from optsweep.report.verdict import Verdict, verdict
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.reader import SweepRecord, load_sweep
from optsweep.tracking.schema import Environment, SweepPlan, SweepSheet
from optsweep.tracking.sheets import read_sheet

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow.tracking import MlflowClient

SHARE = 0.1
"""Of the time, that reading all runs may take: 36 arms with 1,000 trials take half a second."""

LEAST_SECONDS = 4.0
"""Between two readings."""

SETTLING_SECONDS = 15.0
"""After a trial has ended, its run may still be on its way."""


@dataclass(frozen=True)
class LiveFinding:
    """A sweep's runs at one reading."""

    record: SweepRecord
    groups: Sequence[Group]
    reported: bool = False  # all trials are there, and its last report states just these
    failure: str | None = None  # the first error, where every trial crashed
    unasked: bool = False  # all trials are there, and nobody has asked for a report of them

    @property
    def settled(self) -> bool:
        """Whether there is no more to come."""
        return self.reported or self.unasked

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Provisional while trials are missing."""
        return [verdict(group) for group in self.groups]

    @property
    def labels(self) -> Mapping[str, str]:
        """By arm, as in the report."""
        return {title.name: title.label for title in self.record.plan.arms}

    @property
    def styles(self) -> Mapping[str, int]:
        """Colours by arm, as in the report."""
        return {arm.name: arm.style for group in self.groups for arm in group.arms}


def nothing_yet(sweep: str) -> LiveFinding:
    """Before any run of it is there."""
    return LiveFinding(SweepRecord(sweep, "", None, SweepPlan(), Environment(), "", (), ()), ())


@dataclass
class Findings:
    """Reads a sweep's runs again and again."""

    tracking_uri: str
    sweep: str
    _client: MlflowClient | None = None
    _experiment: str | None = None

    def read(self, studies: Studies, *, trained: bool, unasked: bool = False) -> LiveFinding:
        """What is there now; whether it is reported is only looked for where all is `trained`. Raises as stores do.

        `unasked`: by now its studies say that no report was asked for.
        """
        if self._client is None:
            store.check(self.tracking_uri, create=False)
            self._client = store.client(self.tracking_uri)
        try:
            self._experiment = self._experiment or store.find_experiment(self._client, self.sweep)
            record = load_sweep(self._client, self.sweep, self._experiment)
        except store.SweepNotFound:
            return nothing_yet(self.sweep)
        groups = compare([record])
        if not trained or record.run_id is None:
            return LiveFinding(record, groups)
        sheet = read_sheet(self._client, self._client.get_run(record.run_id).info, SweepSheet)
        reported = sheet is not None and sheet.reported == plan_digest(studies, record.plan)
        return LiveFinding(record, groups, reported, first_failure(studies), unasked)


@dataclass
class Pace:
    """When the runs are to be read again: seldom enough to cost little, and not without a reason."""

    clock: Callable[[], float] = time.monotonic
    _known: object = None
    _changed: float = -math.inf
    _begun: float = -math.inf  # the last reading
    _next: float = 0.0

    def due(self, what: object) -> bool:
        """Whether to read now, at once; `what` is another as soon as something has happened.

        Where reading takes long, the one that finds all that has settled may come long after that.
        """
        now = self.clock()
        if what != self._known:
            self._known, self._changed = what, now
        if now < self._next or self._begun >= self._changed + SETTLING_SECONDS:
            return False
        self._begun = now
        return True

    def took(self, seconds: float) -> None:
        """It was read, in so long."""
        self._next = self.clock() + max(LEAST_SECONDS, seconds / SHARE)
