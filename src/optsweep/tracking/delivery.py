"""Brings one trial's records to MLflow: in order, in as few calls as it allows, and again without harm.

A run is made once, since it is looked for where an earlier try may have got through. What else is sent may be sent
twice: points are told by key, time, step and value; params and tags by their keys. A trial that has ended goes into a
database whole (`whole.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.outage import passes
from optsweep.tracking.records import Ended, MetricPoint, Opened, Points, Record, TextFile
from optsweep.tracking.spool import opened
from optsweep.tracking.whole import WholeRun
from optsweep.tracking.writer import METRICS_PER_CALL, TAG_CHARACTERS, Tracker
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from mlflow.entities import Run

POINTS_PER_CALL = METRICS_PER_CALL - 100
"""MLflow splits a call of more than 1,000 points, params and tags together, and would send the tags first."""

CUT_OFF = "cut off before its end; it was run again"


class RunGoneError(Exception):
    """Somebody deleted the run, or its experiment: the trial is to be delivered from its beginning."""


@dataclass(frozen=True)
class _Contents:
    """What records say together."""

    points: Sequence[MetricPoint]
    files: Sequence[TextFile]
    params: Mapping[str, str]  # of its end, as the tags
    tags: Mapping[str, str]
    end: Ended | None

    @staticmethod
    def of(records: Sequence[Record]) -> _Contents:
        ends = [record for record in records if isinstance(record, Ended)]
        return _Contents(
            points=[point for record in records if isinstance(record, Points) for point in record.points],
            files=[record for record in records if isinstance(record, TextFile)],
            params={key: text for end in ends for key, text in end.params.items()},
            tags={key: text[:TAG_CHARACTERS] for end in ends for key, text in end.tags.items()},
            end=ends[-1] if ends else None,
        )

    @property
    def status(self) -> str:
        """Of an ended run, in MLflow's words."""
        return "FAILED" if self.end is not None and self.end.failed else "FINISHED"


