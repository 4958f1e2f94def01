"""What the loop asks of a device: when it is done, how much memory it took, has left, or lacked."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may have."""


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that the clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reset_peak(device: torch.device) -> None:
    """Begin a new measurement of peak memory, where the allocator measures it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Peak memory: of the device's allocator where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on the device, or for this process where it is the machine's; None: nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no such file, or no limit
        most, used = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(0, most - used))
    return free


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def forget_freed(device: torch.device) -> None:
    """Give back what the allocator keeps of memory that was freed, after it ran out."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
