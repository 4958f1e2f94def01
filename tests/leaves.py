"""A model whose gradients are a function of its parameters, trained by a torch optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from drive import LAYOUT, ROLES, SHAPES, noisy, start
from optsweep.optim.layout import Layout, flatten
from optsweep.optim.schedules import Schedule
from optsweep.optim.torch_optimizer import RowOptimizer

STEPS = 34
SCHEDULE = Schedule("cosine", {}, "linear", 5)


class Leaves(nn.Module):
    """The parameters of the tests' layout, starting where its row does, with gradients that are a function of them."""

    def __init__(self, layout: Layout = LAYOUT, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.layout = layout
        views = {name: view[0].clone() for name, view in layout.views(start(layout, dtype=dtype))}
        for name in SHAPES:
            self.register_parameter(name, nn.Parameter(views[name]))
        self.gradient = noisy(layout)

    def row(self) -> Tensor:
        parameters = dict(self.named_parameters())
        return flatten(self.layout, parameters, dtype=next(self.parameters()).dtype, device=torch.device("cpu"))

    def backward(self, step: int, *, without: tuple[str, ...] = ()) -> None:
        grads = dict(self.layout.views(self.gradient(step, self.row())))
        for name, parameter in self.named_parameters():
            parameter.grad = None if name in without else grads[name][0].to(parameter.dtype)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.named_parameters()), "roles": [ROLES[name] for name in SHAPES]}]


def train(model: Leaves, optimizer: torch.optim.Optimizer, first: int = 0, steps: int = STEPS) -> Tensor:
    for step in range(first, first + steps):
        model.backward(step)
        optimizer.step()
    return model.row()


def shipped(model: Leaves, optimizer: torch.optim.Optimizer) -> Tensor:
    assert isinstance(optimizer, RowOptimizer)
    with optimizer.averaged(model):
        return model.row()
