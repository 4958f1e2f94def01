"""How soon a sweep trains on a Ray cluster that runs: 16 workers on two nodes, all of them on this machine.

    PYTHONPATH=tests python benchmarks/ray_start.py [ROUNDS]

Seconds from the command on: until the first trial begins, until one has a result, until every worker has had a trial.
And the processor's seconds that command and actors had taken when the first trial began, which others on the machine
don't change: what it would take if all of it came one after the other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from optsweep.search.studies import Studies
from servers.ray_parts import actors, ray_cluster
from servers.watched import num_done

WORKERS, ROUNDS = 16, 3
PATIENCE_SECONDS = 180.0
SWEEP = [
    *("task=digits_mlp", "optimizer=adamw,momentum", "search.trials=64", "search.sampler=quasi-random"),
    *("confirm.seeds=1", "trainer.steps=2000", "trainer.lanes=1", "hydra.launcher.report=false", "sweep.name=start"),
]


def measured(address: str) -> dict[str, float]:
    """Seconds until each of it, of one sweep, which is stopped then."""
    keys = ["hydra/launcher=ray", f"hydra.launcher.address={address}", f"hydra.launcher.workers={WORKERS}"]
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/mlruns/optuna.db"
        command = [sys.executable, "-m", "optsweep", "-m", *SWEEP, *keys]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True)
        found: dict[str, float] = {}
        seen: set[str] = set()
        while process.poll() is None and len(found) < 4 and time.monotonic() - began < PATIENCE_SECONDS:
            time.sleep(0.1)
            if not Path(folder, "mlruns", "optuna.db").exists():
                continue
            seen |= _at_work(storage)
            now = time.monotonic() - began
            if seen and "first trial begins" not in found:
                found["first trial begins"] = now
                found["of the processor"] = sum(map(_cpu_seconds, [psutil.Process(process.pid), *actors()]))
            if num_done(storage, "start"):
                found.setdefault("first result", now)
            if len(seen) == WORKERS:
                found.setdefault("all at work", now)
        os.kill(process.pid, signal.SIGINT)
        process.wait()
    return found


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.Error:
        return 0.0


def _at_work(storage: str) -> set[str]:
    try:
        signs = Studies.open(storage, "start").signs_of_life(60.0)
    except Exception:  # its tables are just made
        return set()
    return {sign.process for sign in signs if sign.trials is not None}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with ray_cluster(WORKERS // 2, WORKERS // 2) as cluster:
        for number in range(rounds):
            found = measured(cluster.address)
            said = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in found.items())
            print(f"round {number + 1}: {said} (load {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    main()
