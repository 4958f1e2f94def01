"""Whether ranks can train a model together: the loss of a batch has to be the mean of its shares' losses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from optsweep.errors import UserError
from optsweep.tasks.base import Split
from optsweep.tasks.data import Stretch
from optsweep.tasks.nest import Nest
from optsweep.train.forward import Forward
from optsweep.train.process import isolated
from optsweep.train.randomness import Generators, step_seeds
from optsweep.train.ranks import part_of
from optsweep.train.traits import ModelTraits, construct

if TYPE_CHECKING:  # which has this looked at
    from optsweep.train.program import Program

TRIED = 4
"""Batches: shares of one may have equally many tokens by chance."""

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Relative difference that is rounding, by precision."""


def check_shares(program: Program, traits: ModelTraits) -> None:
    """Raise UserError, in one line, for a model whose batches ranks can't share; it is tried on the first ones."""
    task, device = program.task, program.device
    module = construct(task, 0, device).module.to(device)
    _no_batch_norm(module)
    forward = Forward(task, device, traits.dtype, program.precision, stacked=False)
    with isolated(device, traits.default_dtype, traits.flags), torch.no_grad():
        Generators(device).everything().seeder()(step_seeds(0, 0, 1)[0])
        module.train(not traits.unlike)  # what draws at random is looked at without that

        def loss_of(batch: Nest) -> float:
            with forward.autocast():
                return float(forward.loss(module, batch))

        size = program.batch_size // program.accumulate
        for given in task.data(Split.TRAIN).training([Stretch(0, 0, TRIED)], size, 1, device):
            batch = forward.cast(given)
            parts = [loss_of(part_of(batch, rank, program.ranks)) for rank in range(program.ranks)]
            _compare(loss_of(batch), math.fsum(parts) / program.ranks, program)


def _compare(whole: float, mean: float, program: Program) -> None:
    if not math.isclose(whole, mean, rel_tol=TOLERANCE[program.precision], abs_tol=1e-7):
        raise UserError(
            f"trainer.ranks: the loss of a batch ({whole:.6g}) isn't the mean of the losses of its {program.ranks} "
            f"shares ({mean:.6g}), as with a mean over tokens whose number differs from sample to sample, or a loss "
            f"that compares samples; let it be a mean over samples, or give trainer.ranks=1"
        )


def _no_batch_norm(module: nn.Module) -> None:
    """Raise UserError for a layer that normalises over the batch: a rank would do so over its share."""
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase) and not isinstance(layer, nn.modules.instancenorm._InstanceNorm):
            raise UserError(
                f"trainer.ranks: layer {name} ({type(layer).__name__}) normalises over the batch, of which a rank has "
                f"a share only; choose another normalisation (GroupNorm, LayerNorm), or give trainer.ranks=1"
            )
