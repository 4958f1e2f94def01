"""Whether a sweep can run here, line by line. Looks only: nothing is made or written."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from optsweep.build.machine import processor
from optsweep.errors import UserError, first_line
from optsweep.launch.browse.ui import has_screen, listen
from optsweep.launch.doctor.diagnosis import Diagnosis, Health
from optsweep.launch.environment import num_cores
from optsweep.launch.worker.shared_folder import KEY, check_folder, read_mark
from optsweep.report.wording import size

LEAST_FREE, LITTLE_FREE = 50 * 2**20, 2 * 2**30
"""Bytes of a disk or of memory below which a sweep fails, or is likely to get into trouble."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
REMOTE = ("nfs", "nfs4", "cifs", "smbfs", "smb3", "fuse.sshfs", "9p")
"""File systems of other machines, on which SQLite's locks are not to be relied on."""


def examine(tracking_uri: str, storage: str, port: int, checkpoints: Path | None = None) -> Iterator[Diagnosis]:
    """Everything, in the order in which a reader wants it."""
    yield Diagnosis(Health.OK, "python", f"{platform.python_version()} ({sys.executable})")
    yield from packages()
    yield from extras()
    yield from machine()
    yield from folders()
    if checkpoints is not None:
        yield examine_checkpoints(checkpoints)
    from optsweep.launch.doctor.stores import examine_storage, examine_tracking  # which import MLflow and Optuna

    yield examine_tracking(tracking_uri)
    yield examine_storage(storage)
    yield examine_port(port)
    yield browser()


# -- what is installed -----------------------------------------------------------------------------------------------


def packages() -> Iterator[Diagnosis]:
    """What optsweep needs."""
    yield Diagnosis(Health.OK, "optsweep", version("optsweep"))
    for needed in _needed(""):
        found = _version(needed.name)
        if found is None:
            yield Diagnosis(Health.FAIL, needed.name, f"not installed; pip install '{needed}'")
        elif not needed.specifier.contains(found, prereleases=True):
            yield Diagnosis(Health.FAIL, needed.name, f"{found}, and {needed.specifier} is needed; pip install -U")
        else:
            yield Diagnosis(Health.OK, needed.name, found)


def extras() -> Iterator[Diagnosis]:
    """What more can be installed: no sweep needs it."""
    for name in metadata("optsweep").get_all("Provides-Extra") or ():
        wanted = [needed for needed in _needed(str(name)) if needed.name != "optsweep"]
        missing = [needed.name for needed in wanted if _version(needed.name) is None]
        if not missing:
            said = ", ".join(f"{needed.name} {_version(needed.name)}" for needed in wanted[:4])
        else:
            said = f"without {', '.join(missing[:4])}; pip install 'optsweep[{name}]' adds what is missing"
        yield Diagnosis(Health.OK, f"extra {name}", said)


def _needed(extra: str) -> Iterator[Requirement]:
    """The requirements of an extra; of none: of optsweep itself."""
    for needed in map(Requirement, requires("optsweep") or ()):
        alone = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if (needed.marker is None or needed.marker.evaluate({"extra": extra})) and alone != bool(extra):
            yield needed


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# -- the machine -----------------------------------------------------------------------------------------------------


def machine() -> Iterator[Diagnosis]:
    """Processor, threads, memory, devices."""
    yield Diagnosis(Health.OK, "processor", f"{processor()}, {num_cores()} cores for this process")
    set_to = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    yield Diagnosis(Health.OK, "threads", f"{', '.join(set_to) or 'as trainer.threads says'}; a worker has its own")
    memory = psutil.virtual_memory()
    yield Diagnosis(_enough(memory.available), "memory", f"{size(memory.available)} of {size(memory.total)} free")
    try:
        yield from _devices()
    except Exception as error:  # whatever a driver may come to
        yield Diagnosis(Health.WARN, "devices", f"torch can't look for GPUs ({first_line(error)}); sweeps use the CPU")


def _devices() -> Iterator[Diagnosis]:
    import torch

    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Diagnosis(_enough(free), f"cuda:{index}", f"{name}, {size(free)} of {size(total)} free")
    if torch.cuda.device_count() == 0:
        also = "; Apple's GPU: trainer.device=mps" if torch.backends.mps.is_available() else ""
        yield Diagnosis(Health.OK, "devices", f"no CUDA device: sweeps run on the CPU{also}")


def _enough(free: int) -> Health:
    return Health.FAIL if free < LEAST_FREE else Health.WARN if free < LITTLE_FREE else Health.OK


# -- folders ---------------------------------------------------------------------------------------------------------


def folders() -> Iterator[Diagnosis]:
    """Where a sweep writes, and how much room is left there."""
    for folder in (Path("mlruns"), Path("reports"), Path(tempfile.gettempdir())):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield Diagnosis(Health.FAIL, f"folder {folder}", f"can't be written ({there}: permission denied)")
            continue
        free = shutil.disk_usage(there).free
        yield Diagnosis(_enough(free), f"folder {folder}", f"can be written, {size(free)} free")
    if (kind := _file_system(Path.cwd())) in REMOTE:
        said = f"is of another machine ({kind}): keep the stores on this one, or on a server"
        yield Diagnosis(Health.WARN, "this folder", said)


def examine_checkpoints(folder: Path) -> Diagnosis:
    """The folder that a sweep's machines share."""
    try:
        check_folder(KEY, folder)
    except UserError as error:
        return Diagnosis(Health.FAIL, KEY, str(error).removeprefix(f"{KEY}: "))
    if not folder.exists():
        return Diagnosis(Health.WARN, KEY, f"{folder} isn't there: a sweep makes it, a worker elsewhere refuses it")
    free, kind = shutil.disk_usage(folder).free, _file_system(folder)
    of = "another machine" if kind in REMOTE else "this machine"
    known = "a sweep had it" if read_mark(folder) else "no sweep had it yet"
    said = f"{folder} can be written, of {of} ({kind or 'unknown'}), {size(free)} free; {known}"
    return Diagnosis(_enough(free), KEY, said)


def _file_system(folder: Path) -> str:
    """What kind a folder is on."""
    try:
        mounted = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    except OSError:
        return ""
    return str(max(mounted, key=lambda part: len(part.mountpoint)).fstype) if mounted else ""


# -- what is looked at with ------------------------------------------------------------------------------------------


def examine_port(port: int) -> Diagnosis:
    """Where `optsweep ui` would listen."""
    try:
        with listen(port) as listening:
            found = int(listening.getsockname()[1])
    except UserError as error:
        return Diagnosis(Health.WARN, f"port {port}", f"{error}; optsweep ui needs one")
    if found != port:
        return Diagnosis(Health.OK, f"port {port}", f"taken; optsweep ui takes {found}")
    return Diagnosis(Health.OK, f"port {port}", "free, for optsweep ui")


def browser() -> Diagnosis:
    """Whether `optsweep ui` can open one."""
    if has_screen():
        return Diagnosis(Health.OK, "browser", "optsweep ui opens it")
    return Diagnosis(Health.OK, "browser", "no screen here: optsweep ui says the address")


def healthy(found: Sequence[Diagnosis]) -> bool:
    """Whether nothing that a sweep needs has failed."""
    return all(finding.health is not Health.FAIL for finding in found)
