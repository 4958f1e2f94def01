"""Batch-norm statistics of weights that weren't trained by themselves: their cumulative mean over some batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Call = Callable[[nn.Module, object], object]
"""A forward pass of a model on a batch."""


def running_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Layers with running statistics, by name."""
    return {n: m for n, m in module.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}


@contextmanager
def cumulative(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let running statistics be the mean over all calls; momentum=None, which means that, does not run under vmap."""
    before = [(norm, norm.momentum) for norm in norms]
    calls: Counter[nn.Module] = Counter()

    def count(norm: nn.Module, _: object) -> None:
        assert isinstance(norm, _BatchNorm)
        calls[norm] += 1  # a layer under several names has several in one forward pass
        norm.momentum = 1.0 / calls[norm]

    hooks = [norm.register_forward_pre_hook(count) for norm, _ in before]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in before:
            norm.momentum = momentum


@contextmanager
def recomputed(model: nn.Module, batches: Iterable[object], call: Call) -> Iterator[None]:
    """The model in eval mode, batch-norm statistics those of its present weights over `batches`; then as before.

    Layers that are in eval mode while the model trains are frozen, and keep their statistics. Buffers, modes and
    torch's random generators are put back, so a look at a model changes nothing of its training.
    """
    modes = {module: module.training for module in model.modules()}
    owned = [(module, name, b) for module in modes for name, b in module.named_buffers(recurse=False)]
    before = [(module, name, buffer, buffer.clone()) for module, name, buffer in owned]
    norms = [norm for norm in running_norms(model).values() if norm.training or not model.training]
    try:
        if not model.training:
            model.train()
        devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
        with torch.no_grad(), torch.random.fork_rng(devices), cumulative(norms):
            for batch in batches:
                call(model, batch)
        for module, name, buffer, values in before:
            if module not in norms:
                module._buffers[name] = buffer.copy_(values)
        model.eval()
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, values in before:
                module._buffers[name] = buffer.copy_(values)
        for module, training in modes.items():
            module.training = training


def on_first(model: nn.Module, batch: object) -> object:
    """The model called with a batch of a data loader: a dictionary as keywords, of a sequence the first item."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def moved(value: object) -> object:
        return value.to(device) if isinstance(value, Tensor) else value

    if isinstance(batch, Mapping):
        return model(**{name: moved(value) for name, value in batch.items()})
    return model(moved(batch[0] if isinstance(batch, Sequence) else batch))