class Delivery:
    """One trial's way into MLflow. `begun`: an earlier delivery may have got through."""

    def __init__(self, tracker: Tracker, *, begun: bool) -> None:
        self.tracker, self.run_id = tracker, ""
        self._doubt = begun  # whether a call was made of which nobody knows what became
        self._opened: Opened | None = None
        self._params: Mapping[str, str] = {}  # still to be sent
        self._last: Mapping[str, int] = {}  # step of the last point by key, of a run that goes on

    def bring(self, records: Sequence[Record]) -> None:
        """Send records; the first call's first one says how the trial began. The same ones again where this failed.

        Raises RunGoneError, and what MLflow raises.
        """
        self._opened = self._opened or opened(records)
        if self._opened is None or not records:
            return
        try:
            self._send(self._opened, records)
        except Exception as error:
            self._doubt = True
            if self._is_gone(error):
                raise RunGoneError from error
            raise

    def cut_off(self, time: int) -> None:
        """Close the run of a trial whose worker is gone, unless somebody has closed it."""
        status = self.tracker.client.get_run(self.run_id).data.tags.get(names.STATUS)
        if status == Status.RUNNING:
            tags = {names.STATUS: Status.CRASHED.value, names.ERROR: CUT_OFF}
            self.bring([Ended(tags, {}, failed=True, time=time)])

    def _send(self, trial: Opened, records: Sequence[Record]) -> None:
        if not self.run_id and not self._find_again(trial):
            if self._make_whole(trial, records):
                return
            self._make(trial)
        new = _Contents.of(records)
        points = [point for point in new.points if point[3] > self._last.get(point[0], -1)]
        self._log(points, {**self._params, **new.params}, new.tags)
        self._params = {}
        for file in new.files:
            self.tracker.client.log_text(self.run_id, file.text, file.name)
        if new.end is not None:
            self.tracker.client.set_terminated(self.run_id, new.status, new.end.time)
            self._settle_doubt(trial)

    def _settle_doubt(self, trial: Opened) -> None:
        """A call that was thought lost may have made a run after all."""
        if self._doubt and trial.id:
            self._find(trial.id)

    def _log(self, points: Sequence[MetricPoint], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """The tags with the last points: they say that the run is complete."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(key, value, time, step) for key, value, time, step in points]
        parts = [metrics[i : i + POINTS_PER_CALL] for i in range(0, len(metrics), POINTS_PER_CALL)] or [[]]
        for part in parts[:-1]:
            self.tracker.client.log_batch(self.run_id, metrics=part)
        self.tracker.client.log_batch(
            self.run_id,
            metrics=parts[-1],
            params=[Param(key, text) for key, text in params.items()],
            tags=[RunTag(key, text) for key, text in tags.items()],
        )

    # -- the run ---------------------------------------------------------------------------------------------------

    def _find_again(self, trial: Opened) -> bool:
        """Go on with the trial's run where there may be one."""
        if trial.again:
            place, own = (trial.arm, Phase(trial.phase), trial.slot), {trial.id, *trial.resume.split()}
            self.tracker.lost_trials(*place, CUT_OFF, trial.repeat, own, trial.time)
        if not trial.id or not (self._doubt or trial.resume):
            return False
        found = self._find(trial.id)
        for attempt in trial.resume.split() if found is None else ():
            found = found or self._find(attempt)
        if found is not None:
            self._go_on(trial, found)
        return found is not None

    def _make(self, trial: Opened) -> None:
        """The run of a trial that has none."""
        tags = _tags(self.tracker, trial)
        run = self.tracker.client.create_run(self.tracker.experiment_id, trial.time, tags, trial.name)
        self.run_id, self._params, self._last = str(run.info.run_id), trial.params, {}

    def _make_whole(self, trial: Opened, records: Sequence[Record]) -> bool:
        """The same of one that has ended, with all of it; false where that takes more calls."""
        run = _whole(self.tracker, trial, records)
        made = [] if run is None else self.tracker.add_whole([run])
        for self.run_id in made:
            self._settle_doubt(trial)
        return bool(made)

    def _find(self, trial: str) -> Run | None:
        """The run of a trial; further ones are deleted, which a call that was thought lost has made."""
        search, keys = self.tracker.client.search_runs, (names.TRIAL, names.SEEN_BEFORE[names.TRIAL])
        lists = (list(search([self.tracker.experiment_id], f"tags.`{key}` = '{trial}'")) for key in keys)
        found = next(filter(None, lists), [])
        found.sort(key=lambda run: (run.info.run_id != self.run_id, -len(run.data.metrics), run.info.run_id))
        for run in found[1:]:
            self.tracker.client.delete_run(run.info.run_id)
        return found[0] if found else None

    def _go_on(self, trial: Opened, run: Run) -> None:
        """Write to a run that is there: of this trial, or of the attempt that it resumes."""
        client, run_id = self.tracker.client, str(run.info.run_id)
        if names.tag(run.data.tags, names.TRIAL) != trial.id:
            own = {key: text for key, text in trial.tags.items() if key != names.PARENT}
            self.tracker.set_tags(run_id, {**own, names.ERROR: ""})  # its phase too: it may have been set aside
            client.update_run(run_id, status="RUNNING")
        if trial.resume:
            history = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
            self._last = {key: max(point.step for point in points) for key, points in history.items()}
        self.run_id = run_id
        self._params = {key: text for key, text in trial.params.items() if key not in run.data.params}

    def _is_gone(self, error: BaseException) -> bool:
        """Whether a call failed because the run isn't there any more."""
        from mlflow.exceptions import MlflowException

        if passes(error) or not isinstance(error, MlflowException):
            return False
        try:
            if self.run_id:
                return bool(self.tracker.client.get_run(self.run_id).info.lifecycle_stage != "active")
            experiment = self.tracker.client.get_experiment(self.tracker.experiment_id)
            return bool(experiment.lifecycle_stage != "active")
        except MlflowException as failure:
            return bool(failure.error_code == "RESOURCE_DOES_NOT_EXIST")


def whole_run(tracker: Tracker, records: Sequence[Record]) -> WholeRun | None:
    """The run of a trial that has ended, was tried once, and of which nothing was sent; None of any other."""
    trial = opened(records)
    if trial is None or trial.again or trial.resume:
        return None
    run = _whole(tracker, trial, records)
    return run if run is not None and run.is_plain else None


def _whole(tracker: Tracker, trial: Opened, records: Sequence[Record]) -> WholeRun | None:
    """The run with all of it; None where that takes more calls."""
    of = _Contents.of(records)
    if of.end is None or of.files:
        return None
    tags, params = {**_tags(tracker, trial), **of.tags}, {**trial.params, **of.params}
    return WholeRun(trial.name, tags, params, of.points, of.status, start=trial.time, end=of.end.time)


def _tags(tracker: Tracker, trial: Opened) -> dict[str, str]:
    parent = tracker.parent_run(trial.arm, trial.tags.get(names.LABEL, trial.arm))
    return {**trial.tags, names.PARENT: parent}


class AtOnce:
    """Takes a trial's records to MLflow as they are written, with nothing in between."""

    def __init__(self, tracker: Tracker) -> None:
        self._delivery = Delivery(tracker, begun=False)
        self._waiting: list[Record] = []

    @property
    def run_id(self) -> str:
        """Of the run in MLflow."""
        return self._delivery.run_id

    def add(self, *records: Record) -> None:
        """Keep records for the next write."""
        self._waiting += records

    def write(self) -> None:
        """Send what was kept."""
        self._delivery.bring(self._waiting)
        self._waiting.clear()

    def secure(self) -> None:
        """Send what was kept."""
        self.write()

    def close(self) -> None:
        """Nothing more comes."""
