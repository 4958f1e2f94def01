"""What identifies a model, its data and its start, in plain numbers and words: for fingerprints, and for refusals.

Hashes say only that something differs; these say what. Norms, the loss and the gradient are to be compared with a
tolerance, so that last bits don't matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from optsweep.tasks.base import digest_of
from optsweep.tasks.nest import tensors_of
from optsweep.train.process import deterministic, isolated
from optsweep.train.program import Program
from optsweep.train.randomness import step_seeds
from optsweep.train.traits import first_batch


@dataclass(frozen=True)
class TensorFacts:
    """A parameter or a buffer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trained: bool
    buffer: bool


@dataclass(frozen=True)
class Probe:
    """A workload at the start of seed 0."""

    tensors: tuple[TensorFacts, ...]  # parameters, then buffers, each tied one once
    norms: Mapping[str, float]  # ‖initial value‖ by name, not-a-numbers counted as 0
    first_batch: str  # hash of its inputs and targets
    loss: float  # at the first batch, in training mode
    grad_norm: float  # of all parameters there, before clipping


def probe(program: Program) -> Probe:
    """One forward and backward pass of seed 0 on the plain path, whatever the arm's lanes; the same every time."""
    traits, forward = program.traits, replace(program.forward, stacked=False)
    with isolated(program.device, traits.default_dtype), deterministic(program.deterministic):
        module = program.model(0).to(program.device)
        facts, norms = tensors_of_module(module), norms_of_module(module)
        traits.generators.everything().seeder()(step_seeds(0, 0, 1)[0])
        module.train()
        first = forward.cast(first_batch(program.task, program.batch_size, program.device))
        with forward.autocast():
            loss = forward.loss(module, first)
        loss.backward()  # type: ignore[no-untyped-call]
        squares = sum(norm_of_value(p.grad) ** 2 for p in module.parameters() if p.grad is not None)
        batch = digest_of(
            *(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() for t in tensors_of(first))
        )
        return Probe(facts, norms, batch, float(loss.detach().cpu()), float(squares**0.5))


def tensors_of_module(module: nn.Module) -> tuple[TensorFacts, ...]:
    """Parameters, then buffers."""
    facts = [TensorFacts(n, tuple(p.shape), str(p.dtype), p.requires_grad, False) for n, p in module.named_parameters()]
    facts += [TensorFacts(n, tuple(b.shape), str(b.dtype), False, True) for n, b in module.named_buffers()]
    return tuple(facts)


def norms_of_module(module: nn.Module) -> dict[str, float]:
    """‖value‖ of parameters and buffers by name."""
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: norm_of_value(value.detach()) for name, value in values.items()}


def norm_of_value(value: Tensor) -> float:
    """‖value‖ in float64, computed on the host, which has it."""
    value = value.to_dense() if value.layout is not torch.strided else value
    host = value.detach().cpu()
    host = host.to(torch.complex128 if host.is_complex() else torch.float64)
    return float(torch.linalg.vector_norm(host.nan_to_num()))
