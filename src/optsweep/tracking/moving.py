"""A sweep's runs from one MLflow store to another, run by run, and compared: what is there already stays.

A run has another id in the other store; a hidden tag says which run it was, so whoever was killed over it goes on.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.address import TRACKING_KEY, read_address
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

TRIAL = 2
"""The last kind: runs that no other names."""

_RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")
_OF_A_STORE = (CAME_FROM, "mlflow.user", "mlflow.runName")
"""Tags that a store sets itself, or are looked at apart."""

AT_ONCE = 200
"""Runs that a database takes by one transaction."""

CALLERS = 4
"""Calls to a server that are on their way at once."""

READ_BYTES = 100_000
"""A server's file up to this size is read to be compared; of a larger one its size tells."""


@dataclass(frozen=True)
class MovingRun:
    """A run with all that is in it."""

    run: Run
    points: Sequence[MetricPoint]
    files: Mapping[str, tuple[int, str | None]]  # artifacts, with their sizes, and digests where they were read
    inputs: Sequence[Any] = ()

    @property
    def id(self) -> str:
        """In its store."""
        return str(self.run.info.run_id)

    @property
    def kind(self) -> int:
        """The sweep's run comes first, then those of arms, which others name."""
        kind = names.tag(self.run.data.tags, names.KIND)
        return {"sweep": 0, "arm": 1}.get(kind or "", TRIAL)

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
            "files": {path: size for path, (size, _) in self.files.items()},
            "inputs": sorted(held.dataset.digest for held in self.inputs),
        }

    def differs(self, moved: MovingRun, ids: Mapping[str, str]) -> list[str]:
        """What is another of this run as it is in another store."""
        before, after = self.content(ids), moved.content({})
        wrong = [key for key in before if before[key] != after[key]]
        read = [(self.files[path][1], moved.files[path][1]) for path in self.files.keys() & moved.files.keys()]
        changed = any(one != other for one, other in read if one is not None and other is not None)
        return [*wrong, "files"] if changed and "files" not in wrong else wrong


