"""A user's config files, as Hydra's source of configs: what is wrong with one is said with its name."""

from __future__ import annotations

from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException

from optsweep.errors import UserError
from optsweep.yaml_files import check_yaml, in_words


class OwnFiles(FileConfigSource):
    """Files below a folder, looked at before they are read."""

    @staticmethod
    def scheme() -> str:
        """Of search path entries."""
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        """As its base does. Raises UserError that names the file."""
        path = Path(self.path) / self._normalize_file_name(config_path)
        name = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
        try:
            check_yaml(path.read_bytes(), name)
            return super().load_config(config_path)
        except yaml.YAMLError as error:  # what only OmegaConf refuses: a key twice
            raise UserError(f"{name}{in_words(error)}") from None
        except OSError as error:
            raise UserError(f"{name}: {error.strerror}") from None
        except OmegaConfBaseException as error:
            raise UserError(f"{name}: {' '.join(str(error).split())}") from None
