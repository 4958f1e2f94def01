"""What Hydra and OmegaConf say of a config that can't be composed, in a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from optsweep.config.arm import GROUPS
from optsweep.config.compose import compose
from optsweep.errors import nearest


def of_hydra(error: BaseException) -> str:
    """What Hydra or OmegaConf says, in one line that names the key."""
    text = str(error)
    if match := re.search(r"Could not find '([\w/]+)/([^']*)'.*?Available options in '[^']+':\s*(.*)", text, re.S):
        group, choice, options = match[1], match[2], match[3].partition("Config search path")[0].split()
        return f"{group}={choice}: no such choice{nearest(choice, options)}; there are {', '.join(options)}"
    if match := re.search(r"Cannot find primary config '([^']+)'", text):
        names = _sweep_files()
        return f"-cn {match[1]}: no such sweep{nearest(match[1], names)}; there are {', '.join(names)}"
    if match := re.search(r"Could not (?:override|append to config[^']*) '([^']+)'", text):
        key, known = match[1], _known_keys()
        if key in known:  # its section was taken away
            return f"{key.partition('.')[0]}: a group of keys is wanted"
        return f"{key}: no such key{nearest(key, known)}; optsweep --cfg job shows all of them"
    if match := re.search(r"Missing mandatory value: ([\w.]+)", text):
        which = f"; give {match[1]}=MODULE.NAME" if match[1].endswith("._target_") else ""
        return f"{match[1]}: a value is missing{which}"
    if match := re.search(r"node `(\w+)` is not a container", text):
        return f"{match[1]}: a group of keys is wanted"
    if match := re.search(r"^(.*)\s+full_key: (\S+)", text, re.S):
        text = f"{match[2]}: {match[1]}"
    return " ".join(text.split())[:300]


def _sweep_files() -> list[str]:
    folders = [Path(str(files("optsweep.sweeps"))), Path.cwd() / "sweeps"]
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})


@cache
def _known_keys() -> tuple[str, ...]:
    """All keys of the default config, the groups, and Hydra's one key that is ours."""

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, Mapping):
            return [path]
        return [path, *(k for key, value in node.items() for k in walk(value, f"{path}.{key}" if path else key))]

    plain = OmegaConf.to_container(compose([]), resolve=False)
    return (*GROUPS, *walk(plain, ""), "hydra.launcher.workers")
