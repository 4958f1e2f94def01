"""The memory of the trials that train together: one flat row of parameters and one of gradients per lane.

The model's parameters are views of the row and so are their gradients: an elementwise rule costs a dozen kernels
whatever the number of parameters and lanes, clipping is one norm per row, dropping a lane is one index_select.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optsweep.optim.layout import Layout, flatten
from optsweep.optim.rule import State


class Arena:
    """Parameters `params [K, P]`, gradients `grads [K, P]`, the model's buffers `[K, …]` and the optimizer's state.

    With `vmapped` false there is one lane and the module itself lives in the row; otherwise the module is a template
    that `torch.func.vmap` calls with `leaves`, in `low` precision if that is given.
    """

    def __init__(
        self, module: nn.Module, layout: Layout, *, vmapped: bool, device: torch.device, low: torch.dtype | None = None
    ) -> None:
        self.module = module.to(device)
        self.layout = layout
        self.vmapped = vmapped
        self.device = device
        self.dtype = next(module.parameters()).dtype
        self.low = low if vmapped else None
        self.params = torch.empty(0, layout.size, dtype=self.dtype, device=device)
        self.grads = self.params.clone()
        self.buffers: dict[str, Tensor] = {
            name: b.unsqueeze(0)[:0].clone() for name, b in self.module.named_buffers() if b is not None
        }
        self.state: State = {}
        self.leaves: dict[str, Tensor] = {}

    @property
    def lanes(self) -> int:
        """Number of lanes, padding included."""
        return self.params.shape[0]

    def fill(self, models: Sequence[nn.Module]) -> None:
        """Take the initial weights and buffers of one model per lane."""
        if not self.vmapped and len(models) != 1:
            raise ValueError(f"the plain path holds one lane, not {len(models)}")
        rows = [
            flatten(self.layout, dict(model.named_parameters()), dtype=self.dtype, device=self.device)
            for model in models
        ]
        self.params = torch.cat(rows)
        self.buffers = {
            name: torch.stack([dict(model.named_buffers())[name].to(self.device) for model in models])
            for name in self.buffers
        }
        if self.low is not None:  # beside low-precision parameters
            self.buffers = {n: b.to(self.low) if b.is_floating_point() else b for n, b in self.buffers.items()}
        self._bind()

    def keep(self, lanes: Sequence[int]) -> None:
        """Keep only the lanes at these places, in this order."""
        index = torch.tensor(lanes, device=self.device)
        self.params = self.params.index_select(0, index)
        self.buffers = {name: buffer.index_select(0, index) for name, buffer in self.buffers.items()}
        self.state = {name: tensor.index_select(0, index) for name, tensor in self.state.items()}
        self._bind()

    def views(self, row: Tensor) -> dict[str, Tensor]:
        """The model's parameters in `row [K, P]`, by name: `[K, *shape]`, or `[*shape]` on the plain path."""
        return {name: view if self.vmapped else view[0] for name, view in self.layout.views(row)}

    def lower(self) -> None:
        """Copy the parameters into the low-precision row that the lanes' forward pass reads."""
        if self.low is not None:
            self._low_params.copy_(self.params)

    def collect(self) -> None:
        """Copy low-precision gradients into `grads`."""
        if self.low is not None:
            self.grads.copy_(self._low_grads)

    def zero_grads(self) -> None:
        """Zero the gradients that the backward pass accumulates into."""
        (self.grads if self.low is None else self._low_grads).zero_()

    def check(self) -> None:
        """Raise if the model's parameters or gradients have left the row, as `model.double()` makes them."""
        grads = self.grads if self.low is None else self._low_grads
        begin, end = grads.data_ptr(), grads.data_ptr() + grads.numel() * grads.element_size()
        for name, leaf in self.leaves.items():
            if leaf.grad is None or not begin <= leaf.grad.data_ptr() < end:
                raise RuntimeError(
                    f"the gradient of parameter {name} has left the arena: the model replaced its parameters or "
                    f"gradients (model.double(), zero_grad()) during training; it must not"
                )

    def _bind(self) -> None:
        """Point the leaves at the rows."""
        self.grads = torch.zeros_like(self.params)
        row, grad_row = self.params, self.grads
        if self.low is not None:
            self._low_params = self.params.to(self.low)
            self._low_grads = torch.zeros_like(self._low_params)
            row, grad_row = self._low_params, self._low_grads
        values, grads = self.views(row), self.views(grad_row)
        if not self.vmapped:
            parameters = dict(self.module.named_parameters())
            self.leaves = {name: parameters[name] for name in values}
            for name, leaf in self.leaves.items():
                leaf.data = values[name]
            for name, buffer in self.module.named_buffers():
                buffer.data = self.buffers[name][0]
        else:
            self.leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        for name, leaf in self.leaves.items():
            leaf.grad = grads[name]
