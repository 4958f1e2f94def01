"""A finished sweep as its last call left it: where nothing has changed since, the next call answers from that.

What a call would look at is compared without what it takes to look closer (torch, MLflow, Optuna, a worker): the arms
as they are composed, the command, the code and the versions that are installed, the machine, the rows that both stores
have of the sweep, the files of its runs and of its report, the data, what waits to be delivered. Whatever differs or
can't be read, and a sweep that somebody works on, is left to an ordinary call, which says what it is.

Only sweeps in local files are kept so, and only of tasks that come with optsweep: what the user's own code reads and
depends on, nobody knows without running it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from optsweep.address import STORAGE_KEY, TRACKING_KEY, read_address
from optsweep.config.arm import Arm
from optsweep.database import connection_to
from optsweep.launch.outcome import Basis, SweepResult
from optsweep.tracking import names
from optsweep.tracking.spool import Spool
from optsweep.written import check_report_folder

if TYPE_CHECKING:
    from optsweep.launch.events import Observer

FOLDER = "finished"
"""Where it is kept, beside the file of the runs."""


@dataclass(frozen=True)
class _Stores:
    """Digests of what the stores have of a sweep."""

    trials: str  # studies, trials and their runs
    parents: str  # the runs of the sweep and its arms, with their files


@dataclass(frozen=True)
class _Settled:
    """What was kept, as it is in the file."""

    call: str
    installed: str
    data: str
    report: str
    stores: _Stores
    basis: Basis
    arms: tuple[str, ...]
    done: int
    run: str
    results: str

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises OSError, ValueError, KeyError or TypeError."""
        held = json.loads(file.read_text(encoding="utf-8"))
        basis = held["basis"]
        return cls(
            **{
                **held,
                "stores": _Stores(**held["stores"]),
                "basis": Basis(tuple(basis["notes"]), tuple(basis["reads"]), basis["trials"]),
                "arms": tuple(held["arms"]),
            }
        )


def may_be_finished(arm: Arm) -> bool:
    """Whether an arm's sweep was finished once, or can't be asked from here; much may have changed since."""
    file = read_address(STORAGE_KEY, arm.storage).file
    if file is None:
        return True
    try:
        with connection_to(file) as studies:
            return studies.execute(_FINISHED, {"prefix": f"{arm.sweep} | "}).fetchone() is not None
    except sqlite3.Error:  # there is no such file yet
        return False


def check_page(arm: Arm, folder: Path) -> None:
    """Raise UserError where the report couldn't be written; a finished sweep may want none but the one there."""
    with suppress(OSError):
        if (folder / "index.html").is_file() and may_be_finished(arm):
            return
    check_report_folder(folder)


def settled(arms: Sequence[Arm], command: str, report: Path, observe: Observer | None = None) -> SweepResult | None:
    """What a call of these arms would come to, with its report in a folder; None where it has to be made.

    Nothing is written; `observe` hears the notes of that call. Raises UserError for a store that can't be one, or can't
    be written.
    """
    files = _Files.of(arms)
    if files is None:
        return None
    try:
        for key, address in ((TRACKING_KEY, arms[0].tracking_uri), (STORAGE_KEY, arms[0].storage)):
            read_address(key, address).check_usable()
        before = _Settled.read(files.kept)
        same = (
            before.call == _call(arms, command)
            and before.installed == _installed()
            and before.data == _data(before.basis.reads)
            and not Spool.of(arms[0].tracking_uri, arms[0].storage, arms[0].sweep).trials()
            and before.report == _tree(report)
            and before.stores == files.stores(arms[0].sweep)
        )
    except (OSError, ValueError, KeyError, TypeError, sqlite3.Error):
        return None
    if not same:
        return None
    if observe is not None and before.basis.notes:
        from optsweep.launch.events import Note

        for text in before.basis.notes:
            observe(Note(text))
    return _again(arms[0], before)


