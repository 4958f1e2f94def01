"""The machine and the versions that a sweep ran with."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version

import psutil

from optsweep.build.machine import processor
from optsweep.tracking.schema import Environment
from optsweep.tracking.source import git_commit

PACKAGES = ("optsweep", "torch", "numpy", "optuna", "mlflow", "hydra-core", "scipy", "scikit-learn", "matplotlib")


def num_cores() -> int:
    """CPU cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(device: str) -> Environment:
    """What a reader needs to judge the numbers: machine, device, versions, commit."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=num_cores(),
        memory_bytes=psutil.virtual_memory().total,
        device=_name_of(device),
        packages=packages,
        git_commit=git_commit(),
    )


def _name_of(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch  # not above: who asks for the number of cores has no use for a second of torch

    return torch.cuda.get_device_name(device)


@contextmanager
def without_script() -> Iterator[None]:
    """Processes started inside don't run the user's script again, so it needs no guard `if __name__ == "__main__"`.

    multiprocessing does so to find what the script defines; here that travels by value. A main module whose name
    ends in __main__ is left out there.
    """
    main = sys.modules["__main__"]
    before = main.__spec__
    main.__spec__ = ModuleSpec("optsweep.__main__", None)
    try:
        yield
    finally:
        main.__spec__ = before
