"""To be run after every change: python -m pytest."""

import optsweep
from mine import task


def test_a_sweep_would_run_and_the_loss_falls() -> None:
    found = optsweep.check(task(), seconds=5)
    assert found.ok, found
    adamw = found.tasks[0].optimizers[0]
    assert adamw.losses[1] < adamw.losses[0]  # means of its first ten steps and of the next ten
