"""Folders with a store, and the sweep that others are held to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from optsweep.tracking import store
from sweeping import SWEEP, run


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its schema, which takes seconds to create."""
    folder = tmp_path_factory.mktemp("store")
    before = Path.cwd()
    os.chdir(folder)
    try:
        store.check("sqlite:///mlruns/mlflow.db")
    finally:
        os.chdir(before)
    return folder / "mlruns"


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copytree(empty_store, tmp_path / "mlruns")
    return tmp_path


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The sweep, undisturbed, with one worker."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copytree(empty_store, folder / "mlruns")
    run(folder, "-m", *SWEEP, "hydra.launcher.workers=1")
    return folder
