"""The command, typed: its processes, what it prints, and what is wrong with how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "OPTSWEEP_CHAOS"
"""Variable that all processes of an episode inherit."""

MOST_LINES = 8
"""On stderr of a call that fails: its line, and those of workers and of what went on without a store."""

UNHEARD = "EOFError: Ran out of input"
"""Of multiprocessing, in a process whose parent was killed before it had told it what to do."""


class Call:
    """One typing of a command in a folder, in a process group of its own."""

    def __init__(self, folder: Path, sweep: str, command: Sequence[str], mark: str, log: Path) -> None:
        self.sweep, self.log = sweep, log
        self.begin = time.monotonic()
        self.disturbed: list[str] = []  # names of what was done to it
        self.told_to_stop = False
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        env |= {MARK: mark, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
        with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "optsweep", *command],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
            )

    @property
    def alive(self) -> bool:
        """Whether the command itself runs yet."""
        return self.process.poll() is None

    @property
    def age(self) -> float:
        """Seconds since it was typed."""
        return time.monotonic() - self.begin

    def workers(self) -> list[psutil.Process]:
        """Its workers, in order of their age."""
        found = []
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                with suppress(psutil.Error):
                    if "spawn_main" in " ".join(child.cmdline()):
                        found.append(child)
        return sorted(found, key=lambda process: process.pid)

    def owns(self, pid: int) -> bool:
        """Whether a process is the command itself or a living child of it: cheaper than to look for all."""
        with suppress(psutil.Error):
            return pid == self.process.pid or psutil.Process(pid).ppid() == self.process.pid
        return False

    def signal(self, number: int) -> None:
        """Send a signal to the command alone."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the command and all its workers, as a terminal does."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    @property
    def stderr(self) -> list[str]:
        """Lines of stderr that say something."""
        text = self.log.with_suffix(".err").read_text(errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    @property
    def last_line(self) -> str:
        """The last that it said."""
        return (self.stderr or [""])[-1]

    def faults(self) -> list[str]:
        """What is wrong with how it ended, the completeness of its report aside."""
        out = self.log.with_suffix(".out").read_text(errors="replace").splitlines()
        return faults(self.process.poll(), self.stderr, out, self.told_to_stop)


def faults(code: int | None, err: Sequence[str], out: Sequence[str], told_to_stop: bool) -> list[str]:
    """What is wrong with an exit code and what was printed with it."""
    found = []
    traces = [line for line in (*err, *out) if line.startswith("Traceback (most recent call last)")]
    last = (err or [""])[-1]
    if code == -signal.SIGKILL and last == UNHEARD:
        traces = []
    if traces:
        found.append(f"exit {code} with {len(traces)} tracebacks, which end in {last[:200]}")
    if code is None or code <= 0 or traces:
        return found
    if code == 130:
        return [] if told_to_stop else ["exit 130, and nobody stopped it"]
    if code not in (1, 2):
        found.append(f"exit {code}: {last[:200]}")
    elif not last.startswith("optsweep: "):
        found.append(f"exit {code} without its line, but: {last[:200]}")
    elif len(err) > MOST_LINES:
        found.append(f"exit {code} with {len(err)} lines")
    return found


def marked(mark: str) -> list[psutil.Process]:
    """Living processes that descend from an episode's commands."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def orphans(mark: str, seconds: float) -> list[str]:
    """What outlives its command for so long, ended then."""
    deadline = time.monotonic() + seconds
    left = marked(mark)
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left = marked(mark)
    names = []
    for process in left:
        with suppress(psutil.Error):
            names.append(f"{process.pid} {' '.join(process.cmdline())[-80:]}")
            process.kill()
    return names
