"""µP: what one width learns at an LR, a wider one learns at the same LR; without it the wider one moves further."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from optsweep.tasks.transformer import Matrix, Transformer

BASE, WIDE = 16, 256
TOKENS = torch.arange(8 * 12).reshape(8, 12) * 7 % 32


def model(width: int, mup_base: int | None) -> Transformer:
    torch.manual_seed(0)
    return Transformer(vocabulary=32, width=width, layers=1, heads=2, context=12, mup_base=mup_base)


def test_at_the_base_it_is_the_standard_parametrisation_bit_by_bit() -> None:
    assert torch.equal(model(BASE, BASE)(TOKENS), model(BASE, None)(TOKENS))


def test_hidden_matrices_start_as_large_as_standard_ones_and_the_head_smaller() -> None:
    standard, scaled = model(WIDE, None), model(WIDE, BASE)
    for (name, ours), theirs in zip(scaled.named_modules(), standard.modules(), strict=True):
        if isinstance(ours, Matrix) and isinstance(theirs, Matrix):
            ratio = BASE / WIDE if name == "head" else 1.0
            torch.testing.assert_close(ours.weight * ours.factor, theirs.weight * ratio)


def moved(width: int, mup_base: int | None) -> float:
    """Root mean square of how far three steps of Adam move what the MLP adds."""
    net = model(width, mup_base)
    seen: list[Tensor] = []
    net.blocks[0].down.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))  # type: ignore[union-attr]
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(net(TOKENS).flatten(0, 1), TOKENS.flatten()).backward()
        optimizer.step()
    return float((seen[3] - seen[0]).square().mean().sqrt())


def test_three_steps_move_a_wide_model_as_far_as_the_base() -> None:
    base = moved(BASE, None)
    assert moved(WIDE, BASE) / base == pytest.approx(1.0, rel=0.5)
    assert moved(WIDE, None) / base > 4
