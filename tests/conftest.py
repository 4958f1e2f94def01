"""Settings for all tests."""

import os

import pytest
import torch

from patience import PATIENCE_SECONDS

torch.set_num_threads(1)  # tests may run side by side, and their models are too small for more

os.environ.pop("MLFLOW_TRACKING_URI", None)  # a test that wants a store elsewhere says so


@pytest.fixture(autouse=True)
def _delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A courier delivers all before it ends, however slow the machine: here nobody else does what it leaves."""
    monkeypatch.setattr("optsweep.tracking.courier.CLOSING_SECONDS", PATIENCE_SECONDS)
