"""Where Hydra looks for configs beside the package's own: its sweeps, and the user's conf/ and sweeps/ folders."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OptsweepSearchPath(SearchPathPlugin):
    """Appends sweeps/, and ./conf and ./sweeps of the working directory: a user's own task is a file there."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append; what comes first wins, so a user's file can't shadow one of the package by accident."""
        search_path.append("optsweep", "pkg://optsweep.sweeps")
        for folder in ("conf", "sweeps"):
            path = Path.cwd() / folder
            if path.is_dir():
                search_path.append("user", f"own://{path}")
