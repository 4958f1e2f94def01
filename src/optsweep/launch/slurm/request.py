"""What a sweep asks of SLURM: the keys of hydra/launcher=slurm, and what sbatch is told by them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from optsweep.checks import by_name, checked, flag, optional, plain, refuse, whole
from optsweep.config.fields import Key
from optsweep.config.launchers import SECTION, LauncherOptions
from optsweep.config.sections import MOST_WORKERS
from optsweep.errors import UserError

Flags = Mapping[str, str | int | bool]
"""Long options of sbatch; True: one without a value."""

OURS = (
    *("job-name", "output", "error", "open-mode", "array", "dependency", "signal", "wrap", "chdir", "export"),
    *("nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "requeue", "no-requeue", "parsable", "wait", "test-only"),
)
"""What can't be given in `sbatch`, because the jobs need it as it is, or a key of its own has it."""

LONGEST_NOTICE = 120
"""Seconds within which a job gives its trials back."""

_TIME = re.compile(r"(\d+-)?\d{1,3}(:[0-5]\d){2}")
_MEMORY = re.compile(r"\d+[KMGT]?")
_NAMES = re.compile(r"[\w.+@:\-]+(,[\w.+@:\-]+)*")
_OPTION = re.compile(r"[a-z][a-z0-9\-]*")


def _names(key: str, value: object, *, also: str = "") -> str:
    if not isinstance(value := plain(value), str) or not _NAMES.fullmatch(value):
        raise refuse(key, value, f"a name that the cluster knows{also}")
    return value


def _time(key: str, value: object, *, also: str = "") -> str:
    """As sbatch takes it: minutes, or [DAYS-]HOURS:MINUTES:SECONDS."""
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return str(value)
    if not isinstance(value, str) or not _TIME.fullmatch(value) or not value.strip("0:-"):
        raise refuse(key, value, f"minutes, HH:MM:SS or DAYS-HH:MM:SS{also}")
    return value


def _memory(key: str, value: object, *, also: str = "") -> str:
    """As sbatch takes it: megabytes, or with a unit."""
    value = plain(value)
    said = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(said, str) or not _MEMORY.fullmatch(said) or not said.rstrip("KMGT").strip("0"):
        raise refuse(key, value, f"memory of a node, such as 8G{also}")
    return said


def _further(key: str, value: object) -> Flags:
    """Options of sbatch that have no key of their own."""
    given = {} if value is None else by_name(key, value)
    for name, said in given.items():
        if not _OPTION.fullmatch(name):
            raise UserError(f"{key}.{name}: an option of sbatch is wanted, by its long name without dashes before it")
        if name in OURS:
            raise UserError(f"{key}.{name}: it can't be given, because the jobs need their own")
        if not isinstance(said, (str, int)) or "\n" in str(said) or said is False:
            raise refuse(f"{key}.{name}", said, "a word, a number, or true for an option without a value")
    return given


def _lines(key: str, value: object) -> tuple[str, ...]:
    value = plain(value)
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(line, str) for line in value):
        raise refuse(key, value, 'a list of lines of shell, such as ["module load cuda"]')
    return tuple(value)


@dataclass(frozen=True)
class SlurmRequest(LauncherOptions):
    """What each job is to have, and how many there are to be."""

    # tasks of the array, besides the job that plans
    workers: Annotated[int, Key(f"{SECTION}.workers", checked(whole, low=0, most=MOST_WORKERS))] = 0
    max_parallel: Annotated[int | None, Key(f"{SECTION}.max_parallel", optional(whole))] = None
    partition: Annotated[str | None, Key(f"{SECTION}.partition", optional(_names))] = None
    account: Annotated[str | None, Key(f"{SECTION}.account", optional(_names))] = None
    qos: Annotated[str | None, Key(f"{SECTION}.qos", optional(_names))] = None
    time: Annotated[str | None, Key(f"{SECTION}.time", optional(_time))] = None
    mem: Annotated[str | None, Key(f"{SECTION}.mem", optional(_memory))] = None
    cpus_per_worker: Annotated[int, Key(f"{SECTION}.cpus_per_worker", checked(whole))] = 1
    gpus_per_worker: Annotated[int, Key(f"{SECTION}.gpus_per_worker", checked(whole, low=0))] = 0
    requeue: Annotated[bool, Key(f"{SECTION}.requeue", flag)] = True
    wait: Annotated[bool, Key(f"{SECTION}.wait", flag)] = False
    sbatch: Annotated[Flags, Key(f"{SECTION}.sbatch", _further)] = field(default_factory=dict)
    setup: Annotated[tuple[str, ...], Key(f"{SECTION}.setup", _lines)] = ()

    @property
    def flags(self) -> Flags:
        """What sbatch is told of each job."""
        asked = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.time,
            "mem": self.mem,
            "gpus-per-node": self.gpus_per_worker or None,
            "cpus-per-task": self.cpus_per_worker,
            "nodes": 1,
            "ntasks": 1,
            "requeue" if self.requeue else "no-requeue": True,
        }
        return {name: said for name, said in asked.items() if said is not None} | dict(self.sbatch)

    @property
    def notice_seconds(self) -> int:
        """How long before its time limit a job is told; SLURM may do so a minute earlier."""
        return LONGEST_NOTICE if self.time is None else min(LONGEST_NOTICE, _seconds(self.time) // 4)

    def processes(self, threads: int) -> int | None:
        """How many workers of `threads` threads, their ranks' too, train in a job; None: one for each of its GPUs."""
        return None if self.gpus_per_worker else max(1, self.cpus_per_worker // threads)


def _seconds(time: str) -> int:
    days, _, clock = time.rpartition("-")
    if ":" not in clock:
        return 60 * int(clock)
    hours, minutes, seconds = map(int, clock.split(":"))
    return 86400 * int(days or 0) + 3600 * hours + 60 * minutes + seconds


def as_arguments(flags: Flags) -> list[str]:
    """Flags as a command line has them."""
    return [f"--{name}" if said is True else f"--{name}={said}" for name, said in flags.items()]