def keep(arms: Sequence[Arm], command: str, result: SweepResult, report: Path) -> None:
    """Keep what a call came to, once its report is there; nothing of one that isn't settled, or somebody else's now."""
    files = _Files.of(arms)
    if files is None:
        return
    with suppress(OSError, sqlite3.Error):
        files.kept.unlink(missing_ok=True)
        stores = files.stores(arms[0].sweep) if result.basis is not None else None
        if result.basis is None or stores is None or stores.trials != result.basis.trials:
            return
        known = _Settled(
            call=_call(arms, command),
            installed=_installed(),
            data=_data(result.basis.reads),
            report=_tree(report),
            stores=stores,
            basis=result.basis,
            arms=result.arms,
            done=result.done,
            run=result.run,
            results=result.results,
        )
        files.kept.parent.mkdir(exist_ok=True)
        beside = files.kept.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(asdict(known)), encoding="utf-8")
        beside.replace(files.kept)


def trials_digest(arm: Arm) -> str | None:
    """What both stores have of the trials of an arm's sweep; None where that can't be told from here."""
    files = _Files.of([arm])
    if files is None:
        return None
    try:
        return files.trials(arm.sweep)
    except sqlite3.Error:
        return None


def _again(arm: Arm, before: _Settled) -> SweepResult:
    return SweepResult(
        sweep=arm.sweep,
        tracking_uri=arm.tracking_uri,
        arms=before.arms,
        trials=0,
        done=before.done,
        seconds=0.0,
        run=before.run,
        results=before.results,
        reported=True,
        basis=before.basis,
    )


# -- what is compared --------------------------------------------------------------------------------------------------


def _call(arms: Sequence[Arm], command: str) -> str:
    """The arms and what is asked for, where it is asked for."""
    said = [(repr(arm), arm.yaml, arm.tracking_uri, arm.storage) for arm in arms]
    return _digest([command, str(Path.cwd()), *said])


def _installed() -> str:
    """The code that isn't the user's, and the machine, as far as numbers may depend on them."""
    package = Path(__file__).parents[1]
    packages = sorted({name for folder in sys.path for name in _listed(Path(folder)) if name.endswith("-info")})
    machine = [
        platform.platform(),
        *sorted(name for name in _listed(Path("/dev")) if name.startswith("nvidia")),
        os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        *_processors(),
    ]
    return _digest([sys.version, _tree(package, "*.py"), packages, machine])


def _processors() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [platform.processor()]
    return sorted({line for line in lines if line.startswith("model name")})


def _data(files: Iterable[str]) -> str:
    """The files that the arms' numbers depend on, by size and time."""
    return _digest([_state(Path(file).expanduser()) for file in files])


def _tree(folder: Path, pattern: str = "*") -> str:
    """All files below a folder, by size and time."""
    return _digest(sorted((str(path.relative_to(folder)), *_state(path)) for path in folder.rglob(pattern)))


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return (0, 0) if file.is_dir() else (found.st_size, found.st_mtime_ns)


def _listed(folder: Path) -> list[str]:
    with suppress(OSError):
        return [path.name for path in folder.iterdir()]
    return []


