"""Arms as a person writes them in Python: 'adamw + cosine', or keys of the config by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from optsweep.config.arm import GROUPS, Arm
from optsweep.config.compose import choices_of, compose
from optsweep.config.door import arms_from
from optsweep.config.wrong import of_hydra
from optsweep.errors import UserError, nearest
from optsweep.yaml_files import in_words

Spoken = str | Mapping[str, Any]


def arms_of(arms: Sequence[Spoken], settings: Mapping[str, Any]) -> list[Arm]:
    """The arms, all of them with `settings`, which are keys of the config too. Raises UserError for what is unknown."""
    if isinstance(arms, (str, Mapping)) or not arms:
        raise UserError("arms: give a list of them, such as ['adamw + cosine', 'soap + schedule_free']")
    named = choices_of(GROUPS)
    wanted = [_keys(arm, named) for arm in arms]
    axes = sorted({key for keys in wanted for key in keys if key not in GROUPS})
    try:
        configs = [compose([_override(*item) for item in {**settings, **keys}.items()]) for keys in wanted]
        return arms_from(configs, axes)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(of_hydra(error)) from None


_BARE = ("optimizer", "schedule", "averaging", "recipe")
_ENDINGS = {" warm-up": "warmup", " decay": "weight_decay"}
"""As labels say them: 'linear warm-up', 'decoupled decay'."""


def _keys(arm: Spoken, named: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Choices and other keys of an arm: of a string, each part is a choice, KEY=VALUE, or an optimizer's path."""
    if isinstance(arm, Mapping):
        return {str(key): value for key, value in arm.items()}
    keys: dict[str, Any] = {}
    for part in (part.strip() for part in str(arm).split(" + ")):
        key, equals, value = part.partition("=")
        if equals:
            keys[key.strip()] = _value(arm, part, value)
            continue
        if re.fullmatch(r"\w+(\.\w+)+", part):
            keys |= {"optimizer": "external", "optimizer._target_": part}
            continue
        ending = next((ending for ending in _ENDINGS if part.endswith(ending)), "")
        groups, choice = ((_ENDINGS[ending],) if ending else _BARE), part.removesuffix(ending)
        group = next((group for group in groups if choice in named[group]), None)
        if group is None:
            known = [choice for group in groups for choice in named[group]]
            raise UserError(
                f"arms: {choice!r} of {arm!r} is no {' or '.join(groups)}{nearest(choice, known)}; there are also "
                f"'linear warm-up', 'decoupled decay' and keys as 'trainer.clip_norm=1'"
            )
        keys[group] = choice
    return keys


def _value(arm: Spoken, part: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"arms: {part!r} of {arm!r} can't be read{in_words(error)}") from None


def search_of(search: int | Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a search: so many trials of each arm (0: none), or what `search` of the config holds, by name.

    The `space` has an entry for each searched key, dots and all: {"task.dropout": {"low": 0, "high": 0.5}}.
    """
    if not isinstance(search, Mapping):
        return {"search.trials": search} if search else {"search": "none"}
    space = search.get("space", {})
    if not isinstance(space, Mapping):
        raise UserError(f"search.space: {space!r} is not allowed; give ranges and lists by key")
    keys = {f"search.{key}": value for key, value in search.items() if key != "space"}
    return keys | {f"search.space.{key}": value for key, value in space.items()}


def _override(key: str, value: Any) -> str:
    """A key and its value as Hydra reads them."""
    return f"{key}={_spelled(value)}"


_BEFORE_QUOTE = re.compile(r"(\\*)('|\Z)")
"""Where Hydra takes backslashes for escapes; elsewhere they are letters."""


def _spelled(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_spelled(found)}" for key, found in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_spelled, value)) + "]"
    if isinstance(value, str):
        return "'" + _BEFORE_QUOTE.sub(lambda found: 2 * found[1] + (found[2] and "\\'"), value) + "'"
    return str(value)


def dotted(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the config from sections by name; what is no section is a choice."""
    keys: dict[str, Any] = {}
    for section, values in sections.items():
        if isinstance(values, Mapping):
            keys |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            keys[section] = values
    return keys
