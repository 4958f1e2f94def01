"""A user's config files, as Hydra's source of configs: what is wrong with one is said with its name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException

from optsweep.errors import UserError
from optsweep.yaml_files import check_yaml, in_words


class OwnFiles(FileConfigSource):
    """Files below a folder, looked at before they are read; each is read once, as long as it isn't written again."""

    _read: ClassVar[dict[Path, tuple[tuple[int, int], ConfigResult]]] = {}

    @staticmethod
    def scheme() -> str:
        """Of search path entries."""
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        """As its base does. Raises UserError that names the file."""
        path = Path(self.path) / self._normalize_file_name(config_path)
        name = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
        try:
            found = path.stat()
            state = found.st_mtime_ns, found.st_size
            if path not in self._read or self._read[path][0] != state:
                check_yaml(path.read_bytes(), name)
                self._read[path] = state, super().load_config(config_path)
            return copy.deepcopy(self._read[path][1])  # Hydra takes the list of defaults out of it
        except yaml.YAMLError as error:  # what only OmegaConf refuses: a key twice
            raise UserError(f"{name}{in_words(error)}") from None
        except OSError as error:
            raise UserError(f"{name}: {error.strerror}") from None
        except OmegaConfBaseException as error:
            raise UserError(f"{name}: {' '.join(str(error).split())}") from None
