"""A real SLURM for tests: munged, slurmctld and two nodes on this machine, in a private folder and on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from optsweep.launch.slurm.record import Submitted
from patience import PATIENCE_SECONDS
from servers.parts import free_port
from sweeping import start

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel")
NODES = ("optsweep1", "optsweep2")

SUBMITTED = 3
"""How a sweep's command ends whose jobs go on."""

NAMED = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')
"""What a command is begun by, and its host's name."""


def missing_slurm() -> Sequence[str]:
    """What of it can't be had here, in words."""
    from importlib.util import find_spec

    lacking = [name for name in (*DAEMONS, *COMMANDS) if _path(name) is None]
    if lacking:
        return [f"{', '.join(lacking)} (apt-get install slurmctld slurmd slurm-client munge)"]
    if find_spec("submitit") is None:
        return ["submitit (pip install 'optsweep[slurm]')"]
    return [] if os.getuid() == 0 else ["root, who alone can start slurmd"]


def _path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Slurm:
    """A cluster of two nodes, both on this machine.

    Partition `one` has the first alone, `main` both, and `spread` gives jobs to both in turn. Nodes that are `apart`
    have host names of their own (`unshare --uts`), and are taken for down when they have been silent for seconds.
    """

    folder: Path
    apart: bool = False
    _nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _controller: subprocess.Popen[bytes] | None = None

    @property
    def conf(self) -> Path:
        """Which SLURM's commands find by SLURM_CONF."""
        return self.folder / "slurm.conf"

    def start(self) -> None:
        """Start it, and wait until both nodes are there."""
        key = self.folder / "key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o600)
        at = [f"--{name}={self.folder / file}" for name, file in _MUNGE.items()]
        self._daemon("munged", "--force", "--foreground", *at)
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self.conf.write_text(self._configuration())
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()

    def start_node(self, node: str) -> None:
        """Start its slurmd, again too."""
        named = (*NAMED, node) if self.apart else ()
        self._nodes[node] = self._daemon("slurmd", "-D", "-N", node, "-f", str(self.conf), by=named)

    def wait_for_nodes(self) -> None:
        """Until all could be given jobs, and have none."""
        self._wait(lambda: self.said("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == ["idle"] * len(NODES))

    def signal(self, node: str, number: int) -> None:
        """Send a signal to all that runs on one of nodes that are apart."""
        for process in _processes_of(self._name_of(node)):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def lose(self, node: str) -> None:
        """As when such a node's power fails. SLURM finds out by itself."""
        slurmd, name = self._nodes[node], self._name_of(node)
        while _processes_of(name):
            for process in _processes_of(name):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        slurmd.wait()
        self._started.remove(slurmd)

    def start_controller(self) -> None:
        """Start slurmctld, again too."""
        self._controller = self._daemon("slurmctld", "-D", "-f", str(self.conf))

    def stop_controller(self) -> None:
        """As when its machine is away."""
        assert self._controller is not None
        self._started.remove(self._controller)
        _end(self._controller)

    def stop(self) -> None:
        """End jobs and daemons."""
        self.said("scancel", "--full", "-u", "root")
        until = time.monotonic() + 10
        while self.said("squeue", "-h").strip() and time.monotonic() < until:
            time.sleep(0.2)
        while self._started:
            _end(self._started.pop())

    def said(self, *command: str) -> str:
        """What one of SLURM's commands answers."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        return done.stdout

    def is_over(self, *jobs: str) -> bool:
        """Whether these jobs have left the queue; all, where none is named."""
        command = ["squeue", "-h", "-r", "-o", "%i"]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        there = set(done.stdout.split())
        return done.returncode == 0 and not (there.intersection(jobs) if jobs else there)

    def accounts(self) -> Path:
        """A folder for PATH with a `sacct` that asks the controller: this cluster has no accounting."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "sacct").write_text(_SACCT)
        (folder / "sacct").chmod(0o755)
        return folder

    @property
    def environment(self) -> dict[str, str]:
        """Of who asks it."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def _name_of(self, node: str) -> str:
        """What tells its processes from all others: their namespace of host names."""
        name = _namespace(self._nodes[node].pid)
        assert name not in (None, _namespace(os.getpid()))
        return str(name)

    def _daemon(self, name: str, *arguments: str, by: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        path = _path(name)
        assert path is not None
        with (self.folder / f"{name}.out").open("ab") as log:
            started = subprocess.Popen(
                [*by, path, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._started.append(started)
        return started

    def _wait(self, done: object) -> None:
        assert callable(done)
        until = time.monotonic() + PATIENCE_SECONDS
        while not done():
            gone = [process.args for process in self._started if process.poll() is not None]
            if gone or time.monotonic() > until:
                logs = "\n".join(log.read_text(errors="replace")[-1500:] for log in self.folder.glob("*.out"))
                raise RuntimeError(f"SLURM doesn't start ({gone or 'in time'}): {logs}")
            time.sleep(0.1)

    def _configuration(self) -> str:
        host, folder = socket.gethostname().partition(".")[0], self.folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 State=UNKNOWN"
            for node in NODES
        ]
        silence = ["SlurmdTimeout=10"] if self.apart else []
        return "\n".join(
            [_CONFIGURATION.format(host=host, folder=folder, port=free_port()), *silence, *nodes, _PARTITIONS]
        )


_MUNGE = {
    "key-file": "key",
    "socket": "munge.socket",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "munged.seed",
}

_CONFIGURATION = """ClusterName=optsweep
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerParameters=bf_interval=5,sched_interval=5"""
"""cred_expire: how long a requeued job waits before it may begin again; 120 s where it is given as less than five."""

_PARTITIONS = """PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=one Nodes=optsweep1 MaxTime=INFINITE State=UP
PartitionName=spread Nodes=ALL LLN=YES MaxTime=INFINITE State=UP
"""


_SACCT = r"""#!/bin/sh
echo 'JobID|State'
scontrol -o show job |
  sed -nE 's/^JobId=[0-9]+ ArrayJobId=([0-9]+) ArrayTaskId=([0-9]+) .* JobState=([A-Z]+) .*/\1_\2|\3/p'
"""
"""What submitit asks it, of arrays' tasks that have begun."""


def may_be_named() -> bool:
    """Whether a process may have a host name of its own here."""
    named = subprocess.run([*NAMED, "other", "hostname"], capture_output=True, text=True, check=False)
    return named.stdout.strip() == "other"


def _processes_of(name: str) -> Sequence[int]:
    """Those of a namespace of host names that haven't ended."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [number for number in numbers if _namespace(number) == name]


def _namespace(process: int) -> str | None:
    """None of a process that has ended."""
    try:
        return str(Path(f"/proc/{process}/ns/uts").readlink())
    except OSError:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def slurm(*, apart: bool = False) -> Iterator[Slurm]:
    """A cluster that runs for as long as this lasts."""
    folder = Path(tempfile.mkdtemp(prefix="optsweep-slurm-", dir="/tmp"))  # the socket's path must be short
    folder.chmod(0o755)
    cluster = Slurm(folder, apart)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def said_by(folder: Path, code: int, *arguments: str) -> str:
    """What a command of optsweep says, which ends with this code."""
    process = start(folder, *arguments)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, said
    return said


def jobs_of(folder: Path, sweep: str) -> Submitted:
    """The jobs that a sweep's command has noted."""
    record = Submitted.read(folder / "mlruns" / "slurm" / sweep)
    assert record is not None
    return record
