"""What identifies a model, its data and its start, in plain numbers and words: for fingerprints, and for refusals.

Hashes say only that something differs; these say what. Norms, the loss and the gradient are to be compared with a
tolerance, so that last bits don't matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optsweep.tasks.base import Split, digest_of
from optsweep.train.program import Program, cast_inputs


@dataclass(frozen=True)
class TensorFacts:
    """A parameter or a buffer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trained: bool


@dataclass(frozen=True)
class Probe:
    """A workload at the start of seed 0."""

    tensors: tuple[TensorFacts, ...]  # parameters, then buffers, each tied one once
    norms: Mapping[str, float]  # ‖initial value‖ by name
    first_batch: str  # hash of its inputs and targets
    loss: float  # at the first batch, in training mode
    grad_norm: float  # of all parameters there, before clipping


def probe(program: Program) -> Probe:
    """One forward and backward pass of seed 0 on the plain path, whatever the arm's lanes; the same every time."""
    task, module = program.task, program.model(0).to(program.device)
    facts = [TensorFacts(n, tuple(p.shape), str(p.dtype), p.requires_grad) for n, p in module.named_parameters()]
    facts += [TensorFacts(n, tuple(b.shape), str(b.dtype), False) for n, b in module.named_buffers()]
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    norms = {name: _norm(value.detach()) for name, value in values.items()}
    indices = torch.from_numpy(task.train_indices(0, 0, 1, program.batch_size)[0]).to(program.device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = task.batch(Split.TRAIN, indices)
        loss = task.loss(module(cast_inputs(x, program.dtype)), y)
        loss.backward()  # type: ignore[no-untyped-call]
    squares = sum(_norm(p.grad) ** 2 for p in module.parameters() if p.grad is not None)
    batch = digest_of(*(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() for t in (x, y)))
    return Probe(tuple(facts), norms, batch, float(loss.detach().cpu()), float(squares**0.5))


def _norm(value: Tensor) -> float:
    """‖value‖ in float64, computed on the host."""
    host = value.detach().cpu()
    return float(torch.linalg.vector_norm(host.to(torch.complex128 if host.is_complex() else torch.float64)))
