"""What a model does with its first batch, and whether the batches are the trial seed's, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from optsweep.tasks.base import Split, digest_of
from optsweep.tasks.data import Stretch
from optsweep.tasks.nest import Nest, tensors_of
from optsweep.train.process import deterministic, isolated
from optsweep.train.program import Program
from optsweep.train.randomness import step_seeds
from optsweep.train.traits import first_batch


@dataclass(frozen=True)
class Inspection:
    """A model at the start of seed 0, and its first batch."""

    batch: tuple[str, ...]  # dtype and shape of its tensors
    outputs: tuple[str, ...]
    tensors: int  # trainable ones
    dtype: str
    loss: float  # of the first batch, in training mode
    uninformed_loss: float | None  # of a guess that knows nothing; None: no such is known
    without_gradient: tuple[str, ...]
    zero_gradient: tuple[str, ...]
    bad_gradient: tuple[str, ...]  # not a number, or infinite


def inspect_model(program: Program) -> Inspection:
    """One forward and backward pass of seed 0 on the plain path. Raises whatever the model raises."""
    traits, forward = program.traits, replace(program.forward, stacked=False)
    with isolated(program.device, traits.default_dtype), deterministic(program.deterministic):
        module = program.model(0).to(program.device)
        seed = traits.generators.everything().seeder()
        seed(step_seeds(0, 0, 1)[0])
        module.train()
        batch = forward.cast(first_batch(program.task, program.batch_size, program.device))
        with forward.autocast():
            loss = forward.loss(module, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        found = {name: p.grad for name, p in module.named_parameters() if p.requires_grad and p.numel()}
        grads = {name: grad for name, grad in found.items() if grad is not None}
        module.eval()
        with torch.no_grad(), forward.autocast():
            outputs = program.task.outputs(module, batch)
        return Inspection(
            batch=_shapes(batch),
            outputs=_shapes(outputs),
            tensors=len(found),
            dtype=str(program.dtype).removeprefix("torch."),
            loss=float(loss.detach()),
            uninformed_loss=_uninformed(program, module, batch),
            without_gradient=tuple(name for name, grad in found.items() if grad is None),
            zero_gradient=tuple(name for name, grad in grads.items() if not grad.any()),
            bad_gradient=tuple(name for name, grad in grads.items() if not torch.isfinite(grad).all()),
        )


def _uninformed(program: Program, module: nn.Module, batch: Nest) -> float | None:
    """What a guess costs that knows nothing, if that is more than nothing."""
    if program.task.chance_loss is not None:
        return program.task.chance_loss
    with torch.no_grad(), program.forward.autocast():
        loss = program.task.uninformed_loss(module, batch, lambda outputs: outputs)
    return float(loss) if loss is not None and float(loss) > 0 else None


def _shapes(nest: Nest) -> tuple[str, ...]:
    """ "float32 [64, 10]" of each tensor; of a mapping with its key."""
    if isinstance(nest, Mapping):
        return tuple(f"{key} {shape}" for key, value in nest.items() for shape in _shapes(value))
    return tuple(_shape(tensor) for tensor in tensors_of(nest))


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


@dataclass(frozen=True)
class DataOrder:
    """Whether the same seed gives the same batches again, and another seed other ones."""

    repeats: bool
    differs: bool


def data_order(program: Program, steps: int) -> DataOrder:
    """Of the first steps' batches, drawn twice with one seed and once with another."""
    first, again, other = (_drawn(program, seed, steps) for seed in (0, 0, 1))
    return DataOrder(first == again, first != other)


def _drawn(program: Program, seed: int, steps: int) -> str:
    """Hash of the batches of a trial's first steps."""
    data, traits = program.task.data(Split.TRAIN), program.traits
    with isolated(program.device, traits.default_dtype):
        seeds, seeder = step_seeds(seed, 0, steps), traits.generators.everything().seeder()
        spans = [Stretch(seed, 0, steps)]
        batches = data.training(spans, program.batch_size, program.accumulate, program.device)
        contents = []
        for number in seeds:
            seeder(number)
            for _ in range(program.accumulate):
                contents += [_bytes(tensor) for tensor in tensors_of(next(batches))]
    return digest_of(*contents)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
