"""What a trial of a user's loop is about, and what comes out of it while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Terms:
    """What the function is told."""

    steps: int  # the budget, in optimizer steps
    rungs: tuple[int, ...]  # steps after which it reports; the last is the budget
    hyper: Mapping[str, float]
    seed: int
    batch_size: int
    device: torch.device
    test: bool  # whether a test loss is wanted at the end
    log_every: int = 10
    stop_after: int | None = None  # steps after which a run that is no trial has shown enough
    timed: tuple[int, ...] = ()  # steps after which seconds are taken; the last one ends the run
    rehearsal: bool = False
