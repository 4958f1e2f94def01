"""How a sweep's jobs stand, in lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from optsweep.errors import UserError
from optsweep.launch.slurm import cluster
from optsweep.launch.slurm.record import SlurmJob, Submitted, folder_of, log_of, outcome_of

States = Mapping[str, cluster.JobState]


def standing(record: Submitted, states: States, folder: Path, silent: Collection[str] = ()) -> Iterator[str]:
    """Of the job that plans, and of the workers together; `silent` are nodes that aren't heard of."""
    planner = record.planner
    yield f"planner: job {planner.id}, {_state(planner, states, folder, silent)}; log: {log_of(folder, planner)}"
    counts = Counter(_state(job, states, folder, silent) for job in record.workers)
    if counts:
        told = ", ".join(f"{count} {said}" for said, count in counts.items())
        yield f"workers: job {numbers(record.workers)}: {told}"


def lines_of(sweep: str) -> Iterator[str]:
    """Of a sweep that was submitted from this folder; nothing where none was, or SLURM is away."""
    folder = folder_of(sweep)
    if (record := Submitted.read(folder)) is not None:
        with suppress(UserError, OSError):
            yield from standing(record, cluster.states(), folder, cluster.silent_nodes())


def numbers(jobs: Sequence[SlurmJob]) -> str:
    """Those that SLURM gave, of an array's tasks once."""
    return ", ".join(dict.fromkeys(job.array for job in jobs))


def _state(job: SlurmJob, states: States, folder: Path, silent: Collection[str]) -> str:
    if (outcome := outcome_of(folder, job)) is not None:
        return "has ended" if outcome.code == 0 else f"has ended with exit code {outcome.code} ({outcome.said})"
    if (held := states.get(job.id)) is None:
        return "is gone"
    where = f" on {held.node}" if held.node else ""
    where += ", which doesn't answer" if held.node in silent else ""
    why = f" ({held.reason})" if held.reason != "None" else ""
    return f"{held.state.lower()}{where}{why}"
