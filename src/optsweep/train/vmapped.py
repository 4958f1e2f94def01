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
from torch.func import vmap

from optsweep.tasks.nest import Nest, mapped

try:
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

    BY_PARTS = True
except ImportError:
    BY_PARTS = False
"""Whether torch has the parts of vmap that are called here, which aren't public; else vmap is, to the same bits."""

Stacked = dict[str, Tensor]


def in_lanes(module: nn.Module, function: Callable[[nn.Module, Nest], Any], *, shared: bool) -> Callable[..., Any]:
    """`function` in lanes: (parameters, frozen ones, buffers, batch), each stacked, the batch unless it is `shared`.

    As torch.func.functional_call does it, with every tensor put in all its places, which are found once and not in each
    call. Raises what vmap raises where a model draws at random or asks for a tensor's values.
    """
    return (_by_parts if BY_PARTS else by_vmap)(module, function, shared=shared)


def by_vmap(module: nn.Module, function: Callable[[nn.Module, Nest], Any], *, shared: bool) -> Callable[..., Any]:
    """As `in_lanes`, by torch's public call, which takes the nests that torch knows."""
    places = _places(module)

    def call(tensors: Stacked, batch: Nest) -> Any:
        swapped = [(held, key, tensor) for name, tensor in tensors.items() for held, key in places[name]]
        before = [held[key] for held, key, _ in swapped]
        try:
            for held, key, tensor in swapped:
                held[key] = tensor
            return function(module, batch)
        finally:
            for (held, key, _), tensor in zip(swapped, before, strict=True):
                held[key] = tensor

    stacked = vmap(call, in_dims=(0, None if shared else 0), randomness="error")

    def run(params: Stacked, frozen: Stacked, buffers: Stacked, batch: Nest) -> Any:
        return stacked({**params, **frozen, **buffers}, batch)

    return run


def _by_parts(module: nn.Module, function: Callable[[nn.Module, Nest], Any], *, shared: bool) -> Callable[..., Any]:
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
    """What linear layers that are torch's own compute in lanes, each with the attributes to put it in.

    One whose weight is made anew in each call, as by pruning or torch.nn.utils.weight_norm, has no such parameter.
    """
    linear = [child for child in module.modules() if type(child) is nn.Linear and "forward" not in vars(child)]
    linear = [child for child in linear if {"weight", "bias"} <= child._parameters.keys()]
    return [(vars(child), _forward(child._parameters)) for child in linear]


def _forward(held: Mapping[str, Tensor | None]) -> Callable[[Tensor], Tensor]:
    """Of a linear layer whose parameters are `held`."""

    def forward(inputs: Tensor) -> Tensor:
        weight, bias, level = held["weight"], held["bias"], current_level()
        assert weight is not None
        layer = (weight,) if bias is None else (weight, bias)
        plain = all(maybe_get_level(t) == level and maybe_get_bdim(t) == 0 for t in (inputs, *layer))
        # Autocast, in a model of its own, rounds a bias before it is added.
        if not plain or inputs.dim() < 2 or torch.is_autocast_enabled(inputs.device.type):
            return F.linear(inputs, weight, bias)
        rows = get_unwrapped(inputs)
        product = torch.bmm(rows.flatten(1, -2), get_unwrapped(weight).mT)
        if bias is not None:
            product.add_(get_unwrapped(bias).unsqueeze(1))
        return _add_batch_dim(product.view(*rows.shape[:-1], product.shape[-1]), 0, level)

    return forward
