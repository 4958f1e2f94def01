"""A sweep's runs from one MLflow store to another, run by run, and compared: what is there already stays.

A run has another id in the other store; a hidden tag says which run it was, so whoever was killed over it goes on.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.tracking import names
from optsweep.tracking.contents import all_points, whole_runs
from optsweep.tracking.records import MetricPoint
from optsweep.tracking.rewrite import beside_others
from optsweep.tracking.whole import WholeRun
from optsweep.tracking.writer import METRICS_PER_CALL, PARAMS_PER_CALL, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CAME_FROM = "mlflow." + names.PREFIX + "came_from"
"""The tag of a run that was moved: its id before."""

_RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")
_OF_A_STORE = (CAME_FROM, "mlflow.user", "mlflow.runName")
"""Tags that a store sets itself, or are looked at apart."""

LISTED = 20


@dataclass(frozen=True)
class MovingRun:
    """A run with all that is in it."""

    run: Run
    points: Sequence[MetricPoint]
    files: Mapping[str, int]  # artifacts, with their sizes
    inputs: Sequence[Any] = ()

    @property
    def id(self) -> str:
        """In its store."""
        return str(self.run.info.run_id)

    @property
    def kind(self) -> int:
        """The sweep's run comes first, then those of arms, which others name."""
        kind = names.tag(self.run.data.tags, names.KIND)
        return {"sweep": 0, "arm": 1}.get(kind or "", 2)

    def content(self, ids: Mapping[str, str]) -> Mapping[str, Any]:
        """What must be the same in another store, ids of runs as they are there."""
        tags = {key: _renamed(text, ids) for key, text in self.run.data.tags.items() if key not in _OF_A_STORE}
        info = self.run.info
        return {
            "name": info.run_name,
            "status": info.status,
            "start": info.start_time,
            "end": info.end_time,
            "params": dict(self.run.data.params),
            "tags": tags,
            "points": sorted(map(repr, self.points)),
            "files": dict(self.files),
            "inputs": sorted(held.dataset.digest for held in self.inputs),
        }


class Experiment:
    """A sweep's experiment in a store, for reading and for writing."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._client: MlflowClient = tracker.client

    def runs(self) -> list[MovingRun]:
        """All runs that nobody has deleted, those of sweep and arms first."""
        found = whole_runs(self._client, self.tracker.experiment_id)
        points = all_points(self._client, found)
        moving = [MovingRun(run, points[run.info.run_id], self._files(run), self._inputs(run)) for run in found]
        return sorted(moving, key=lambda run: (run.kind, run.run.info.start_time or 0, run.id))

    def tags(self) -> Mapping[str, str]:
        """Of the experiment itself."""
        return dict(self._client.get_experiment(self.tracker.experiment_id).tags)

    def _files(self, run: Run) -> dict[str, int]:
        if (folder := _folder(run)) is not None:
            return {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
        found: dict[str, int] = {}
        wanted: list[str | None] = [None]
        while wanted:
            for item in self._client.list_artifacts(run.info.run_id, wanted.pop()):
                if item.is_dir:
                    wanted.append(item.path)
                else:
                    found[item.path] = int(item.file_size or 0)
        return found

    def _inputs(self, run: Run) -> Sequence[Any]:
        if names.tag(run.data.tags, names.KIND) != "arm":
            return ()
        inputs = self._client.get_run(run.info.run_id).inputs
        return () if inputs is None else tuple(inputs.dataset_inputs)

    def add(self, moving: MovingRun, source: Experiment, ids: dict[str, str]) -> None:
        """Make a run as another store has it; `ids` are those of the runs that were made before, and then of it."""
        if (made_whole := self._add_whole(moving, ids)) is not None:
            ids[moving.id] = made_whole
            return
        from mlflow.entities import Metric, Param, RunTag

        info, data = moving.run.info, moving.run.data
        experiment = self.tracker.experiment_id
        made = self._client.create_run(experiment, info.start_time, {CAME_FROM: moving.id}, info.run_name)
        run_id = str(made.info.run_id)
        ids[moving.id] = run_id
        params = [Param(key, value) for key, value in data.params.items()]
        for start in range(0, len(params), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
        for start in range(0, len(moving.points), METRICS_PER_CALL):
            some = moving.points[start : start + METRICS_PER_CALL]
            self._client.log_batch(run_id, metrics=[Metric(*point) for point in some])
        not_here = (names.RUN_NAME, CAME_FROM)  # of a run that was moved before: where it came from then
        tags = [RunTag(key, _renamed(text, ids)) for key, text in data.tags.items() if key not in not_here]
        for start in range(0, len(tags), PARAMS_PER_CALL):
            self._client.log_batch(run_id, tags=tags[start : start + PARAMS_PER_CALL])
        if moving.inputs:
            self._client.log_inputs(run_id, list(moving.inputs))
        if moving.files:
            with tempfile.TemporaryDirectory() as folder:
                self._client.log_artifacts(run_id, source.downloaded(moving, Path(folder)))
        if info.end_time is not None:
            self._client.set_terminated(run_id, info.status, info.end_time)

    def _add_whole(self, moving: MovingRun, ids: Mapping[str, str]) -> str | None:
        """A run that has ended, without files, into a database at once; its id, or None where that can't be."""
        info, data = moving.run.info, moving.run.data
        if moving.files or moving.inputs or info.end_time is None:
            return None
        tags = {key: _renamed(text, ids) for key, text in data.tags.items() if key != names.RUN_NAME}
        tags[CAME_FROM] = moving.id
        name, start, end = info.run_name or "", info.start_time or 0, info.end_time
        made = self.tracker.add_whole([WholeRun(name, tags, data.params, moving.points, info.status, start, end)])
        return made[0] if made else None

    def downloaded(self, moving: MovingRun, into: Path) -> str:
        """The folder of a run's files, fetched if it isn't on this machine."""
        folder = _folder(moving.run)
        return str(folder) if folder is not None else str(self._client.download_artifacts(moving.id, "", str(into)))

    def remove(self, moving: MovingRun) -> None:
        """Delete a run that is here in part."""
        self._client.delete_run(moving.id)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set the experiment's tags."""
        for key, value in tags.items():
            beside_others(partial(self._client.set_experiment_tag, self._id, key, value))

    def retire(self, name: str) -> None:
        """Give the experiment another name and delete it; MLflow can restore it."""
        self._client.rename_experiment(self._id, name)
        self._client.delete_experiment(self._id)

    @cached_property
    def _id(self) -> str:
        return self.tracker.experiment_id


