"""The machine that a trial is trained on, as far as it decides a trial's last bits: the device's model, the versions.

All else of a fingerprint is the arm's. What of the machine may differ between trials of a sweep, `sweep.allow` says.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.config.allowed import DEVICE, VERSIONS

if TYPE_CHECKING:  # a planner compares machines, and has no use for a second of torch
    import torch

THE_DEVICE = "the device"
TORCH, PYTHON = "versions.torch", "versions.python"

THEN = ", then "

PARTS = {DEVICE: (THE_DEVICE,), VERSIONS: (TORCH, PYTHON)}
"""The parts of a fingerprint that are the machine's, by the word under which they may differ.

Torch's release decides which kernels and initialisers run, Python's what code of the user's and its random generators
do. What CUDA, its driver and numpy change beyond rounding shows in the first batch, the first loss and its gradient.
"""


@dataclass(frozen=True)
class Machine:
    """A device's model, and the versions beside it."""

    device: str
    torch_version: str
    python_version: str

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """This process's, with that device."""
        import torch

        return cls(device_model(device), torch.__version__.split("+")[0], platform.python_version())

    @classmethod
    def noted(cls, content: Mapping[str, Any], exact: Mapping[str, Any]) -> Machine:
        """That of an arm's content and identity; what isn't noted is empty."""
        return cls(*(str({**content, **exact}.get(key, "")) for key in (THE_DEVICE, TORCH, PYTHON)))

    @property
    def parts(self) -> Mapping[str, str]:
        """As a fingerprint has them."""
        return {THE_DEVICE: self.device, TORCH: self.torch_version, PYTHON: self.python_version}

    @property
    def by_package(self) -> Mapping[str, str]:
        """The versions, as an arm's content has them under `versions`."""
        return {"torch": self.torch_version, "python": self.python_version}

    @property
    def versions(self) -> str:
        """In words."""
        return f"torch {self.torch_version}, Python {self.python_version}"

    @property
    def words(self) -> Mapping[str, str]:
        """What it is, by the word under which it may differ."""
        return {DEVICE: self.device, VERSIONS: self.versions}

    def parts_of(self, allow: Collection[str]) -> Mapping[str, str]:
        """The parts that may differ."""
        return {key: self.parts[key] for key in keys_of(allow)}

    def differences(self, before: Machine, allow: Collection[str]) -> Iterator[str]:
        """What differs and may not, in words."""
        for key, now in self.parts.items():
            then = before.parts[key]
            if key not in keys_of(allow) and then not in ("", now):
                yield f"{key} was {then}, is {now}"

    def others(self, before: Machine) -> Mapping[str, str]:
        """What it is in place of what was before, by the word under which it may differ."""
        return {word: said for word, said in self.words.items() if before.words[word] != said}


def lets(differences: Sequence[str]) -> str:
    """What would let all of these differ, "sweep.allow=[device] lets trials differ in that"; empty: nothing would."""
    starts = {word: tuple(f"{key} was " for key in keys) for word, keys in PARTS.items()}
    found = {word: sum(text.startswith(start) for text in differences) for word, start in starts.items()}
    words = [word for word, count in found.items() if count]
    every = words and sum(found.values()) == len(differences)
    return f"sweep.allow=[{','.join(words)}] lets trials differ in that" if every else ""


def one_after_the_other(before: str, now: str) -> str:
    """ "A, then B": what a trial has been trained on, and is."""
    return before if before.rpartition(THEN)[2] == now else f"{before}{THEN}{now}"


def keys_of(allow: Collection[str]) -> frozenset[str]:
    """The parts of a fingerprint that may differ."""
    return frozenset(key for word in allow for key in PARTS[word])


@lru_cache(maxsize=8)
def device_model(device: torch.device) -> str:
    """What the device is, as its maker names it: a GPU, or the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{processor()} ({device.type})" if device.type != "cpu" else processor()


def processor() -> str:
    """The processor's name, as its maker gives it where the system tells that."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines() if cpu.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
