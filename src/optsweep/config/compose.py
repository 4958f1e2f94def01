"""Composing configs with Hydra, without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_loader import ConfigLoader
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
            said = [line for line in error.message.splitlines() if line and "https://" not in line]
            raise UserError(
                f"{shown(key)}: {shown(value)} can't be read ({said[-1][:100]}); quote what is no plain word: "
                f"'{key[:MOST_SHOWN]}=\"…\"'"
            ) from None


def choices_of(groups: Sequence[str]) -> dict[str, list[str]]:
    """The choices that each config group has."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("optsweep.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return {group: loader.get_group_options(group) for group in groups}


def axes_of(config: DictConfig, overrides: Sequence[str] = ()) -> list[str]:
    """Keys, other than groups, that are swept over by a sweep file or by overrides: they tell arms apart."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    lines = [*opened(overrides), *(f"{key}={value}" for key, value in params.items())]
    keys = [o.key_or_group for o in OverridesParser.create().parse_overrides(lines) if o.is_sweep_override()]
    return sorted({key for key in keys if key not in GROUPS})


def register(*plugins: type[Plugin]) -> None:
    """Tell Hydra of the search path and of other plugins: it finds them itself, but not in an editable installation."""
    known = {cls.__qualname__ for cls in Plugins.instance().discover(Plugin)}
    wanted: tuple[type[Plugin], ...] = (OptsweepSearchPath, OwnFiles, *plugins)
    for cls in wanted:
        if cls.__qualname__ not in known:
            Plugins.instance().register(cls)


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
