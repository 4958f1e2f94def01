"""What a worker's process says by the code that it ends with; 0, 1 and signals have their usual meanings."""

from __future__ import annotations

STORE_FAILED = 3
"""It can't write any more."""

ORPHANED = 4
"""Its parent is gone."""

OVERDUE = 5
"""What it was to do took longer than it may."""

GROUP_LOST = 6
"""Its ranks are gone, and only torchrun can start others."""
