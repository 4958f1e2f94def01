"""The `ray` launcher: the planner in this process, workers as actors on a Ray cluster, or a Ray of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from optsweep.checks import Check, checked, number, optional, refuse, whole
from optsweep.config.fields import Key
from optsweep.config.sections import MOST_WORKERS
from optsweep.launcher import SECTION, LauncherOptions, SweepLauncher

if TYPE_CHECKING:
    from optsweep.api import Finished
    from optsweep.config.arm import Arm
    from optsweep.launch.events import Observer
    from optsweep.launch.pool import Pool


def _address(key: str, value: object) -> str | None:
    if value is None:
        return None
    found = re.fullmatch(r"auto|(ray://)?[\w.\-\[\]:]+:(\d{1,5})", value) if isinstance(value, str) else None
    if found is None or int(found[2] or 0) > 65_535:
        raise refuse(key, value, "auto, HOST:PORT, ray://HOST:PORT, or null (a Ray of this machine's own)")
    return found[0]


def _amount(key: str, value: object, *, also: str = "") -> float:
    """Of a resource: a whole number, or less than one, where several share it."""
    amount = number(key, value, least=0.0, most=1e6, also=also)
    if amount > 1 and amount % 1:
        raise refuse(key, value, f"a whole number, or a part of one{also}")
    return amount


def _mapping(of: Check | None) -> Check:
    """Of values by name; null: none."""

    def check(key: str, value: object) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise refuse(key, value, "values by name, such as {NAME: 1}, or null")
        return {str(name): of(f"{key}.{name}", held) if of else held for name, held in value.items()}

    return check


def _runtime_env(key: str, value: object) -> Mapping[str, Any]:
    """What else is wrong in it Ray says."""
    env: Mapping[str, Any] = _mapping(None)(key, value)
    excludes = env.get("excludes", [])
    if not isinstance(excludes, list) or not all(isinstance(pattern, str) for pattern in excludes):
        raise refuse(f"{key}.excludes", excludes, "a list of patterns as .gitignore has them, such as [data]")
    return env


@dataclass(frozen=True)
class RayOptions(LauncherOptions):
    """Keys of hydra/launcher=ray."""

    workers: Annotated[int | None, Key(f"{SECTION}.workers", optional(whole, most=MOST_WORKERS))] = None
    address: Annotated[str | None, Key(f"{SECTION}.address", _address)] = None
    num_cpus: Annotated[float | None, Key(f"{SECTION}.num_cpus", optional(_amount))] = None
    num_gpus: Annotated[float | None, Key(f"{SECTION}.num_gpus", optional(_amount))] = None
    resources: Annotated[Mapping[str, float], Key(f"{SECTION}.resources", _mapping(checked(_amount)))] = field(
        default_factory=dict
    )
    runtime_env: Annotated[Mapping[str, Any], Key(f"{SECTION}.runtime_env", _runtime_env)] = field(default_factory=dict)


class RayLauncher(SweepLauncher[RayOptions]):
    """Runs the trials in actors."""

    declared = RayOptions

    def run(self, arms: Sequence[Arm], observe: Observer) -> Finished:
        """Run the sweep."""
        from optsweep import api

        def make_pool() -> Pool:
            return _pool(self.options, arms[0])

        options, command = self.options, self.command.line
        return api.run(
            arms, workers=options.workers, report=options.report, command=command, observe=observe, make_pool=make_pool
        )


def _pool(options: RayOptions, first: Arm) -> Pool:
    from optsweep.launch.pools.ray import RayPool
    from optsweep.launch.pools.ray_cluster import Needs, RayPlace
    from optsweep.tracking.store import preload

    threads, ranks = first.trainer.threads, first.trainer.ranks
    gpus = 0.0 if first.trainer.device == "cpu" and options.num_gpus is None else options.num_gpus
    cpus = float(threads * ranks) if options.num_cpus is None else options.num_cpus
    place, needs = RayPlace(options.address, options.runtime_env), Needs(cpus, gpus, options.resources, ranks)
    return RayPool(threads, place, needs, options.workers, meanwhile=preload)