def _digest(content: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for item in content:
        found.update(repr(item).encode("utf-8", "replace") + b"\n")
    return found.hexdigest()[:32]


# -- what the stores have ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """The databases of a sweep, and what is kept of it."""

    tracking: Path
    storage: Path
    kept: Path

    @staticmethod
    def of(arms: Sequence[Arm]) -> _Files | None:
        """None where a store is no file, or an arm's task came with the call."""
        tracking = read_address(TRACKING_KEY, arms[0].tracking_uri).file
        storage = read_address(STORAGE_KEY, arms[0].storage).file
        if tracking is None or storage is None or any(arm.task.pickled for arm in arms):
            return None
        name = hashlib.sha256(f"{tracking.name} {arms[0].sweep}".encode()).hexdigest()[:12]
        return _Files(tracking, storage, tracking.absolute().parent / FOLDER / f"{name}.json")

    def stores(self, sweep: str) -> _Stores | None:
        """None while a process plans or trains the sweep. Raises sqlite3.Error, and OSError where a file is gone."""
        with connection_to(self.storage) as studies, connection_to(self.tracking) as runs:
            if studies.execute(_AT_WORK, {"sweep": sweep, "prefix": f"{sweep} | "}).fetchone() is not None:
                return None
            folders, parents = _parents(runs, sweep)
            return _Stores(_trials(studies, runs, sweep), _digest([*parents, *map(_tree, folders)]))

    def trials(self, sweep: str) -> str:
        """Digest of what both stores have of the trials."""
        with connection_to(self.storage) as studies, connection_to(self.tracking) as runs:
            return _trials(studies, runs, sweep)


_STUDIES = "study_id IN (SELECT study_id FROM studies WHERE substr(study_name, 1, length(:prefix)) = :prefix)"
_TRIALS = f"trial_id IN (SELECT trial_id FROM trials WHERE {_STUDIES})"
_AT_WORK = (
    "SELECT 1 FROM optsweep_seats WHERE sweep = :sweep AND holder IS NOT NULL "
    f"UNION ALL SELECT 1 FROM optsweep_leases WHERE worker IS NOT NULL AND {_TRIALS}"
)
_FINISHED = f"SELECT 1 FROM study_user_attributes WHERE key = 'finished' AND value_json != 'null' AND {_STUDIES}"
_OF_STUDIES = (
    f"SELECT study_id, study_name FROM studies WHERE {_STUDIES} ORDER BY 1",
    f"SELECT study_id, key, value_json FROM study_user_attributes WHERE key != 'report' AND {_STUDIES} ORDER BY 1, 2",
    f"SELECT trial_id, number, study_id, state FROM trials WHERE {_STUDIES} ORDER BY 1",
    f"SELECT trial_id, objective, value, value_type FROM trial_values WHERE {_TRIALS} ORDER BY 1, 2",
    f"SELECT trial_id, key, value_json FROM trial_user_attributes WHERE {_TRIALS} ORDER BY 1, 2",
)
_EXPERIMENT = "SELECT experiment_id, artifact_location, lifecycle_stage FROM experiments WHERE name = :sweep"
_RUNS = "FROM runs WHERE experiment_id IN (SELECT experiment_id FROM experiments WHERE name = :sweep)"
_OF_A_TRIAL = f"IN (SELECT run_uuid FROM tags WHERE key = '{names.KIND}' AND value = 'trial')"
_OF_RUNS = (
    f"SELECT run_uuid, name, status, lifecycle_stage, artifact_uri {_RUNS} AND run_uuid {{}} ORDER BY 1",
    f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN (SELECT run_uuid {_RUNS}) AND run_uuid {{}} "
    "ORDER BY 1, 2",
)


def _trials(studies: sqlite3.Connection, runs: sqlite3.Connection, sweep: str) -> str:
    """Studies and trials with all that was noted of them, but for their rungs; the runs of trials with their tags."""
    return _digest(
        [
            *(row for query in _OF_STUDIES for row in studies.execute(query, {"prefix": f"{sweep} | "})),
            *(row for query in _OF_RUNS for row in runs.execute(query.format(_OF_A_TRIAL), {"sweep": sweep})),
        ]
    )


def _parents(runs: sqlite3.Connection, sweep: str) -> tuple[list[Path], list[Any]]:
    """The folders of the files of all other runs of the sweep, and its rows. Raises OSError for files elsewhere."""
    heads, tags = (runs.execute(query.format(f"NOT {_OF_A_TRIAL}"), {"sweep": sweep}).fetchall() for query in _OF_RUNS)
    return list(_folders(uri for *_, uri in heads)), [*runs.execute(_EXPERIMENT, {"sweep": sweep}), *heads, *tags]


def _folders(addresses: Iterable[str]) -> Iterator[Path]:
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme not in ("", "file"):
            raise OSError(f"{address} is no folder")
        yield Path(unquote(parts.path))
