"""To be run after every change: python -m pytest."""

import optsweep
from mine import train


def test_a_sweep_would_run() -> None:
    found = optsweep.check(train, seconds=5)
    assert found.ok, found
    assert all(optimizer.finite for optimizer in found.tasks[0].optimizers)
