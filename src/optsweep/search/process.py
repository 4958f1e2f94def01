"""What a process is called in the storage, so that any other can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

ENDED = "ZXx"
"""States in proc(5) of a process that has ended: one that nobody has waited for keeps its number, and runs no more."""


def process_name() -> str:
    """Host, number and start of this process: unique, and tells on the host whether it is alive."""
    return f"{socket.gethostname()}/{os.getpid()}/{_found(os.getpid()).start}"


def is_alive(name: str) -> bool | None:
    """Whether a process named by `process_name` still runs; None if it can't be seen from here.

    It can't from another host, nor from another container, whose processes have numbers of their own. One that was
    stopped (SIGSTOP) runs.
    """
    import psutil

    try:
        host, pid, start = name.rsplit("/", 2)
        if host != socket.gethostname() or not _visible(start):
            return None
        found = _found(int(pid))
        return found.start == start and not found.ended
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False
    except (ValueError, OSError, psutil.Error):
        return None


def in_words(name: str) -> str:
    """'process 4711 on host gauss'."""
    host, pid, _ = name.rsplit("/", 2)
    return f"process {pid} on host {host}"


def machine_of(name: str) -> str:
    """Where a process named by `process_name` runs: one for all of a host, of a boot and of a container."""
    place, _, start = name.rpartition("/")
    return f"{place.rpartition('/')[0]}/{start.rpartition('.')[0]}"


@dataclass(frozen=True)
class _Process:
    """A process that has a number."""

    start: str
    """What tells it from all others that have had its number: on Linux the boot, whose numbers they are, and the clock
    tick since then.

    Elsewhere the time of its start. That changes with the system clock (set by hand, by NTP, or on waking a suspended
    machine), and workers in the middle of a trial pass for dead: one step of the clock cost most trials of a sweep.
    """
    ended: bool


def _found(pid: int) -> _Process:
    if not _BOOT.is_file():
        import psutil

        process = psutil.Process(pid)
        return _Process(str(int(process.create_time())), process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    # From the state on, the 3rd field of proc(5); before it is a name, which may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return _Process(f"{_boot()}.{_numbering()}.{fields[19]}", fields[0] in ENDED)


def _visible(start: str) -> bool:
    """Whether the numbers of its processes are those of this one. A boot that is over has no processes."""
    boot, _, rest = start.partition(".")
    numbering, dot, _ = rest.partition(".")
    return not dot or boot != _boot() or numbering == _numbering()


_BOOT = Path("/proc/sys/kernel/random/boot_id")


def _boot() -> str:
    return _BOOT.read_text(encoding="ascii").strip()


def _numbering() -> str:
    """The namespace of this process's number: each container has its own."""
    return str(Path("/proc/self/ns/pid").readlink()).rpartition("[")[2].rstrip("]")
