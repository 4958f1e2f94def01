"""A loop written by hand: the product's seeds, batches and multipliers, a plain module, and torch.optim.

Nothing of `optsweep.train` but the seeds of a step, which are the product's own choice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from optsweep.optim.schedules import Schedule
from optsweep.tasks.base import Split, Task
from optsweep.train.randomness import RECALIBRATION_SEED, step_seeds

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def by_hand(
    task: Task,
    seed: int,
    *,
    optimizer: Optimizer,
    lr: float,
    schedule: Schedule,
    num_steps: int,
    batch_size: int,
    clip_norm: float | None = None,
    averaged: float | None = None,
) -> float:
    """Test loss of a trial; `averaged` is the decay of an exponential average that torch keeps of the weights."""
    torch.manual_seed(seed)
    module = task.model()
    opt = optimizer(p for p in module.parameters() if p.requires_grad)
    ema = None
    if averaged is not None:
        update = torch.optim.swa_utils.get_ema_multi_avg_fn(averaged)  # type: ignore[no-untyped-call]
        ema = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=update)
    for step, multiplier in enumerate(schedule.multipliers(num_steps, num_steps)):
        for group in opt.param_groups:
            group["lr"] = lr * float(multiplier)
        _seed(step_seeds(seed, step, step + 1)[0])
        x, y = task.batch(Split.TRAIN, torch.from_numpy(task.train_indices(seed, step, 1, batch_size)[0]))
        opt.zero_grad(set_to_none=True)
        task.loss(module(x), y).backward()  # type: ignore[no-untyped-call]
        for parameter in module.parameters():  # torch.optim.Adam refuses sparse gradients
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
        opt.step()
        if ema is not None:
            ema.update_parameters(module)
    if ema is not None:
        with torch.no_grad():
            for ours, average in zip(module.parameters(), ema.module.parameters(), strict=True):
                ours.copy_(average)
    return _scored(task, module)


@torch.no_grad()
def _scored(task: Task, module: nn.Module) -> float:
    """Test loss, batch norm with the cumulative mean over 16 batches of 64 samples."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    module.train()
    for batch in task.train_indices(RECALIBRATION_SEED, 0, 16, 64) if norms else ():
        module(task.batch(Split.TRAIN, torch.from_numpy(batch))[0])
    module.eval()
    x, y = task.batch(Split.TEST, torch.arange(task.size(Split.TEST)))
    loss: Tensor = task.loss(module(x), y)
    return float(loss)


def _seed(number: int) -> None:
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - what models draw from
