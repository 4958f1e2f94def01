"""The memory of the trials that train together: one flat row of parameters and one of gradients per lane.

The model's parameters are views of the row: an elementwise rule costs a dozen kernels whatever the number of parameters
and lanes, clipping is one norm per row, dropping a lane is one index_select. Gradients accumulate in a row as well, and
after every step it is known which parameters got none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optsweep.optim.layout import Layout, flatten
from optsweep.optim.rule import State
from optsweep.train.checkpoint import module_state, of_lane, restore_module, stacked
from optsweep.train.forward import Tensors


class _Selected(dict[str, Tensor]):
    """Lanes of stacked tensors, copied when one is asked for: an optimizer's state is large, and little of it read."""

    def __init__(self, tensors: Mapping[str, Tensor], lanes: Tensor) -> None:
        super().__init__()
        self._tensors, self._lanes = tensors, lanes

    def __missing__(self, name: str) -> Tensor:
        self[name] = self._tensors[name].index_select(0, self._lanes)
        return self[name]


@dataclass(frozen=True)
class SomeLanes:
    """Some lanes of an arena, as it has them."""

    module: nn.Module
    params: Tensor
    state: State
    frozen: Tensors
    buffers: Tensors

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return self.params.shape[0]


class Arena:
    """Parameters `params [K, P]`, gradients `grads [K, P]` and the optimizer's state, of one model per lane.

    Alone (`stacked` false), the one module lives in the row. Otherwise the first is a template that `torch.func.vmap`
    calls with `leaves`, `frozen` (every parameter that isn't in the row) and `buffers`, all of them `[K, …]`; in `low`
    precision if that is given. Where gradients are `apart`, a pass gives each parameter one of its own, and `gather`
    puts them into the row at once: less to do on a GPU than to add each to its part. As long as `placed` is the same
    object, all tensors lie where they are.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        layout: Layout,
        *,
        stacked: bool,
        device: torch.device,
        dtype: torch.dtype,
        low: torch.dtype | None = None,
    ) -> None:
        if not stacked and len(models) != 1:
            raise ValueError(f"the plain path holds one lane, not {len(models)}")
        self.layout, self.stacked, self.device, self.low = layout, stacked, device, low
        where = next(models[0].parameters()).device  # rows move to the device at once
        rows = [flatten(layout, dict(model.named_parameters()), dtype=dtype, device=where) for model in models]
        self.params = torch.cat(rows).to(device)
        self.apart = False
        self.state: State = {}
        self.frozen: Tensors = {}
        self.buffers: Tensors = {}
        if stacked:
            names = {slot.name for slot in layout.slots}
            parameters = [dict(model.named_parameters()) for model in models]
            buffers = [dict(model.named_buffers()) for model in models]
            self.frozen = {n: self._stack([p[n] for p in parameters]) for n in parameters[0] if n not in names}
            self.buffers = {n: self._stack([b[n] for b in buffers]) for n in buffers[0]}
        self.module = models[0].to(device)
        self._bind()

    @property
    def lanes(self) -> int:
        """Number of lanes, padding included."""
        return self.params.shape[0]

    def part(self, lanes: Sequence[int]) -> SomeLanes:
        """Copies of these lanes, to be looked at."""
        index = torch.tensor(lanes, device=self.device)
        return SomeLanes(
            self.module,
            self.params.index_select(0, index),
            _Selected(self.state, index),
            {name: value.index_select(0, index) for name, value in self.frozen.items()},
            {name: buffer.index_select(0, index) for name, buffer in self.buffers.items()},
        )

    def keep(self, lanes: Sequence[int]) -> None:
        """Keep only the lanes at these places, in this order; a lane may be kept twice."""
        index = torch.tensor(lanes, device=self.device)
        self.params = self.params.index_select(0, index)
        for held in (self.frozen, self.buffers, self.state):
            held.update({name: tensor.index_select(0, index) for name, tensor in held.items()})
        self._bind()

    def put(self, lanes: Sequence[int], other: Arena) -> None:
        """Take over the lanes of another arena of such models: the first in these places, the others behind all."""
        index, count = torch.tensor(lanes, dtype=torch.long, device=self.device), len(lanes)
        stacks = [(self.frozen, other.frozen), (self.buffers, other.buffers), (self.state, other.state)]
        self.params.index_copy_(0, index, other.params[:count])
        for ours, theirs in stacks:
            for name, tensor in ours.items():
                tensor.index_copy_(0, index, theirs[name][:count])
        if other.lanes > count:
            self.params = torch.cat([self.params, other.params[count:]])
            for ours, theirs in stacks:
                ours.update({name: torch.cat([tensor, theirs[name][count:]]) for name, tensor in ours.items()})
            self._bind()

    def state_of(self, lane: int) -> dict[str, Any]:
        """Everything that a lane's model and optimizer hold, copied to the host, but for gradients."""
        own = {"params": self.params[lane].to("cpu", copy=True), "state": of_lane(self.state, lane)}
        if self.stacked:
            return {**own, "frozen": of_lane(self.frozen, lane), "buffers": of_lane(self.buffers, lane)}
        return {**own, "module": module_state(self.module, without=self.leaves)}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Give the only lane what `state_of` has kept of one."""
        self.placed = object()
        self.params.copy_(saved["params"].unsqueeze(0))
        self.state = stacked([saved["state"]], self.device)
        if self.stacked:
            self.frozen = stacked([saved["frozen"]], self.device)
            self.buffers = stacked([saved["buffers"]], self.device)
        else:
            restore_module(self.module, saved["module"])

    def views(self, row: Tensor) -> Tensors:
        """The model's parameters in `row [K, P]`, by name: `[K, *shape]`, or `[*shape]` on the plain path."""
        return {name: view if self.stacked else view[0] for name, view in self.layout.views(row)}

    def buffers_of(self, lane: int) -> Tensors:
        """The buffers of a lane's model, as its last forward pass left them."""
        if self.stacked:
            return {name: buffer[lane] for name, buffer in self.buffers.items()}
        return dict(self.module.named_buffers())

    def open_step(self) -> None:
        """No gradients; the parameters are copied into the low-precision row that lanes read."""
        if self.apart:
            for leaf in self._leaves:
                leaf.grad = None
        else:
            self._low_grads.zero_()
            self._version = self._low_grads._version
        if self.low is not None:
            self._low_params.copy_(self.params)

    def gather(self, passes: int = 1) -> list[str]:
        """Complete `grads` after so many backward passes; returns the parameters that they gave no gradient.

        A pass adds to each parameter's view of the row once, and views share the row's count of changes: one look at
        it, and no question to the device, says that all are there.
        """
        if self.apart:
            missing = self._collect()
        elif self._low_grads._version - self._version == passes * len(self._leaves):
            missing = []
        else:
            missing = [name for name, view in zip(self.leaves, self._views, strict=True) if self._misses(name, view)]
        if self.low is not None:
            self.grads.copy_(self._low_grads)
        return missing

    @torch.no_grad()
    def _collect(self) -> list[str]:
        """Put gradients that lie apart into their row; returns the names of those that there are none of."""
        missing = [name for name, leaf in self.leaves.items() if leaf.grad is None]
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self._leaves]
        if self.stacked:  # views of lanes are strided: one kernel for all of them
            parts = [grad.reshape(self.lanes, -1) for grad in grads]
            for place, zeros in reversed(self._gaps):
                parts.insert(place, zeros)
            torch.cat(parts, 1, out=self._low_grads)
        else:
            torch._foreach_copy_(self._views, grads)
        for leaf in self._leaves:
            leaf.grad = None
        return missing

    def _misses(self, name: str, view: Tensor) -> bool:
        """Whether a parameter has no gradient, where some lack; one that the model put elsewhere is fetched.

        A gradient of zeros counts as none: then the parameter is trained by itself, to the same numbers.
        """
        leaf = self.leaves[name]
        if leaf.grad is not None and leaf.grad is not view:
            view.zero_().add_(leaf.grad)
        missing = leaf.grad is None or (leaf.grad is view and not view.any())
        leaf.grad = view
        return missing

    def check(self) -> None:
        """Raise if the model's parameters have left the row, as `model.double()` in a forward pass makes them."""
        if self.stacked:
            return
        parameters = dict(self.module.named_parameters())
        for (name, leaf), pointer in zip(self.leaves.items(), self._pointers, strict=True):
            if parameters.get(name) is not leaf or leaf.data_ptr() != pointer:
                raise RuntimeError(
                    f"parameter {name} has left the arena: the model replaced it during training (model.double(), a "
                    f"new nn.Parameter); it must not"
                )

    def _bind(self) -> None:
        """Point the leaves at the rows."""
        self.placed = object()
        self.grads = self._low_grads = torch.zeros_like(self.params)
        row = self.params
        if self.low is not None:
            row = self._low_params = self.params.to(self.low)
            self._low_grads = torch.zeros_like(row)
        values = self.views(row)
        if self.stacked:
            self.leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        else:
            parameters = dict(self.module.named_parameters())
            self.leaves = {name: parameters[name] for name in values}
            for name, leaf in self.leaves.items():
                leaf.data = values[name]
        self._leaves = list(self.leaves.values())
        self._pointers = [leaf.data_ptr() for leaf in self._leaves]
        self._views = list(self.views(self._low_grads).values())
        self._version = 0
        self._gaps = self._zeros(row)
        for leaf, view in zip(self._leaves, self._views, strict=True):
            leaf.grad = view

    def _zeros(self, row: Tensor) -> list[tuple[int, Tensor]]:
        """What lies between parameters, each with the number of parameters before it."""
        ends = [0, *(slot.offset + slot.numel for slot in self.layout.slots)]
        begins = [*(slot.offset for slot in self.layout.slots), self.layout.size]
        gaps = [begin - end for begin, end in zip(begins, ends, strict=True)]
        return [(place, row.new_zeros(self.lanes, gap)) for place, gap in enumerate(gaps) if gap]

    def _stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """One tensor per lane, beside low-precision parameters in their precision."""
        stacked = torch.stack([tensor.detach() for tensor in tensors]).to(self.device)
        return stacked.to(self.low) if self.low is not None and stacked.is_floating_point() else stacked
