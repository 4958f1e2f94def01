"""How many workers a sweep has, and which devices they are dealt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from optsweep.config.allowed import DEVICE
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch.environment import num_cores
from optsweep.launch.worker.inquiries import Asker, DiedError, Workbench, asked_twice, ended_at_its_start
from optsweep.launch.worker.ranks.torchrun_env import launched

Say = Callable[[str], None]


@dataclass(frozen=True)
class Devices:
    """The request for all devices that a key names: one, or all GPUs."""

    key: str  # trainer.device

    def run(self, bench: Workbench) -> dict[str, str]:
        """Their models, by name. Raises UserError for one that isn't there."""
        import torch

        from optsweep.build.assemble import device_of
        from optsweep.build.machine import device_model

        device = device_of(self.key)
        if device.type == "cuda" and self.key in ("auto", "cuda"):
            found = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
            return {str(device): device_model(device) for device in found}
        return {str(device): device_model(device)}


def deal(
    asker: Asker, arm: Arm, workers: int | None, say: Say = lambda line: None, like: str = ""
) -> tuple[int, list[str]]:
    """Number of workers (0: this process) and the devices to deal out: all of one model, unless others are allowed.

    That is `like` where there is one, else the first one's. `say` hears which are left alone.
    """
    ranks, ours = arm.trainer.ranks, launched()
    if ours is not None:
        ours.check(arm, workers)
    devices = ["cpu"] if arm.trainer.device == "cpu" else _alike(_there(asker, arm.trainer.device), arm, say, like)
    if ours is not None:
        return 1, [ours.first_device(devices)]
    if ranks > 1:
        devices = firsts(devices, ranks, workers)
    if workers is not None:
        return workers, devices
    if devices != ["cpu"]:
        return len(devices), devices
    return max(1, num_cores() // (arm.trainer.threads * ranks)), devices


def firsts(devices: list[str], ranks: int, workers: int | None) -> list[str]:
    """The devices of workers whose trials take several ranks: each has those that follow its own, too."""
    if workers == 0:
        raise UserError(
            f"hydra.launcher.workers: without workers (or as a stock launcher's job) trials are this process's, and "
            f"trainer.ranks={ranks} takes several; give trainer.ranks=1"
        )
    if devices == ["cpu"]:
        return devices
    found: list[str] = []
    left = [int(device.partition(":")[2] or 0) for device in devices]
    while left:
        row = [number for number in left if left[0] <= number < left[0] + ranks]
        found += [f"cuda:{row[0]}"] * (len(row) == ranks)
        left = [number for number in left if number not in row]
    if not found:
        raise UserError(
            f"trainer.ranks: a trial takes {ranks} GPUs whose numbers follow one another, and trainer.device has "
            f"{', '.join(devices)}"
        )
    return found


def _alike(found: Mapping[str, str], arm: Arm, say: Say, like: str) -> list[str]:
    if DEVICE in arm.allow:
        return list(found)
    model = like if like in found.values() else next(iter(found.values()))
    left = {name: other for name, other in found.items() if other != model}
    if left:
        others = ", ".join(f"{name} ({other})" for name, other in left.items())
        say(
            f"trials of a sweep are trained on one model of device, here {model}; left alone: {others}; "
            f"sweep.allow=[{DEVICE}] uses them too, with a caveat in the verdict"
        )
    return [name for name in found if name not in left]


def _there(asker: Asker, key: str) -> Mapping[str, str]:
    try:
        return asked_twice(asker, Devices(key))
    except DiedError as error:
        raise ended_at_its_start(error) from None
