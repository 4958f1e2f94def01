"""A module called in lanes: torch.func.vmap without what it looks at in every call, and linear layers as one product.

vmap takes its arguments apart and puts them together in Python, which for a small model takes as long as its forward
pass. A linear layer it computes as a product, a product of the bias by one and a sum, each a pass over fresh memory;
here the bias is added in place: the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import (
    _add_batch_dim,
    _remove_batch_dim,
    _vmap_decrement_nesting,
    _vmap_increment_nesting,
    current_level,
    get_unwrapped,
    maybe_get_bdim,
    maybe_get_level,
)
from torch.func import vmap

from optsweep.tasks.nest import Nest, mapped

Stacked = dict[str, Tensor]


def in_lanes(module: nn.Module, function: Callable[[nn.Module, Nest], Any], *, shared: bool) -> Callable[..., Any]:
    """`function` in lanes: (parameters, frozen ones, buffers, batch), each stacked, the batch unless it is `shared`.

    As torch.func.functional_call does it, with every tensor put in all its places, which are found once and not in each
    call. Raises what vmap raises where a model draws at random or asks for a tensor's values.
    """
    _load()
    places, forwards = _places(module), _forwards(module)

    def run(params: Stacked, frozen: Stacked, buffers: Stacked, batch: Nest) -> Any:
        tensors = {**params, **frozen, **buffers}
        lanes = next(iter(tensors.values())).shape[0]
        swapped = [(held, key, tensor) for name, tensor in tensors.items() for held, key in places[name]]
        before = [held[key] for held, key, _ in swapped]
        level = _vmap_increment_nesting(lanes, "error")
        try:
            for held, key, tensor in swapped:
                held[key] = _add_batch_dim(tensor, 0, level)
            for attributes, forward in forwards:
                attributes["forward"] = forward
            inputs = batch if shared else mapped(lambda tensor: _add_batch_dim(tensor, 0, level), batch)
            outputs = function(module, inputs)
            return mapped(lambda tensor: _remove_batch_dim(tensor, level, lanes, 0), outputs)
        finally:
            for attributes, _ in forwards:
                attributes.pop("forward", None)
            for (held, key, _), tensor in zip(swapped, before, strict=True):
                held[key] = tensor
            _vmap_decrement_nesting()

    return run


@cache
def _load() -> None:
    """What vmap itself loads when it is first called."""
    vmap(torch.neg)(torch.zeros(1))


def _places(module: nn.Module) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Where a module's parameters and buffers lie, by their names; a tied one lies in several places."""
    of: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for child in module.modules():
        for held in (child._parameters, child._buffers):
            for key, tensor in held.items():
                of.setdefault(id(tensor), []).append((held, key))
    return {name: of[id(tensor)] for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def _forwards(module: nn.Module) -> list[tuple[dict[str, Any], Callable[[Tensor], Tensor]]]:
    """What linear layers that are torch's own compute in lanes, each with the attributes to put it in."""
    linear = [child for child in module.modules() if type(child) is nn.Linear and "forward" not in vars(child)]
    return [(vars(child), _forward(child._parameters)) for child in linear]


def _forward(held: Mapping[str, Tensor | None]) -> Callable[[Tensor], Tensor]:
    """Of a linear layer whose parameters are `held`."""

    def forward(inputs: Tensor) -> Tensor:
        weight, bias, level = held["weight"], held["bias"], current_level()
        assert weight is not None
        layer = (weight,) if bias is None else (weight, bias)
        if inputs.dim() < 2 or not all(
            maybe_get_level(t) == level and maybe_get_bdim(t) == 0 for t in (inputs, *layer)
        ):
            return F.linear(inputs, weight, bias)
        rows = get_unwrapped(inputs)
        product = torch.bmm(rows.flatten(1, -2), get_unwrapped(weight).mT)
        if bias is not None:
            product.add_(get_unwrapped(bias).unsqueeze(1))
        return _add_batch_dim(product.view(*rows.shape[:-1], product.shape[-1]), 0, level)

    return forward
