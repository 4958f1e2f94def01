"""The door: a composed Hydra config becomes an `Arm`. Nothing behind it sees a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, open_dict

from optsweep.config.arm import GROUPS, Arm
from optsweep.config.compose import all_choices, axes_of
from optsweep.config.fields import Keyed, Rest, keys_of, parts_of
from optsweep.config.section import Section
from optsweep.config.written_yaml import to_yaml
from optsweep.errors import UserError

K = TypeVar("K", bound=Keyed)


def arm_of(config: DictConfig, axes: Sequence[str] | None = None) -> Arm:
    """The arm that a composed config, with its `hydra` node, describes.

    `axes`: the keys other than groups that tell it from its siblings; None: those that its sweep file sweeps over.
    Raises UserError with one line for whatever is wrong with it.
    """
    choices = {group: str(config.hydra.runtime.choices.get(group, "none")) for group in GROUPS}
    values = {key: _as_typed(OmegaConf.select(config, key)) for key in (axes_of(config) if axes is None else axes)}
    _take_up_own_options(config, choices)
    own = OmegaConf.create({key: config[key] for key in config if key != "hydra"})
    plain = OmegaConf.to_container(own, resolve=True)
    assert isinstance(plain, dict)
    if isinstance(task := plain.get("task"), dict):  # a person's own, given as `own`, has a name of its own
        choices["task"] = str(task.get("name", choices["task"]))
    return read_arm({str(key): value for key, value in plain.items()}, choices, values, to_yaml(plain))


def arms_from(configs: Sequence[DictConfig], axes: Sequence[str]) -> list[Arm]:
    """The arms of a sweep. Raises UserError for a weight decay that is given where none of them has any."""
    arms = [arm_of(config, axes) for config in configs]
    given = [value for config in configs if (value := OmegaConf.select(config, "weight_decay.value"))]
    if given and all(arm.decay.mode == "none" for arm in arms):
        raise UserError(
            f"weight_decay.value: {given[0]} counts for nothing with weight_decay=none; give weight_decay=decoupled"
        )
    return arms


def _take_up_own_options(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Options of one choice of a group, as `optimizer.external._target_`, count for that one and for no other."""
    for group, chosen in choices.items():
        section = config.get(group)
        if not isinstance(section, DictConfig):
            continue
        held = OmegaConf.to_container(section)
        assert isinstance(held, dict)
        nested = [str(key) for key, value in held.items() if isinstance(value, dict)]
        known = all_choices(config, group) if nested else set()
        with open_dict(section):
            for key in known.intersection(nested):
                own = section.pop(key)
                if key == chosen:
                    section.merge_with(own)


def _as_typed(value: object) -> str:
    """A value as the command line has it."""
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def read_arm(config: Mapping[str, Any], choices: Mapping[str, str], axes: Mapping[str, str], yaml: str = "") -> Arm:
    """Validate one composed config (plain containers, no `hydra` node).

    Users may keep keys of their own at the top level, for interpolation; within a section every key is known.
    """
    root = Section(config, "")
    sections: dict[str, Section] = {}
    parts: dict[str, Any] = {name: _read(cls, root, sections) for name, cls in parts_of(Arm).items()}
    own = _values(Arm, root, sections)
    for section in sections.values():
        section.close()
    return Arm(
        choices={group: choices[group] for group in GROUPS if choices.get(group, "none") != "none"},
        axes=dict(sorted(axes.items())),
        yaml=yaml,
        **parts,
        **own,
    )


def _read(cls: type[K], root: Section, sections: dict[str, Section]) -> K:
    return cls(**_values(cls, root, sections))


def _values(cls: type[Keyed], root: Section, sections: dict[str, Section]) -> dict[str, Any]:
    """The values of a dataclass's keys. A key that isn't there is an error, unless its default is None."""
    values, rests = {}, []
    for field in fields(cls):
        key = keys_of(cls).get(field.name)
        if key is None:
            continue
        path, _, name = key.path.partition(".")
        if path not in sections:
            sections[path] = root.section(path)
        if isinstance(key, Rest):
            rests.append((field.name, sections[path]))
        elif field.default is None:
            values[field.name] = sections[path].get(name, None)
        else:
            values[field.name] = sections[path].raw(name)
    return values | {name: section.rest() for name, section in rests}
