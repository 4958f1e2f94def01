"""Reads the paths that trials on a two-dimensional surface left in MLflow as path.csv."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow.tracking import MlflowClient


def recorded_surface(params: Mapping[str, str]) -> str:
    """The surface that an arm's trials record their path on, as the arm's own params say; else nothing."""
    recorded = params.get("task.record", "0")
    return params.get("task.surface", "") if recorded.isdigit() and int(recorded) > 1 else ""


def read_path(client: MlflowClient, run_id: str) -> NDArray[np.float64] | None:
    """Points (x, y) of a run's path.csv (step, x, y), `[steps, 2]`; None where it is missing or unreadable."""
    from mlflow.exceptions import MlflowException

    try:
        with tempfile.TemporaryDirectory() as folder:
            file = client.download_artifacts(run_id, "path.csv", folder)
            rows = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2, usecols=(1, 2))
    except (OSError, ValueError, MlflowException):
        return None
    return rows if len(rows) > 1 else None
