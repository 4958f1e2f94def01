"""SOAP in its published form against pytorch_optimizer, float64.

The oracle takes its QR in float32; for the comparison that one name in its module stands for float64. It keeps m
unrotated and adds ε to the uncorrected √v, and so does our published form. Convolutions are compared as matrices.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_optimizer.optimizer.soap as oracle_module
import torch
from torch import Tensor

from drive import LAYOUT, defaults, largest, noisy, run, run_oracle, start
from optsweep.optim.adam import Adam
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import Layout, Role
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.soap import SOAP, eigenbasis, refreshed
from optsweep.optim.update import Decay, Update

# A square matrix has a first GGᵀ of full rank, so its eigenbasis, and with it the published form, is well defined.
SQUARE = Layout.build(
    {"a": (5, 5), "b": (5, 5), "c": (3, 3), "bias": (5,)},
    {"a": Role.HIDDEN, "b": Role.HIDDEN, "c": Role.HEAD, "bias": Role.VECTOR},
    decay_all=True,
)


@pytest.fixture
def float64_oracle(monkeypatch: pytest.MonkeyPatch) -> Any:
    shim = types.ModuleType("torch")
    shim.__dict__.update(torch.__dict__)
    shim.__dict__["float32"] = torch.float64
    monkeypatch.setattr(oracle_module, "torch", shim)
    return oracle_module.SOAP


def test_published_form_equals_pytorch_optimizer(float64_oracle: Any) -> None:
    """Without decay: the oracle applies it after its step, we before, which differs by η²λ·direction."""
    refresh, steps = 5, 60
    update = Update(SOAP(refresh=refresh, start="eigh"), SQUARE)
    multipliers = np.linspace(1.0, 0.1, steps)
    hyper = defaults(update.floats, damping=0.0, beta1=0.9, beta2=0.95, shampoo_beta=0.95)
    paths: dict[str, list[Tensor]] = {}

    def recorder(name: str) -> Callable[..., None]:
        return lambda step, row, *_: paths.setdefault(name, []).append(row.clone())

    run(update, [hyper], num_steps=steps, multipliers=multipliers, gradient=noisy(SQUARE), each=recorder("ours"))
    run_oracle(
        lambda p: float64_oracle(p, betas=(0.9, 0.95), weight_decay=0.0, precondition_frequency=refresh),
        layout=SQUARE,
        num_steps=steps,
        multipliers=multipliers,
        each=recorder("theirs"),
    )
    differences = [largest(a, b) for a, b in zip(paths["ours"], paths["theirs"], strict=True)]
    assert max(differences) <= 1e-11


@torch.no_grad()
def by_hand(
    parameter: Tensor,
    gradients: Sequence[Callable[[Tensor], Tensor]],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    shampoo_beta: float,
    eps: float,
    damping: float,
    refresh: int,
) -> Tensor:
    """The default form for one matrix, unbatched and unpadded: identity start, damping, Adam in the rotated space."""
    theta, (rows, columns) = parameter.clone(), parameter.shape
    left, right = torch.zeros(rows, rows).double(), torch.zeros(columns, columns).double()
    q_left, q_right = torch.eye(rows).double(), torch.eye(columns).double()
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for t, gradient in enumerate(gradients):
        g = gradient(theta)
        left = shampoo_beta * left + (1 - shampoo_beta) * g @ g.T
        right = shampoo_beta * right + (1 - shampoo_beta) * g.T @ g
        rotated = q_left.T @ g @ q_right
        m, v = beta1 * m + (1 - beta1) * rotated, beta2 * v + (1 - beta2) * rotated**2
        adam = m / (1 - beta1 ** (t + 1)) / ((v / (1 - beta2 ** (t + 1))).sqrt() + eps)
        theta = theta - lr * q_left @ adam @ q_right.T
        if t % refresh == 0:
            plain, bases = q_left @ m @ q_right.T, []
            for dim, q, a in ((0, q_left, left), (1, q_right, right)):
                mean = a.trace() / len(a)
                damped = a + damping * mean * torch.eye(len(a)).double()
                octaves = (torch.diag(q.T @ damped @ q) / mean).log2().round()
                order = octaves.sort(descending=True, stable=True).indices
                v = v.index_select(dim, order)
                bases.append(torch.linalg.qr(damped @ q[:, order]).Q)
            q_left, q_right = bases
            m = q_left.T @ plain @ q_right
    return theta


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 12])
def test_default_form_equals_the_formula_written_out(steps: int) -> None:
    """Steps 0, 5 and 10 refresh. Rectangular sides that are no multiples of four, where the rule pads."""
    shapes = {"a": (3, 7), "b": (9, 4)}
    layout = Layout.build(shapes, dict.fromkeys(shapes, Role.HIDDEN))
    update, noise = Update(SOAP(refresh=5), layout), noisy(layout, pull=0.0)
    zero = torch.zeros_like(start(layout))
    hyper = defaults(update.floats, damping=1e-2, beta2=0.9)
    ours, _, _ = run(update, [hyper], num_steps=steps, gradient=lambda step, p: noise(step, zero) + 0.1 * p)
    numbers = {key: hyper[key] for key in ("lr", "beta1", "beta2", "shampoo_beta", "eps", "damping")}
    for (name, begin), (_, end) in zip(layout.views(start(layout)), layout.views(ours), strict=True):
        noises = [dict(layout.views(noise(step, zero)))[name][0] for step in range(steps)]
        gradients = [partial(torch.add, noise, alpha=0.1) for noise in noises]
        expected = by_hand(begin[0], gradients, refresh=5, **numbers)
        assert largest(end[0], expected) <= 1e-12, name


def test_identity_basis_is_adam() -> None:
    hyper = defaults(SOAP.floats)
    soap, _, _ = run(Update(SOAP(max_size=1), LAYOUT), [hyper])
    adam, _, _ = run(Update(Adam(), LAYOUT), [hyper])
    assert torch.equal(soap, adam)


def test_before_the_first_refresh_it_is_adam() -> None:
    hyper = defaults(SOAP.floats)
    soap, _, _ = run(Update(SOAP(), LAYOUT), [hyper], num_steps=1)
    adam, _, _ = run(Update(Adam(), LAYOUT), [hyper], num_steps=1)
    assert largest(soap, adam) <= 1e-15


def test_tiny_change_of_a_gradient_stays_tiny() -> None:
    """What the identity start is for: the published start turns 1e-16 into 1e-1 after 200 steps."""
    update = Update(SOAP(), LAYOUT)
    gradient = noisy(LAYOUT)
    paths = [
        run(update, [defaults(update.floats)], num_steps=200, gradient=changed)[0]
        for changed in (gradient, lambda s, p: gradient(s, p) * (1 + 2e-16))
    ]
    assert largest(paths[0], paths[1]) <= 1e-11


TIES = Layout.build({"in": (12, 24), "out": (4, 12)}, {"in": Role.HIDDEN, "out": Role.HEAD})


@pytest.mark.parametrize(
    ("dtype", "change", "most"), [(torch.float64, 1e-16, 1e-7), (torch.float32, 6e-8, 1e-3)], ids=str
)
def test_equal_input_features_leave_no_choice_to_rounding(dtype: torch.dtype, change: float, most: float) -> None:
    """Constant features, pairs of equal ones and small batches: eigenvalues are equal but for the last bit."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 5, (60, 8, 24), generator=generator).to(dtype) / 4
    inputs[..., 12:18], inputs[..., 18:] = inputs[..., :6], 0.0
    classes = torch.randint(0, 4, (60, 8), generator=generator)
    noise = change * torch.randn(60, TIES.size, generator=generator, dtype=dtype)

    def gradient(step: int, params: Tensor, changed: bool) -> Tensor:
        row = params.detach().requires_grad_()
        weights = {name: view[0] for name, view in TIES.views(row)}
        with torch.enable_grad():
            logits = torch.tanh(inputs[step] @ weights["in"].mT) @ weights["out"].mT
            (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, classes[step]), row)
        return grad * (1 + changed * noise[step])

    update = Update(SOAP(), TIES)
    params = start(TIES, dtype=dtype) / 4
    plain, changed = (
        run(update, [defaults(update.floats)], params=params, gradient=partial(gradient, changed=changed))[0]
        for changed in (False, True)
    )
    assert largest(plain, changed) <= most


