"""A sweep's jobs as its planner posts them with the studies, for workers that somebody starts elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import yaml

from optsweep.build.fingerprint import SHOWN, Identity, fingerprint_of
from optsweep.build.machine import Machine, lets
from optsweep.config.arm import GROUPS
from optsweep.config.door import read_arm
from optsweep.errors import UserError, located, without_secrets
from optsweep.launch.continuity import IDENTITY
from optsweep.launch.inquiries import Workbench, patience_of
from optsweep.launch.job import Job
from optsweep.search.studies import Studies
from optsweep.yaml_files import check_yaml

JOB = "job"
"""The note of an arm's job."""


def post(studies: Studies, jobs: Sequence[Job]) -> None:
    """Let the studies have the jobs; one whose task is an object of a script can't be had elsewhere."""
    for job in jobs:
        held = _plain(job)
        if studies.note(job.arm.name, JOB) != held:
            studies.set_note(job.arm.name, JOB, held)


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


def taken_down(noted: Mapping[str, Mapping[str, Any]], storage: str, tracking_uri: str) -> list[Posted]:
    """The jobs that are noted, by arm, over stores as they are seen from here. Raises UserError for one of a script."""
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
        arm = replace(arm, trainer=trainer, storage=storage, tracking_uri=tracking_uri)
        keys = tuple(held["program_keys"])
        machine = Machine(**held["machine"]) if held.get("machine") else None  # one of before didn't say
        job = Job(arm, held["label"], held["fingerprint"], "", keys, held["lanes_key"], held["colour"], machine)
        found.append(Posted(job, Identity(of[IDENTITY]["exact"], of[IDENTITY]["approximate"])))
    return found


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
