"""How the arrays of a task of pieces are parted, and that they are its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import optsweep
from optsweep.tasks.base import Split
from optsweep.tasks.pieces import divided


def test_parts_are_drawn_from_the_seed() -> None:
    labels = np.repeat([0, 1], [90, 10])
    parts = divided(100, labels, (0.2, 0.2), 0)
    assert [len(part) for part in parts] == [60, 20, 20]
    assert [int(labels[part].sum()) for part in parts] == [6, 2, 2]
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert not np.array_equal(parts[1], divided(100, labels, (0.2, 0.2), 1)[1])


@pytest.mark.filterwarnings("error")
def test_arrays_that_are_not_to_be_written_to_are_copied() -> None:
    rows, classes = np.zeros((50, 4), np.float32), np.arange(50) % 2
    rows.setflags(write=False)  # as those of a data frame are
    torch.set_warn_always(True)
    try:
        assert optsweep.Task(lambda: nn.Linear(4, 2), (rows, classes)).size(Split.TRAIN) == 30
    finally:
        torch.set_warn_always(False)
