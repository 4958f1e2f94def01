"""To be run after every change: python -m pytest."""

import optsweep
from mine import train


def test_a_sweep_would_run_and_the_loss_falls() -> None:
    found = optsweep.check(train, seconds=5)
    assert found.ok, found
    adamw = found.tasks[0].optimizers[0]
    assert adamw.losses[1] < adamw.losses[0]  # on the validation data, after ten steps and after twenty
