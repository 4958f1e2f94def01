"""The sheets of a sweep and its arms: JSON artifacts of their runs, written whole and read whole.

Of a store on this machine they are files, which are replaced in one step and read directly; a server gets and gives
them by MLflow's client.
"""

from __future__ import annotations

import json
import os
import tempfile
import urllib.parse
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from optsweep.tracking.codec import UnreadableError, from_json, to_json
from optsweep.tracking.schema import ARM_FILE, SCHEMA_VERSION, SWEEP_FILE, ArmSheet, SweepSheet

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

Sheet = TypeVar("Sheet", SweepSheet, ArmSheet)

_FILES: dict[type, str] = {SweepSheet: SWEEP_FILE, ArmSheet: ARM_FILE}


def write_sheet(client: MlflowClient, run: RunInfo, sheet: SweepSheet | ArmSheet) -> None:
    """Put the sheet in the place of the one before."""
    name = _FILES[type(sheet)]
    content = to_json(replace(sheet, schema_version=SCHEMA_VERSION))
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    folder = _folder(run)
    if folder is None:
        client.log_text(run.run_id, text, name)
        return
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)  # a reader has the old one or the new one, never half of one
    finally:
        fresh.unlink(missing_ok=True)


def read_sheet(client: MlflowClient, run: RunInfo, kind: type[Sheet]) -> Sheet | None:
    """The sheet of a run; None if there is none yet. Raises UnreadableError."""
    text = _text(client, run, _FILES[kind])
    try:
        return None if text is None else from_json(kind, json.loads(text))
    except ValueError as error:
        raise UnreadableError(f"{_FILES[kind]}: {error}") from None


def _text(client: MlflowClient, run: RunInfo, name: str) -> str | None:
    folder = _folder(run)
    if folder is not None:
        path = folder / name
        return path.read_text(encoding="utf-8") if path.is_file() else None
    if all(item.path != name for item in client.list_artifacts(run.run_id, str(Path(name).parent))):
        return None
    with tempfile.TemporaryDirectory() as into:
        return Path(client.download_artifacts(run.run_id, name, into)).read_text(encoding="utf-8")


def _folder(run: RunInfo) -> Path | None:
    """Where a run's artifacts lie on this machine; None if a server keeps them."""
    address = urllib.parse.urlsplit(run.artifact_uri or "")
    return Path(urllib.request.url2pathname(address.path)) if address.scheme in ("", "file") else None
