"""Muon against torch.optim.Muon, with its iteration replaced by pytorch_optimizer's in float64: torch iterates in bf16,
which is no oracle for more than two digits.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_optimizer.optimizer.utils.matrix as other
import torch
from torch import Tensor

from drive import LAYOUT, defaults, largest, noisy, run, run_oracle, start
from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout, Role
from optsweep.optim.muon import Muon, _fused, orthogonalized
from optsweep.optim.update import Decay, Update

SHAPES = {"tall": (9, 4), "wide1": (3, 7), "wide2": (3, 7), "square": (8, 8)}
MATRICES = Layout.build(SHAPES, dict.fromkeys(SHAPES, Role.HIDDEN))


@pytest.fixture
def float64_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    def iterate(grad: Tensor, coefficients: object, num_steps: int, eps: float) -> Tensor:
        orthogonal: Tensor = other.zero_power_via_newton_schulz_5(grad, num_steps, eps=eps, dtype=torch.float64)
        return orthogonal

    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", iterate)


@pytest.mark.usefixtures("float64_oracle")
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("scale", "theirs"), [("match_adam", "match_rms_adamw"), ("original", "original")])
def test_muon_equals_torch(scale: Any, theirs: str, nesterov: bool) -> None:
    update = Update(Muon(scale=scale, nesterov=nesterov), MATRICES, decay=Decay.DECOUPLED)
    ours, _, _ = run(update, [defaults(update.floats, weight_decay=0.1)])
    expected, _, _ = run_oracle(
        lambda p: torch.optim.Muon(p, weight_decay=0.1, adjust_lr_fn=theirs, nesterov=nesterov), layout=MATRICES
    )
    assert largest(ours, expected) <= 1e-12


def test_in_bf16_it_is_near_torch() -> None:
    update = Update(Muon(bf16=True), MATRICES)
    ours, _, _ = run(update, [defaults(update.floats)], num_steps=5)
    theirs, _, _ = run_oracle(
        lambda p: torch.optim.Muon(p, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"), layout=MATRICES, num_steps=5
    )
    assert largest(ours, theirs) <= 2e-3  # of a path of about 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 8), (20, 5), (5, 20)])
def test_singular_values_are_near_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonalized(matrices.to(dtype), 5))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert torch.equal(orthogonalized(torch.zeros(1, 4, 4), 5), torch.zeros(1, 4, 4))


def test_all_else_takes_adam_with_its_own_learning_rate() -> None:
    update = Update(Muon(), LAYOUT)
    muon, _, _ = run(update, [defaults(update.floats, aux_lr_factor=0.3)], gradient=noisy(LAYOUT))
    adam, _, _ = run(Update(Adam(), LAYOUT), [defaults(Adam.floats, lr=3e-3, beta2=0.95)], gradient=noisy(LAYOUT))
    for (name, ours), (_, theirs) in zip(LAYOUT.views(muon), LAYOUT.views(adam), strict=True):
        same = largest(ours, theirs) <= 1e-13
        assert same == (name in ("embed", "stem", "head", "bias1", "bias2")), name


def test_every_parameter_goes_to_exactly_one_rule() -> None:
    state = Muon().init(start(LAYOUT), LAYOUT)
    covered = sum(tensor.shape[1] for name, tensor in state.items() if name.endswith(".m"))
    assert covered == LAYOUT.size


def test_a_model_without_matrices_is_refused() -> None:
    layout = Layout.build({"bias": (3,)}, {"bias": Role.VECTOR})
    with pytest.raises(ValueError, match="no hidden matrices"):
        _ = Update(Muon(), layout).notes


@pytest.mark.parametrize("shape", [(2, 3, 12, 8), (1, 2, 8, 12), (1, 1, 8, 8)])
def test_what_a_gpu_computes_is_the_same_to_rounding(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(_fused(matrices, 5, 0.7), 0.7 * orthogonalized(matrices, 5), rtol=1e-12, atol=1e-13)
