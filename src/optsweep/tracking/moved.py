"""A store whose folder was moved or copied: MLflow keeps absolute paths of artifacts, set here to where it lies now."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import urllib.parse
import urllib.request
from pathlib import Path

from optsweep.database import SQLITE_TIMEOUT
from optsweep.tracking.tables import ARTIFACTS

_OURS = re.compile(rf"file:.*/{ARTIFACTS}/([0-9a-f]{{12}})")
"""The location of an experiment that a sweep has made; MLflow's own and those that somebody chose are left alone."""


def settle(file: Path) -> None:
    """Let the artifacts of all sweeps in this database lie in the folder beside it."""
    here = file.resolve().parent / ARTIFACTS
    with contextlib.closing(sqlite3.connect(file, timeout=SQLITE_TIMEOUT)) as connection:
        rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        found = [(key, text, _OURS.fullmatch(text or "")) for key, text in rows]
        moved = [(key, text, here / match[1]) for key, text, match in found if match]
        moved = [(key, text, folder) for key, text, folder in moved if text != folder.as_uri()]
        if not moved:
            return
        for _, text, folder in moved:
            _bring(Path(urllib.request.url2pathname(urllib.parse.urlsplit(text).path)), folder)
        with connection:
            for key, _, folder in moved:
                values = {"id": key, "to": folder.as_uri(), "within": f"%/{ARTIFACTS}/{folder.name}/"}
                connection.execute("UPDATE experiments SET artifact_location = :to WHERE experiment_id = :id", values)
                connection.execute(
                    "UPDATE runs SET artifact_uri = :to || '/' || run_uuid || '/artifacts' WHERE experiment_id = :id "
                    "AND artifact_uri LIKE 'file:%' AND artifact_uri LIKE :within || run_uuid || '/artifacts'",
                    values,
                )


def _bring(old: Path, new: Path) -> None:
    """Of a database that was copied alone the artifacts are copied too, whole or not at all."""
    if new.exists() or not old.is_dir():
        return
    part = new.with_name(f"{new.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(old, part)
    part.rename(new)
