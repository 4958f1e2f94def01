"""The cluster, by SLURM's own commands: whether it can give what is asked, and how jobs stand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

from optsweep.address import Address
from optsweep.errors import UserError
from optsweep.launch.slurm.request import Flags, as_arguments

COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel")

CALL_SECONDS = 60.0
"""That a command may take: it asks a controller that is away for a while by itself."""


@dataclass(frozen=True)
class JobState:
    """How a job that isn't over stands."""

    state: str  # PENDING, RUNNING, …
    reason: str  # why it waits
    node: str


def check_usable(launcher: str = "slurm") -> None:
    """Raise UserError where jobs can't be submitted from here; it names the launcher that wants to."""
    if find_spec("submitit") is None:
        raise UserError(f"hydra/launcher={launcher} needs the extra: pip install 'optsweep[slurm]'")
    if lacking := [name for name in COMMANDS if shutil.which(name) is None]:
        raise UserError(
            f"hydra/launcher={launcher}: there is no {lacking[0]} on PATH; start it where SLURM's commands are"
        )
    said = _call("scontrol", "ping")
    if " is UP" not in said.stdout:
        raise UserError(f"hydra/launcher={launcher}: SLURM's controller doesn't answer ({_last_line(said)})")


def why_no_accounts() -> str | None:
    """Why nobody can say here what became of a job that is over; None where somebody can."""
    try:
        said = _call("sacct", "-n", "-X", "-j", "1")
    except UserError as error:  # it isn't installed, or nobody answers it
        return str(error)
    return _reason(said) if said.returncode else None


def check_files(addresses: Sequence[Address], flags: Flags, otherwise: str) -> None:
    """Raise UserError where jobs that write at once may be on several nodes, and a store is a file."""
    for address in addresses:
        if address.file is not None and (count := num_nodes(flags)) > 1:
            raise UserError(
                f"{address.key}: {address.shown} is a file, which processes on several nodes would damage, and "
                f"these jobs may run on {count}; give tracking.storage=postgresql+psycopg://… and "
                f"tracking.uri=http://…, or {otherwise}"
            )


def check_given(flags: Flags) -> None:
    """Raise UserError where the cluster would never run such a job."""
    said = _call("sbatch", "--test-only", *as_arguments(flags), "--wrap=true")
    if said.returncode:
        down = " (all its nodes are down or drained; sinfo -R says why)" if _all_down(flags) else ""
        raise UserError(f"hydra.launcher: SLURM refuses such jobs: {_reason(said)}{down}; asked is {shown(flags)}")


def shown(flags: Flags) -> str:
    """Flags as a person may see them."""
    return " ".join(as_arguments(flags))


def num_nodes(flags: Flags) -> int:
    """On how many nodes such jobs may run."""
    return len(_nodes(flags))


def silent_nodes() -> Collection[str]:
    """Nodes that the controller doesn't hear of; only later it takes them for down, and their jobs for lost."""
    with suppress(UserError):  # it can't say
        return set(_asked("sinfo", "-h", "-N", "--dead", "-o", "%N").split())
    return ()


def _all_down(flags: Flags) -> bool:
    with suppress(UserError):  # a partition that isn't there
        nodes = _nodes(flags)
        return bool(nodes) and nodes == _nodes(flags, "-t", "down,drain,fail")
    return False


def _nodes(flags: Flags, *only: str) -> set[str]:
    places = {"partition": "-p", "nodelist": "-n"}
    where = [word for name, option in places.items() if name in flags for word in (option, str(flags[name]))]
    if "partition" not in flags:
        listed = _asked("sinfo", "-h", "-o", "%P|%N").splitlines()
        default = [line.partition("*|")[0] for line in listed if "*|" in line]
        where += ["-p", default[0]] if default else []
    return set(_asked("sinfo", "-h", "-N", "-o", "%N", *where, *only).split())


def states() -> Mapping[str, JobState]:
    """Of this user's jobs that aren't over, an array's tasks by themselves. Raises UserError."""
    found = {}
    for line in _asked("squeue", "-h", "-r", "--me", "-o", "%i|%T|%r|%N").splitlines():
        job, state, reason, node = line.split("|", 3)
        found[job] = JobState(state, reason, node)
    return found


def is_running(job: str, node: str) -> bool:
    """Whether a job runs on a node, and isn't about to end; on another by now where its node was taken for lost."""
    found = _call("squeue", "-h", "-j", job, "-o", "%T|%N").stdout.strip()
    return found == f"RUNNING|{node}"


def requeue(job: str) -> bool:
    """Let a job end, and begin again; False where that can't be, which is said in its log."""
    said = _call("scontrol", "requeue", job)
    if said.returncode:
        print(f"job {job} can't be requeued: {_reason(said)}", file=sys.stderr, flush=True)
    return not said.returncode


def cancel(jobs: Collection[str], *, waiting_only: bool = False) -> None:
    """End jobs."""
    if jobs:
        _call("scancel", *(["--state=PENDING"] if waiting_only else []), *jobs)


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: SLURM's controller hasn't answered for {CALL_SECONDS:.0f} s") from None
    except OSError as error:  # a node that has the command somewhere else
        raise UserError(f"{command[0]}: {error.strerror}") from None


def _asked(*command: str) -> str:
    said = _call(*command)
    if said.returncode:
        raise UserError(f"{command[0]}: {_reason(said)}")
    return said.stdout


def _reason(said: subprocess.CompletedProcess[str]) -> str:
    lines = [line.removeprefix(f"{said.args[0]}: ").removeprefix("error: ") for line in _lines(said)]
    return "; ".join(dict.fromkeys(line for line in lines if not line.startswith("Try "))) or "no reason is given"


def _last_line(said: subprocess.CompletedProcess[str]) -> str:
    return next((line for line in _lines(said) if not line.startswith("*")), "no reason is given")


def _lines(said: subprocess.CompletedProcess[str]) -> Sequence[str]:
    return [line.strip() for line in (said.stderr + said.stdout).splitlines() if line.strip()]
