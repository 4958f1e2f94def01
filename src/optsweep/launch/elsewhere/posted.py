"""A sweep's jobs as its planner posts them with the studies, for workers that somebody starts elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from optsweep.build.fingerprint import SHOWN, Identity, fingerprint_of
from optsweep.build.machine import Machine, lets
from optsweep.config.arm import GROUPS
from optsweep.config.door import read_arm
from optsweep.errors import UserError, located, without_secrets
from optsweep.launch.prepare.continuity import IDENTITY
from optsweep.launch.worker.inquiries import Workbench, patience_of
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.shared_folder import CHECKPOINTS, KEY, check_folder, make_mark, read_mark
from optsweep.search.studies import Studies
from optsweep.yaml_files import check_yaml

JOB = "job"
"""The note of an arm's job."""


def post(studies: Studies, jobs: Sequence[Job]) -> list[str]:
    """Let the studies have the jobs; one whose task is an object of a script can't be had elsewhere.

    Returns what is to be said of the folder of checkpoints, which is made: another one than before has none of them.
    Raises UserError where that can't be.
    """
    folder = jobs[0].arm.checkpoints
    now = None if folder is None else [str(folder), make_mark(folder)]
    first = jobs[0].arm.name
    was = now if studies.note(first, JOB) is None else studies.note(first, CHECKPOINTS)
    for job in jobs:
        for key, held in ((JOB, _plain(job)), (CHECKPOINTS, now)):
            if studies.note(job.arm.name, key) != held:
                studies.set_note(job.arm.name, key, held)
    if (was and was[1]) == (now and now[1]):
        return []
    here, there = (place[0] if place else "null" for place in (now, was))
    return [f"{KEY}: {here} instead of {there}: what was cut off in training starts anew"]


def _plain(job: Job) -> dict[str, Any]:
    arm = job.arm
    return {
        "label": job.label,
        "config": "" if arm.task.pickled else without_secrets(arm.yaml),
        "choices": dict(arm.choices),
        "axes": dict(arm.axes),
        "lanes": arm.trainer.given_lanes or 1,
        "fingerprint": job.fingerprint,
        "program_keys": list(job.program_keys),
        "lanes_key": job.lanes_key,
        "colour": job.colour,
        "machine": None if job.machine is None else asdict(job.machine),
    }


@dataclass(frozen=True)
class Posted:
    """An arm's job as it was posted, and what its trials are."""

    job: Job
    identity: Identity


def taken_down(
    noted: Mapping[str, Mapping[str, Any]], storage: str, tracking_uri: str, checkpoints: Path | None = None
) -> list[Posted]:
    """The jobs that are noted, by arm, over stores and a folder as they are seen from here; None: as it was posted.

    Raises UserError for one of a script.
    """
    found = []
    for name, of in noted.items():
        held = of[JOB]
        if not held["config"]:
            raise UserError(
                f"{name}: its task is an object of the script that called optsweep.compare, which no other process "
                f"has; give it as a module's (task=own task._target_=MODULE.NAME)"
            )
        check_yaml(held["config"].encode(), f"{name}: its config in the storage")
        choices = {key: value for key, value in held["choices"].items() if key in GROUPS}
        arm = read_arm(yaml.safe_load(held["config"]), choices, held["axes"], held["config"])
        trainer = replace(arm.trainer, lanes=held["lanes"])
        folder = checkpoints or (Path(there[0]) if (there := of.get(CHECKPOINTS)) else None)
        arm = replace(arm, trainer=trainer, storage=storage, tracking_uri=tracking_uri, checkpoints=folder)
        keys = tuple(held["program_keys"])
        machine = Machine(**held["machine"]) if held.get("machine") else None  # one of before didn't say
        job = Job(arm, held["label"], held["fingerprint"], "", keys, held["lanes_key"], held["colour"], machine)
        found.append(Posted(job, Identity(of[IDENTITY]["exact"], of[IDENTITY]["approximate"])))
    return found


def check_shared(noted: Mapping[str, Mapping[str, Any]], given: Path | None) -> str:
    """Hold the folder of checkpoints that a sweep has here against that of its planner; what is to be known of it.

    Raises UserError where one that nobody chose for this machine isn't that folder here, and for one that can't be had.
    """
    there = next((of[CHECKPOINTS] for of in noted.values() if of.get(CHECKPOINTS)), None)
    if given is not None:
        check_folder("--checkpoints", given, is_there=True)
    if there is None:
        return ""
    path, mark = there
    here = given or Path(path)
    if read_mark(here) == mark:
        check_folder(KEY, here)
        return ""
    if given is None:
        raise UserError(
            f"{KEY}: {path}, where the sweep is planned, isn't that folder on this machine; mount it there, or say "
            f"where it is: --checkpoints FOLDER"
        )
    return f"--checkpoints: {given} isn't the folder of the sweep's planner: a trial that changes over starts anew"


@dataclass(frozen=True)
class ToCompare:
    """The request to build arms, and to hold them against what their trials are."""

    posted: Sequence[Posted]

    def run(self, bench: Workbench) -> list[str]:
        """What is another here, in words, by arm; empty: nothing."""
        return [self._differences(bench, held) for held in self.posted]

    def _differences(self, bench: Workbench, held: Posted) -> str:
        bench.begin(held.job.label, patience_of(held.job.arm))
        try:
            built = bench.builds().of(held.job.arm)
        except UserError as error:
            return str(error)
        except Exception as error:
            return located(error)
        job, allow = held.job, held.job.arm.allow
        here = Machine.of(built.program.device)
        there = here if job.machine is None else job.machine
        differs = built.identity.differences(held.identity, allow)
        same = fingerprint_of({**built.content, **built.identity.exact, **there.parts_of(allow)}) == job.fingerprint
        if same and not differs:
            return ""
        differs = list(dict.fromkeys([*differs, *here.differences(there, allow)]))
        said = "; ".join(differs[:SHOWN]) or "it has other settings here"
        return f"{said} ({lets(differs)})" if lets(differs) else said
