"""Config files of installed packages, as Hydra's source of configs: each is read once in a process.

Hydra reads all of them again for every job of a multirun, and parsing YAML was half of what that took. It isn't in
`hydra_plugins`, whose classes Hydra registers itself: it has a source of this scheme, and refuses a second one.
"""

from __future__ import annotations

import copy
from typing import ClassVar

from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult, ConfigSource


class PackageFiles(ImportlibResourcesConfigSource):
    """Files of a package, which don't change while a process runs."""

    _read: ClassVar[dict[tuple[str, str], ConfigResult]] = {}
    _kinds: ClassVar[dict[tuple[str, str, str], bool]] = {}
    _before: ClassVar[list[type[ConfigSource]]] = []

    def load_config(self, config_path: str) -> ConfigResult:
        """As its base does. A copy, since Hydra takes the list of defaults out of it."""
        key = self.path, config_path
        if key not in self._read:
            self._read[key] = super().load_config(config_path)
        return copy.deepcopy(self._read[key])

    def is_group(self, config_path: str) -> bool:
        """Whether it is a folder."""
        key = self.path, config_path, "group"
        if key not in self._kinds:
            self._kinds[key] = super().is_group(config_path)
        return self._kinds[key]

    def is_config(self, config_path: str) -> bool:
        """Whether it is a file."""
        key = self.path, config_path, "config"
        if key not in self._kinds:
            self._kinds[key] = super().is_config(config_path)
        return self._kinds[key]

    @classmethod
    def register(cls) -> None:
        """Take the place of Hydra's own source in this process."""
        types = SourcesRegistry.instance().types
        if types[cls.scheme()] is not cls:
            cls._before.append(types[cls.scheme()])
        types[cls.scheme()] = cls

    @classmethod
    def withdraw(cls) -> None:
        """Give Hydra's own source its place again: launchers copy the registry into jobs, which register it there."""
        if cls._before:
            SourcesRegistry.instance().types[cls.scheme()] = cls._before.pop()
