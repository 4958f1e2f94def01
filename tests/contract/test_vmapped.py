"""Lanes are called without torch.func.vmap's part in Python: to its bits, and nothing is left in the module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import prune

from optsweep.train.vmapped import by_vmap, in_lanes

LANES = 3


class Tied(nn.Module):
    """A layer whose weight is used transposed too, and one that sees what isn't a lane's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.constant = nn.Linear(6, 5), nn.Linear(4, 6, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs."""
        hidden = self.layer(inputs).relu() + self.layer(self.constant(torch.ones(2, 4)))[0]
        return F.linear(hidden, self.layer.weight.T)


class Turned(nn.Module):
    """Layers whose inputs are no plain batch: a single sample, samples in columns, several dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.Linear(6, 5), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs."""
        hidden = self.columns(self.rows(inputs).mT)
        total: Tensor = (
            self.rows(torch.stack([inputs, inputs.sin()], 1)).sum() + self.rows(inputs[0]).sum() + hidden.sum()
        )
        return total


class Doubled(nn.Linear):
    """A layer of the user's own, which isn't torch's."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs."""
        doubled: Tensor = 2 * super().forward(inputs)
        return doubled


class Autocast(nn.Module):
    """A model that computes in bf16 by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs."""
        with torch.autocast("cpu", torch.bfloat16):
            outputs: Tensor = self.layer(inputs)
        return outputs


MODULES: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 2)),
    "no bias": lambda: nn.Sequential(nn.Linear(6, 7, bias=False), nn.ReLU(), nn.Linear(7, 4, bias=False)),
    "tied": Tied,
    "turned": Turned,
    "own": lambda: nn.Sequential(Doubled(6, 7), nn.ReLU(), nn.Linear(7, 4)),
    "pruned": lambda: nn.Sequential(prune.random_unstructured(nn.Linear(6, 7), "weight", amount=3), nn.Linear(7, 4)),
    "bf16 of its own": Autocast,
}


def tensors_of(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Parameters of a few modules."""
    modules = [build() for _ in range(LANES)]
    return {
        name: torch.stack([dict(module.named_parameters())[name].detach() for module in modules]).requires_grad_()
        for name, _ in modules[0].named_parameters()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", MODULES)
def test_lanes_are_called_to_the_bits_of_vmap(kind: str, shared: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module, params = MODULES[kind]().to(dtype), tensors_of(lambda: MODULES[kind]().to(dtype))
    torch.set_default_dtype(dtype)
    try:
        batch = torch.randn(4, 6) if shared else torch.randn(LANES, 4, 6)
        theirs = vmap(lambda held, x: functional_call(module, held, (x,)), in_dims=(0, None if shared else 0))
        expected = theirs(params, batch)
        ours = in_lanes(module, lambda module, x: module(x), shared=shared)(params, {}, {}, batch)
        assert torch.equal(ours, expected)
        for one, other in zip(*(gradients(outputs, params) for outputs in (ours, expected)), strict=True):
            assert torch.equal(one, other)
    finally:
        torch.set_default_dtype(torch.float32)


def gradients(outputs: Tensor, params: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Of a sum that weighs every output differently."""
    weights = torch.arange(outputs.numel(), dtype=outputs.dtype).view(outputs.shape).cos()
    return torch.autograd.grad((outputs * weights).sum(), list(params.values()))


def test_lanes_are_called_by_vmap_itself_where_torch_hasn_t_its_parts_any_more() -> None:
    module, params = MODULES["tied"](), tensors_of(MODULES["tied"])
    batch = torch.randn(4, 6)
    ours, theirs = (
        call(module, lambda module, x: module(x), shared=True)(params, {}, {}, batch) for call in (in_lanes, by_vmap)
    )
    assert torch.equal(ours, theirs)


def test_a_call_that_fails_leaves_the_module_and_vmap_as_they_were() -> None:
    module, params = MODULES["perceptron"](), tensors_of(MODULES["perceptron"])
    own = dict(module.named_parameters())

    def broken(module: nn.Module, x: Tensor) -> Tensor:
        assert module(x).sum() > 0  # what depends on values
        return x

    with pytest.raises(RuntimeError, match="vmap"):
        in_lanes(module, broken, shared=True)(params, {}, {}, torch.randn(4, 6))
    assert all(tensor is own[name] for name, tensor in module.named_parameters())
    assert module(torch.randn(4, 6)).shape == (4, 2)