def test_basis_converges_to_the_eigenvectors() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    statistics = (root @ torch.diag(torch.tensor([9.0, 5, 3, 2, 1, 0.3], dtype=torch.float64)) @ root.T)[None]
    basis = torch.eye(6, dtype=torch.float64)[None]
    for _ in range(400):
        basis, _ = refreshed(basis, statistics, 0.0, 6)
    assert largest((basis.mT @ eigenbasis(statistics, 6)).abs(), torch.eye(6, dtype=torch.float64)[None]) <= 1e-6


def test_a_matrix_that_is_not_finite_counts_as_identity() -> None:
    statistics = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    statistics[1] = torch.nan
    basis, _ = refreshed(torch.eye(4, dtype=torch.float64).repeat(3, 1, 1), statistics, 1e-3, 4)
    assert torch.isfinite(basis).all()


@pytest.mark.parametrize("iterate", [Last(), ScheduleFree()])
@pytest.mark.parametrize("decay", [Decay.DECOUPLED, Decay.INDEPENDENT, Decay.L2])
def test_the_first_step_of_the_published_form_changes_nothing(iterate: Iterate, decay: Decay) -> None:
    """As in the authors' code, which goes on to the next parameter before it applies weight decay."""
    update = Update(SOAP(start="eigh"), LAYOUT, decay=decay, iterate=iterate)
    hyper = defaults(update.floats, weight_decay=0.1)
    for lanes in (1, 2):
        ours, state, c = run(update, [hyper] * lanes, num_steps=1)
        assert torch.equal(ours, start(lanes=lanes))
        assert torch.equal(update.weights(ours, state, c), start(lanes=lanes))
        later, _, _ = run(update, [hyper] * lanes, num_steps=2)
        assert not torch.equal(later, ours)


def test_eigenvectors_are_computed_at_the_first_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []
    eigh = torch.linalg.eigh

    def failing_in_float32(matrices: Tensor) -> Any:
        calls.append(matrices.dtype)
        if matrices.dtype == torch.float32:
            raise RuntimeError("failed to converge")
        return eigh(matrices)

    monkeypatch.setattr(torch.linalg, "eigh", failing_in_float32)
    update = Update(SOAP(refresh=2, start="eigh"), SQUARE)
    for lanes in (1, 2):
        calls.clear()
        ours, _, _ = run(update, [defaults(update.floats)] * lanes, num_steps=7, params=start(SQUARE, lanes).float())
        assert torch.isfinite(ours).all()
        assert calls == [torch.float32, torch.float64] * 4, "two batches of matrices with two sides each"


def test_a_side_over_the_limit_is_not_rotated() -> None:
    update = Update(SOAP(max_size=6), LAYOUT)
    state = update.init(start(LAYOUT))
    sizes = {tensor.shape[-1] for name, tensor in state.items() if name.startswith("Q_")}
    assert max(sizes) == 8  # 6, padded
