"""What a planner gives its workers: arms, ready to be worked."""

from __future__ import annotations

from dataclasses import dataclass

from optsweep.build.machine import Machine
from optsweep.config.arm import Arm


@dataclass(frozen=True)
class Job:
    """An arm as workers get it."""

    arm: Arm
    label: str
    fingerprint: str
    parent_run: str
    program_keys: tuple[str, ...] = ()  # searched keys in which trials that train together are alike
    lanes_key: str = ""  # what is remembered of its lanes; empty: nothing
    colour: str = ""  # in MLflow's charts
    machine: Machine | None = None  # on which its trials began; None: nobody knows