class Experiment:
    """A sweep's experiment in a store, for reading and for writing."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._client: MlflowClient = tracker.client

    def runs(self) -> list[MovingRun]:
        """All runs that nobody has deleted, those of sweep and arms first."""
        found = whole_runs(self._client, self.tracker.experiment_id)
        points = all_points(self._client, found)
        with ThreadPoolExecutor(CALLERS) as callers:
            files = list(callers.map(self._files, found))
        moving = [
            MovingRun(run, points[run.info.run_id], held, self._inputs(run))
            for run, held in zip(found, files, strict=True)
        ]
        return sorted(moving, key=lambda run: (run.kind, run.run.info.start_time or 0, run.id))

    def tags(self) -> Mapping[str, str]:
        """Of the experiment itself."""
        return dict(self._client.get_experiment(self.tracker.experiment_id).tags)

    def _files(self, run: Run) -> dict[str, tuple[int, str | None]]:
        if (folder := _folder(run)) is not None:
            files = [file for file in folder.rglob("*") if file.is_file()]
            return {file.relative_to(folder).as_posix(): (file.stat().st_size, _digest(file)) for file in files}
        found: dict[str, tuple[int, str | None]] = {}
        wanted: list[str | None] = [None]
        while wanted:
            for item in self._client.list_artifacts(run.info.run_id, wanted.pop()):
                if item.is_dir:
                    wanted.append(item.path)
                else:
                    size = int(item.file_size or 0)
                    found[item.path] = size, self._read(run, item.path) if size <= READ_BYTES else None
        return found

    def _read(self, run: Run, path: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return _digest(Path(self._client.download_artifacts(run.info.run_id, path, folder)))

    def _inputs(self, run: Run) -> Sequence[Any]:
        if names.tag(run.data.tags, names.KIND) != "arm":
            return ()
        inputs = self._client.get_run(run.info.run_id).inputs
        return () if inputs is None else tuple(inputs.dataset_inputs)

    def add(self, moving: MovingRun, source: Experiment, ids: dict[str, str]) -> None:
        """Make a run as another store has it; `ids` are those of the runs that were made before, and then of it."""
        from mlflow.entities import Metric, Param, RunTag

        info, data = moving.run.info, moving.run.data
        experiment = self.tracker.experiment_id
        made = self._client.create_run(experiment, info.start_time, {CAME_FROM: moving.id}, info.run_name)
        run_id = str(made.info.run_id)
        ids[moving.id] = run_id
        not_here = (names.RUN_NAME, CAME_FROM)  # of a run that was moved before: where it came from then
        tags = [RunTag(key, _renamed(text, ids)) for key, text in data.tags.items() if key not in not_here]
        params = [Param(key, value) for key, value in data.params.items()]
        points = [Metric(*point) for point in moving.points]
        while tags or params or points:
            some, named = tags[:PARAMS_PER_CALL], params[:PARAMS_PER_CALL]
            beside = METRICS_PER_CALL - len(some) - len(named)
            self._client.log_batch(run_id, metrics=points[:beside], params=named, tags=some)
            tags, params, points = tags[PARAMS_PER_CALL:], params[PARAMS_PER_CALL:], points[beside:]
        if moving.inputs:
            self._client.log_inputs(run_id, list(moving.inputs))
        if moving.files:
            with tempfile.TemporaryDirectory() as folder:
                self._client.log_artifacts(run_id, source.downloaded(moving, Path(folder)))
        if info.end_time is not None:
            self._client.set_terminated(run_id, info.status, info.end_time)

    def add_trials(self, trials: Sequence[MovingRun], source: Experiment, ids: dict[str, str]) -> None:
        """Make runs that no other names: many at once in a database, else beside each other."""
        wholes = {run.id: whole for run in trials if (whole := _whole(run, ids)) is not None and whole.is_plain}
        for start in range(0, len(wholes), AT_ONCE):
            some = list(wholes)[start : start + AT_ONCE]
            if made := self.tracker.add_whole([wholes[key] for key in some]):
                ids.update(zip(some, made, strict=True))
        with ThreadPoolExecutor(CALLERS if self._is_server else 1) as callers:
            list(callers.map(lambda run: self.add(run, source, ids), [run for run in trials if run.id not in ids]))

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

    @property
    def _is_server(self) -> bool:
        return read_address(TRACKING_KEY, self._client.tracking_uri).is_server

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
    trials: list[MovingRun] = []
    for moving in there:
        held = here.get(moving.id)
        if held is not None:
            ids[moving.id] = held.id
            if not moving.differs(held, ids):
                continue
            target.remove(held)
            del ids[moving.id]
        if moving.kind < TRIAL:
            target.add(moving, source, ids)
        else:
            trials.append(moving)
    target.add_trials(trials, source, ids)
    tags = {key: _of_experiment(text, source, target, ids) for key, text in source.tags().items()}
    target.set_tags(tags)
    return _difference(there, target, ids)


def _difference(there: Sequence[MovingRun], target: Experiment, ids: Mapping[str, str]) -> str:
    here = {run.id: run for run in target.runs()}
    if len(here) != len(there):
        return f"{len(here)} runs are there, and not {len(there)}"
    for moving in there:
        if wrong := moving.differs(here[ids[moving.id]], ids):
            return f"{', '.join(wrong)} of run {moving.run.info.run_name!r}"
    return ""


def _whole(moving: MovingRun, ids: Mapping[str, str]) -> WholeRun | None:
    """A run that has ended, without files."""
    info, data = moving.run.info, moving.run.data
    if moving.files or moving.inputs or info.end_time is None:
        return None
    tags = {key: _renamed(text, ids) for key, text in data.tags.items() if key != names.RUN_NAME}
    tags[CAME_FROM] = moving.id
    return WholeRun(
        info.run_name or "", tags, data.params, moving.points, info.status, info.start_time or 0, info.end_time
    )


def _digest(file: Path) -> str:
    with file.open("rb") as held:
        return hashlib.file_digest(held, "sha256").hexdigest()


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
