"""Arms for tests, through the real door but without a Hydra composition for each: the groups' YAMLs over one base."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import yaml
from omegaconf import OmegaConf

from drive import CONF
from optsweep.config.arm import GROUPS, Arm
from optsweep.config.compose import compose
from optsweep.config.door import read_arm


def names_in(group: str) -> list[str]:
    """Every choice of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def _base() -> dict[str, Any]:
    config = compose(["task=digits_mlp", "search=none", "sweep.name=test"])
    plain = OmegaConf.to_container(OmegaConf.create({k: v for k, v in config.items() if k != "hydra"}), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@cache
def _choice(group: str, choice: str) -> Any:
    return yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())


def arm_with(choices: dict[str, str], without: Sequence[str] = (), /, **values: Any) -> Arm:
    """The arm of `choices` (group → choice) on digits_mlp without search; `values` are keys as `optimizer__lr`.

    `without` are keys that its config doesn't have.
    """
    config = deepcopy(_base())
    for key in without:
        group, _, name = key.partition(".")
        del config[group][name]
    for group, choice in choices.items():
        config[group] = deepcopy(_choice(group, choice))
    for key, value in values.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    default = {"task": "digits_mlp", "optimizer": "adamw", "schedule": "cosine", "warmup": "linear"}
    chosen = {**dict.fromkeys(GROUPS, "none"), **default, **choices}
    return read_arm(config, chosen, {})
