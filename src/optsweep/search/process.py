"""What a process is called in the storage, so that any other can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def process_name() -> str:
    """Host, number and start of this process: unique, and tells on the host whether it is alive."""
    return f"{socket.gethostname()}/{os.getpid()}/{_start(os.getpid())}"


def is_alive(name: str) -> bool | None:
    """Whether a process named by `process_name` still runs; None if it is one of another host."""
    import psutil

    try:
        host, pid, start = name.rsplit("/", 2)
        if host != socket.gethostname():
            return None
        return _start(int(pid)) == start
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False
    except (ValueError, OSError, psutil.Error):
        return None


def in_words(name: str) -> str:
    """'process 4711 on host gauss'."""
    host, pid, _ = name.rsplit("/", 2)
    return f"process {pid} on host {host}"


def _start(pid: int) -> str:
    """What tells a process from all others that have had its number: on Linux the boot and the clock tick since then.

    Elsewhere the time of its start. That changes with the system clock (set by hand, by NTP, or on waking a suspended
    machine), and workers in the middle of a trial pass for dead: one step of the clock cost most trials of a sweep.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil

        return str(int(psutil.Process(pid).create_time()))
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return f"{boot}.{fields[19]}"  # the 22nd of proc(5), counted from the number
