"""The keys of our Hydra launchers, `hydra.launcher.*`; SLURM's are with what sbatch is told by them.

They aren't beside the launchers: Hydra's scan executes modules of `hydra_plugins` before they are known to Python, in
which no dataclass can be made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from optsweep.checks import Check, checked, flag, number, optional, refuse, whole
from optsweep.config.fields import Key, Keyed
from optsweep.config.sections import MOST_WORKERS, NUM_WORKERS

SECTION = "hydra.launcher"


@dataclass(frozen=True)
class LauncherOptions(Keyed):
    """Keys of `hydra.launcher` that all launchers have."""

    report: Annotated[bool, Key(f"{SECTION}.report", flag)] = True


@dataclass(frozen=True)
class LocalOptions(LauncherOptions):
    """Keys of hydra/launcher=local."""

    workers: Annotated[int | None, Key(f"{SECTION}.workers", NUM_WORKERS)] = None


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
