"""Composing configs with Hydra, without running anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import OverrideParseException
from hydra.plugins.plugin import Plugin
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.optsweep.own_files import OwnFiles
from hydra_plugins.optsweep.search_path import OptsweepSearchPath
from optsweep.checks import MOST_SHOWN, shown
from optsweep.config.arm import GROUPS
from optsweep.config.package_files import PackageFiles
from optsweep.config.search_space import opened
from optsweep.errors import UserError


def compose(overrides: Sequence[str], name: str = "config", folder: Path | None = None) -> DictConfig:
    """A config (or a sweep, by its name), `hydra` node included; of a grid the first cell.

    `folder` is searched for configs too. Raises UserError for a group without a choice, and what Hydra raises.
    """
    if folder is not None and not folder.is_dir():
        raise UserError(f"--config-dir: there is no folder {folder}")
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("optsweep.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        first = list(_first_cell(OverridesParser.create(loader).parse_overrides(opened(overrides)), loader))
        beside = [f"hydra.searchpath=[own://{folder.absolute()}]"] if folder else []
        return hydra_compose(name, [*first, *beside], return_hydra_config=True)


def cells(overrides: Sequence[str], name: str = "config", folder: Path | None = None) -> list[DictConfig]:
    """The configs of a grid, in the order of its jobs; arguments and errors as those of `compose`."""
    params = OmegaConf.select(compose(overrides, name, folder), "hydra.sweeper.params") or {}
    lines = [*(f"{key}={value}" for key, value in params.items()), *opened(overrides)]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(lines), None)[0]
    return [compose(job, name, folder) for job in jobs]


def contents_of(group: str) -> dict[str, Mapping[str, Any]]:
    """What each choice of a config group says, the user's own ones included; one that lacks a value is left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for choice in choices_of([group])[group]:
        with initialize_config_module("optsweep.conf", version_base="1.3"):
            content = OmegaConf.to_container(hydra_compose(f"{group}/{choice}").get(group) or OmegaConf.create())
        if isinstance(content, dict) and "???" not in content.values():
            found[choice] = {str(key): value for key, value in content.items()}
    return found


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise UserError, which names the key, for an argument that Hydra's grammar can't read."""
    parser = OverridesParser.create()
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals and not override.startswith("~"):
            raise UserError(f"{override}: neither a verb of optsweep nor KEY=VALUE")
        try:
            parser.parse_overrides(opened([override]))
        except OverrideParseException as error:
            raise UserError(
                f"{shown(key)}: {shown(value)} can't be read ({_said(error.message)}); quote what is no plain word: "
                f"'{key[:MOST_SHOWN]}=\"…\"'"
            ) from None


def _said(message: str) -> str:
    """What Hydra's grammar says of an argument, in a line; where it only points with a caret, at what."""
    *before, last = [line for line in message.splitlines() if line and "https://" not in line]
    return f"at {before[-1][last.index('^')]!r}" if before and last.strip() == "^" else last[:100]


def choices_of(groups: Sequence[str]) -> dict[str, list[str]]:
    """The choices that each config group has."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("optsweep.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return {group: loader.get_group_options(group) for group in groups}


def all_choices(config: DictConfig, group: str) -> set[str]:
    """The choices of a group in all places that a composed config, with its `hydra` node, was searched for in."""
    found: set[str] = set()
    for source in config.hydra.runtime.config_sources:
        if source.schema in _FOLDERS and (folder := _FOLDERS[source.schema](source.path) / group).is_dir():
            found |= {file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")}
    return found


_FOLDERS: Mapping[str, Callable[[str], Traversable]] = {"pkg": files, "file": Path, OwnFiles.scheme(): Path}


def axes_of(config: DictConfig, overrides: Sequence[str] = ()) -> list[str]:
    """Keys, other than groups, that are swept over by a sweep file or by overrides: they tell arms apart."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    lines = [*opened(overrides), *(f"{key}={value}" for key, value in params.items())]
    keys = [o.key_or_group for o in OverridesParser.create().parse_overrides(lines) if o.is_sweep_override()]
    return sorted({key for key in keys if key not in GROUPS})


def register(*plugins: type[Plugin]) -> None:
    """Tell Hydra of the search path and of other plugins: it finds them itself, but not in an editable installation."""
    known = {_place_of(cls) for cls in Plugins.instance().discover(Plugin)}
    wanted: tuple[type[Plugin], ...] = (OptsweepSearchPath, OwnFiles, *plugins)
    for cls in wanted:
        if _place_of(cls) not in known:
            Plugins.instance().register(cls)
    PackageFiles.register()
    _prefer_own_launchers()


def _place_of(cls: type[Plugin]) -> str:
    """Other packages have classes of the same names, and one that Hydra's scan has executed again is another object."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _prefer_own_launchers() -> None:
    """Forget what plugins call as we call a launcher: Hydra would hold our file against theirs, and refuse it."""
    theirs = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for file in files("optsweep.conf").joinpath("hydra", "launcher").iterdir():
        theirs.pop(file.name, None)


def _first_cell(overrides: Sequence[Override], loader: ConfigLoader) -> Iterator[str]:
    """The overrides with the first of each one's swept values. Raises UserError for what can't be a group's choice."""
    for override in overrides:
        swept = override.is_sweep_override()
        group, options = override.key_or_group, loader.get_group_options(override.key_or_group)
        if options and not override.is_delete():
            for choice in override.sweep_iterator() if swept else [override.value()]:
                if not isinstance(choice, str):
                    shown = "null" if choice is None else choice
                    raise UserError(f"{group}={shown}: no such choice; there are {', '.join(options)}")
        if swept:
            first = next(override.sweep_string_iterator(), None)
            if first is None:
                raise UserError(f"{override.input_line}: there is nothing to sweep over")
            yield f"{override.get_key_element()}={first}"
        else:
            yield str(override.input_line)