def bring_runs(source: Experiment, target: Experiment) -> str:
    """Let the target have the source's runs and tags; returns what differs afterwards, in words, or nothing.

    A run of the target that came from none of the source's is a difference, and stays.
    """
    there, ids = source.runs(), dict[str, str]()
    here = {run.run.data.tags.get(CAME_FROM, run.id): run for run in target.runs()}
    foreign = here.keys() - {run.id for run in there}
    if foreign:
        return f"{len(foreign)} runs there came from elsewhere"
    for moving in there:
        held = here.get(moving.id)
        if held is not None:
            ids[moving.id] = held.id
            if held.content({}) == moving.content(ids):
                continue
            target.remove(held)
        target.add(moving, source, ids)
    tags = {key: _of_experiment(text, source, target, ids) for key, text in source.tags().items()}
    target.set_tags(tags)
    return _difference(there, target, ids)


def _difference(there: Sequence[MovingRun], target: Experiment, ids: Mapping[str, str]) -> str:
    here = {run.id: run for run in target.runs()}
    if len(here) != len(there):
        return f"{len(here)} runs are there, and not {len(there)}"
    for moving in there:
        before, after = moving.content(ids), here[ids[moving.id]].content({})
        if wrong := [key for key in before if before[key] != after[key]]:
            return f"{', '.join(wrong)} of run {moving.run.info.run_name!r}"
    return ""


def _renamed(text: str, ids: Mapping[str, str]) -> str:
    """A text with the runs that it names as they are called in the other store."""
    return _RUN_ID.sub(lambda found: ids.get(found[0], found[0]), text)


def _of_experiment(text: str, source: Experiment, target: Experiment, ids: Mapping[str, str]) -> str:
    page = "experiments/{}/"
    moved = text.replace(page.format(source.tracker.experiment_id), page.format(target.tracker.experiment_id))
    return _renamed(moved, ids)


def _folder(run: Run) -> Path | None:
    """Where a run's files are on this machine; None if a server keeps them."""
    import urllib.parse
    import urllib.request

    address = urllib.parse.urlsplit(run.info.artifact_uri or "")
    return Path(urllib.request.url2pathname(address.path)) if address.scheme in ("", "file") else None
