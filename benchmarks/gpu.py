"""Rule steps at the shapes of a transformer of 124M parameters (GPT-2 small, without biases), on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from benchmarks.rules import contest
from benchmarks.side_by_side import Figure, SkippedError

from optsweep.optim.layout import layout_of
from optsweep.tasks.transformer import Transformer

ROUNDS = 7


def run(device: torch.device) -> Iterator[Figure]:
    """All rules at 12 layers of width 768, 50,257 tied embeddings, 1,024 positions."""
    if device.type != "cuda":
        raise SkippedError(f"a CUDA device is needed, this is {device.type}")
    with torch.device("meta"):
        module = Transformer(vocabulary=50257, width=768, layers=12, heads=12, context=1024, tied=True)
    yield from contest(layout_of(module), device, rounds=ROUNDS)
