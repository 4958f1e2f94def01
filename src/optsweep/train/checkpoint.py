"""What a trial has come to between two steps, as plain data, and who keeps it.

Nothing random is kept: what a step draws is a function of (seed, step). Lanes are kept one by one, as a trial may go on
in other company than it began in.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from optsweep.train.traits import numbers_of

Saved = Mapping[str, Any]
"""Tensors, numbers and texts, in dictionaries, lists and tuples: what torch.load(weights_only=True) reads.

That of a whole trial says at which `step` it is.
"""


class Checkpointer(Protocol):
    """Keeps what trials, named by their `key`, have come to. Where they pause is decided here."""

    @property
    def due(self) -> float:
        """From when on, by time.perf_counter(), trials are to pause between two steps; at rungs they always do."""

    def begin(self) -> None:
        """Some trials begin to train together."""

    def saved(self, key: int) -> Saved | None:
        """What a trial is to go on from; None: it begins."""

    def unfit(self, keys: Collection[int], error: Exception) -> None:
        """What was kept of these trials doesn't fit: they begin anew."""

    def pause(self, states: Callable[[], Mapping[int, Saved]]) -> None:
        """Trials pause; `states` are those of all that haven't ended, by key. May raise, to end them."""


class NoCheckpoints:
    """Nothing is kept."""

    due = math.inf

    def begin(self) -> None:
        """Nothing."""

    def saved(self, key: int) -> Saved | None:
        """Nothing."""
        return None

    def unfit(self, keys: Collection[int], error: Exception) -> None:
        """Nothing."""

    def pause(self, states: Callable[[], Mapping[int, Saved]]) -> None:
        """Nothing."""


NO_CHECKPOINTS = NoCheckpoints()


class NotPlainError(Exception):
    """A state holds something that can't be kept; says where and what."""


def places(device: torch.device) -> dict[str, str]:
    """What lay on a GPU goes to this process's; what lay on the host stays there, as optimizers want it."""
    return {f"cuda:{number}": str(device) for number in range(64)} if device.type == "cuda" else {}


def packed(saved: Saved) -> bytes:
    """A state that another process is to have: none of it stays on this one's GPU."""
    file = io.BytesIO()
    torch.save(saved, file)
    return file.getvalue()


def unpacked(content: bytes, device: torch.device) -> Saved:
    """A packed state, for this device."""
    saved: Saved = torch.load(io.BytesIO(content), map_location=places(device), weights_only=True)
    return saved


def as_plain(value: Any, place: str = "") -> Any:
    """A nest of plain values, numpy's scalars as Python's. Raises NotPlainError for anything else in it."""
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {as_plain(key, place): as_plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [as_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, (bool, int, float, str)):  # of a class of their own, such as numpy.float64
        return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
    raise NotPlainError(f"{place or 'the state'} is {type(value).__name__}")


def of_lane(tensors: Mapping[str, Tensor], lane: int) -> dict[str, Tensor]:
    """Copies of one lane's part of stacked tensors, on the host."""
    return {name: tensor[lane].detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def stacked(states: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Those of several lanes, stacked again."""
    return {name: torch.stack([state[name] for state in states]).to(device) for name in states[0]}


def module_state(module: nn.Module, without: Collection[str] = ()) -> dict[str, Any]:
    """What a module holds: parameters but those `without`, all buffers, and the plain attributes of its parts."""
    return {
        "parameters": {n: _copied(p) for n, p in module.named_parameters() if n not in without},
        "buffers": {name: _copied(buffer) for name, buffer in module.named_buffers()},
        "numbers": {
            path: {name: _copied(v) if isinstance(v, Tensor) else v for name, v in numbers_of(child)}
            for path, child in module.named_modules()
        },
    }


@torch.no_grad()
def restore_module(module: nn.Module, saved: Saved) -> None:
    """Give a module built alike what `module_state` has kept, its tensors in place wherever they fit."""
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    for name, value in saved["parameters"].items():
        parameters[name].data.copy_(value)
    device = next((parameter.device for parameter in parameters.values()), torch.device("cpu"))
    for name, value in saved["buffers"].items():
        buffer = buffers.get(name)
        if buffer is not None and (buffer.shape, buffer.dtype) == (value.shape, value.dtype):
            buffer.copy_(value)
        else:
            path, _, own = name.rpartition(".")
            module.get_submodule(path)._buffers[own] = value.to(device)
    for path, numbers in saved["numbers"].items():
        child = module.get_submodule(path)
        held = dict(numbers_of(child))
        for name, value in numbers.items():
            now = held.get(name)
            if isinstance(value, Tensor):
                setattr(child, name, value.to(now.device if isinstance(now, Tensor) else device))
            elif name not in held or repr(now) != repr(value):
                setattr(child, name, value)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
