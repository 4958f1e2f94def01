"""Finds the result of a sweep: its report's results.json, or the store where no report has been written."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.address import tracking_address
from optsweep.errors import UserError
from optsweep.report.results import as_json
from optsweep.result import stored
from optsweep.result.result import Result
from optsweep.tracking import names, store
from optsweep.tracking.codec import to_json
from optsweep.tracking.store import SweepNotFound

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow.tracking import MlflowClient


def load(source: str | Path, reports: Path, tracking_uri: str | None = None) -> Result:
    """The result of a sweep by its name (several with + between), or of a results.json, or of a report's folder.

    Raises UserError where there is none, naming the nearest sweeps.
    """
    uri = tracking_uri or tracking_address()
    named = isinstance(source, str) and "/" not in source and not source.endswith(".json")
    path = reports / source / "results.json" if named else _file(Path(source))
    if not named or path.is_file():
        content = stored.read(path)
        page = path.with_name("index.html")
        return Result.of(content, str(path), page if page.is_file() else None, _behind(content, uri) if named else "")
    return _from_store(str(source), uri, reports)


def _file(path: Path) -> Path:
    return path / "results.json" if path.is_dir() else path


# -- a sweep without a report ----------------------------------------------------------------------------------------


def _from_store(name: str, uri: str, reports: Path) -> Result:
    """What a report would state."""
    from optsweep.report import write
    from optsweep.tracking.reader import load_sweep

    client = _client(uri)
    if client is None:
        raise UserError(_nowhere(name, _reported(reports), f"there is no store at {uri} either"))
    try:
        wanted = name.split("+") if client.get_experiment_by_name(name) is None else [name]
        loaded = [load_sweep(client, sweep, store.find_experiment(client, sweep)) for sweep in wanted]
    except SweepNotFound as error:
        reported = [found for found in _reported(reports) if client.get_experiment_by_name(found) is None]
        near = get_close_matches(name, reported, n=3, cutoff=0.4)
        raise UserError(f"{error}; a report is there of {', '.join(near)}" if near else str(error)) from None
    content = json.loads(as_json(write.stated(loaded)))
    note = f"no report has been written; this is what the store has: optsweep report {shlex.join(wanted)} writes it"
    return Result.of(content, name, note=note)


def _reported(reports: Path) -> list[str]:
    return sorted(found.parent.name for found in reports.glob("*/results.json"))


def _nowhere(name: str, known: list[str], why: str) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    listed = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(known[:8])}" if known else why
    return f"there is no sweep {name!r}; {listed}"


def _client(uri: str) -> MlflowClient | None:
    """The store's client; None where a local store isn't there, which opening it would create."""
    try:
        store.check_store(uri)
    except SweepNotFound:
        return None
    store.check(uri, create=False)
    return store.client(uri)


# -- a report that is behind -----------------------------------------------------------------------------------------


def _behind(content: Mapping[str, Any], uri: str) -> str:
    """What the store has beyond the report, in a sentence; nothing where there is no store, or no such sweep in it."""
    try:
        client = _client(uri)
    except UserError as error:
        return f"whether the report is behind can't be told: {error}"
    found = [] if client is None else [text for sweep in content["sweeps"] for text in _news(client, sweep, content)]
    if not found:
        return ""
    again = f"optsweep report {shlex.join(sweep['name'] for sweep in content['sweeps'])} writes it again"
    return f"the report is behind the store: {', '.join(found)}; {again}"


def _news(client: MlflowClient, sweep: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[str]:
    from optsweep.tracking.schema import SweepSheet, TrialHead
    from optsweep.tracking.sheets import read_sheet

    experiment = client.get_experiment_by_name(sweep["name"])
    if experiment is None or experiment.experiment_id != sweep["experiment_id"]:
        return
    runs = store.runs(client, experiment.experiment_id)
    ended = {
        (head.arm, head.phase, head.repeat, head.slot)
        for run in runs
        if run.data.tags.get(names.STATUS) in _RESULTS and run.data.tags.get(names.PHASE) not in names.NOT_REPORTED
        for head in [TrialHead.of(run.data.tags, run.data.params)]
    }
    arms = [arm for group in content["groups"] if group["sweep"] == sweep["name"] for arm in group["arms"]]
    stated = sum(counts.get(status, 0) for arm in arms for counts in arm["trials"].values() for status in _RESULTS)
    if len(ended) != stated:
        yield f"{len(ended)} trials have a result there, {stated} here"
    own = next((run for run in runs if run.data.tags.get(names.KIND) == "sweep"), None)
    sheet = None if own is None else read_sheet(client, own.info, SweepSheet)
    if sheet is not None and to_json(sheet.plan) != sweep["plan"]:
        yield "the plan is another"


_RESULTS = (names.Status.FINISHED, names.Status.PRUNED, names.Status.DIVERGED)
