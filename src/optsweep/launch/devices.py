"""How many workers a sweep has, and which devices they are dealt."""

from __future__ import annotations

import torch

from optsweep.build.assemble import device_of
from optsweep.config.arm import Arm
from optsweep.launch.environment import num_cores


def deal(arm: Arm, workers: int | None) -> tuple[int, list[str]]:
    """Number of workers (0: this process) and the devices to deal out."""
    device = device_of(arm.trainer.device)
    devices = [str(device)]
    if device.type == "cuda" and arm.trainer.device in ("auto", "cuda"):
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if workers is not None:
        return workers, devices
    if device.type != "cpu":
        return len(devices), devices
    return max(1, num_cores() // arm.trainer.threads), devices
