"""Any `torch.optim.Optimizer` class as an optimizer of an arm: one instance per lane, over views of that lane's row.

The learning rate is set before each step to that of the trial times the schedule's multiplier; weight decay in its
three modes and clipping are done here, outside, as for the rules. Its numbers stay on the host (`host_coefficients`),
because optimizers of torch take them as floats. The class's own keyword arguments are static: part of the arm.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optsweep.checks import as_declared, signature_of
from optsweep.errors import first_line
from optsweep.optim.composition import Composition
from optsweep.optim.iterate import BEGINNING, Past
from optsweep.optim.layout import Layout
from optsweep.optim.rule import Domain, Floats, Rule, State, Static
from optsweep.optim.sgd import SGD
from optsweep.optim.update import Decay, clip_

HostCoefficients = Mapping[str, "float | Tensor | Sequence[float]"]
"""A number per name with one lane, a list of K numbers with several."""


class ExternalUpdate:
    """An update by a torch.optim.Optimizer class, with the interface of `optim.update.Update`.

    Raises ValueError, in one line, for a class that is none, needs a closure, or doesn't take its arguments.
    """

    host_coefficients = True
    period = 1
    notes: Sequence[str] = ()

    def __init__(
        self,
        cls: Callable[..., Any],
        kwargs: Mapping[str, Any],
        layout: Layout,
        *,
        decay: Decay = Decay.NONE,
        clip_norm: float | None = None,
    ) -> None:
        if layout.factors:
            raise ValueError("task.groups: lr_factor is for optsweep's rules; optimizer=external has one learning rate")
        self.layout = layout
        self.decay = decay
        self.clip_norm = clip_norm
        self._name = _name_of(cls)
        self._kwargs = dict(kwargs)
        self._build = _constructor(cls, kwargs, decay)
        self._optimizers: list[torch.optim.Optimizer] = []
        self._bound: tuple[int, int] = (0, 0)

    @property
    def relevant(self) -> frozenset[str]:
        """The two."""
        return frozenset({"lr", "weight_decay"})

    @property
    def identity(self) -> Mapping[str, Static]:
        """The class and its arguments."""
        return {"rule": self._name, **{key: repr(value) for key, value in sorted(self._kwargs.items())}}

    @property
    def floats(self) -> Mapping[str, Domain]:
        """None beside `lr` and `weight_decay`: the class's own arguments are static."""
        return {}

    def kind(self, tick: int) -> None:
        """Nobody knows what an optimizer keeps on the host."""

    def init(self, params: Tensor) -> State:
        """One optimizer per lane; their state is theirs (`state_bytes`, `state_dict`), so this is empty.

        Raises what the class raises if it refuses such parameters; `updater.try_out` finds that before any trial.
        """
        self._optimizers = [self._optimizer(lane) for lane in params]
        self._bound = (0, 0)
        return {}

    def coefficients(
        self, hyper: Mapping[str, float], multipliers: Floats, past: Past = BEGINNING
    ) -> dict[str, Floats]:
        """Learning rate, 1 − the decoupled or independent decay, and λ of l2, of the steps after `past`."""
        lr = hyper["lr"] * multipliers
        weight_decay = 0.0 if self.decay is Decay.NONE else hyper["weight_decay"]
        factor = {Decay.DECOUPLED: lr, Decay.INDEPENDENT: multipliers}.get(self.decay, np.zeros_like(lr))
        return {"lr": lr, "keep": 1 - factor * weight_decay, "l2": np.full(len(lr), weight_decay)}

    @torch.no_grad()
    def step(self, params: Tensor, grads: Tensor, state: State, c: HostCoefficients, tick: int) -> None:
        """Move `params` by one step, in place; `grads` may be overwritten."""
        if self._bound != (params.data_ptr(), grads.data_ptr()):
            self._bind(params, grads)
        if self.clip_norm is not None:
            clip_(grads, self.clip_norm)
        decayed = self.layout.decayed
        for k, optimizer in enumerate(self._optimizers):
            if self.decay is Decay.L2:
                grads[k, :decayed].add_(params[k, :decayed], alpha=_of_lane(c["l2"], k))
            elif self.decay is not Decay.NONE:
                params[k, :decayed].mul_(_of_lane(c["keep"], k))
            for group in optimizer.param_groups:
                group["lr"] = _of_lane(c["lr"], k)
            optimizer.step()

    def weights(self, params: Tensor, state: State, c: HostCoefficients) -> Tensor:
        """`params`: the last iterate is what one ships."""
        return params

    def keep(self, lanes: Sequence[int]) -> None:
        """Keep only the lanes at these places, in this order; a lane may be kept twice."""
        optimizers = [self._optimizers[k] for k in lanes]
        for place, k in enumerate(lanes):
            if k in lanes[:place]:
                optimizers[place] = self._double(optimizers[place])
        self._optimizers = optimizers
        self._bound = (0, 0)

    def put(self, lanes: Sequence[int], other: ExternalUpdate) -> None:
        """Take over another's optimizers: the first in these places, the others behind all."""
        for place, optimizer in zip(lanes, other._optimizers, strict=False):
            self._optimizers[place] = optimizer
        self._optimizers += other._optimizers[len(lanes) :]
        self._bound = (0, 0)

    def held(self, lane: int) -> Any:
        """A lane's optimizer: its groups' numbers, and the state of each parameter.

        Not its `state_dict`: loading that casts a state to the parameter's dtype.
        """
        optimizer = self._optimizers[lane]
        groups = [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups]
        return {"groups": groups, "state": [optimizer.state.get(leaf) for leaf in _leaves(optimizer)]}

    def take_up(self, held: Sequence[Any]) -> None:
        """Give the lanes' optimizers what `held` has said."""
        for optimizer, theirs in zip(self._optimizers, held, strict=True):
            for group, saved in zip(optimizer.param_groups, theirs["groups"], strict=True):
                group |= copy.deepcopy(saved)
            for leaf, state in zip(_leaves(optimizer), theirs["state"], strict=True):
                if state is not None:
                    optimizer.state[leaf] = copy.deepcopy(state)  # two lanes may take up the same

    def state_bytes(self, state: State, lane: int = 0) -> int:
        """Bytes of one lane's state, once it has taken a step."""
        tensors = [t for s in self._optimizers[lane].state.values() for t in _tensors(s)]
        return sum(t.numel() * t.element_size() for t in tensors)

    def pieces(self, state: State) -> dict[str, State]:
        """The tensors that the one lane's optimizer keeps by parameter, but for its counts of steps."""
        (optimizer,) = self._optimizers
        return {
            slot.name: {key: v for key, v in optimizer.state[leaf].items() if isinstance(v, Tensor) and v.ndim}
            for slot, leaf in zip(self.layout.slots, _leaves(optimizer), strict=True)
        }

    def state_dict(self) -> list[dict[str, Any]]:
        """The optimizers' states, by lane."""
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take up states of `state_dict`."""
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(dict(state))

    def _optimizer(self, row: Tensor) -> torch.optim.Optimizer:
        """An optimizer of one lane's row `[P]`."""
        leaves = [view[0].detach().requires_grad_() for _, view in self.layout.views(row.unsqueeze(0))]
        return self._build(leaves)

    def _double(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """A second optimizer in the same state. (Deep copies of optimizers lose their attributes.)"""
        old = _leaves(optimizer)
        new = [leaf.detach().clone().requires_grad_() for leaf in old]
        double = self._build(new)
        for theirs, ours in zip(optimizer.param_groups, double.param_groups, strict=True):
            ours |= {key: copy.deepcopy(value) for key, value in theirs.items() if key != "params"}
        for before, after in zip(old, new, strict=True):
            if before in optimizer.state:
                double.state[after] = copy.deepcopy(optimizer.state[before])
        return double

    def _bind(self, params: Tensor, grads: Tensor) -> None:
        """Point the optimizers' parameters and gradients at these rows; their state goes by parameter, and stays."""
        for k, optimizer in enumerate(self._optimizers):
            values = self.layout.views(params[k : k + 1].detach())
            gradients = self.layout.views(grads[k : k + 1])
            for leaf, (_, value), (_, gradient) in zip(_leaves(optimizer), values, gradients, strict=True):
                leaf.data = value[0]
                leaf.grad = gradient[0]
        self._bound = (params.data_ptr(), grads.data_ptr())


@dataclass(frozen=True)
class ExternalComposition(Composition):
    """A class of torch optimizers in the place of a rule, for a loop of one's own."""

    rule: Rule = field(default_factory=SGD)  # stands for it where parameters are asked for their roles
    cls: Callable[..., Any] = torch.optim.SGD
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def floats(self) -> Mapping[str, Domain]:
        """None: the class's own arguments are static."""
        return {}

    def update(self, layout: Layout, weight_decay: float) -> ExternalUpdate:
        """The update of a row; see `Composition`."""
        return ExternalUpdate(self.cls, self.kwargs, layout, decay=self.decay if weight_decay else Decay.NONE)


def _constructor(
    cls: Callable[..., Any], kwargs: Mapping[str, Any], decay: Decay
) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """A function from parameters to an optimizer, tried out on a small matrix."""
    name = _name_of(cls)
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise ValueError(f"optimizer._target_={name} is not a torch.optim.Optimizer class")
    parameters = signature_of(cls)
    known = [p.name for p in list(parameters.values())[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if unknown := sorted(kwargs.keys() - set(known)):
        raise ValueError(
            f"optimizer.{unknown[0]} is no argument of {name}; it has {', '.join(known)} (for one choice of a grid "
            f"alone: optimizer.external._target_=…)"
        )
    for key, value in kwargs.items():
        as_declared(f"optimizer.{key}", value, parameters[key])
    if decay is not Decay.NONE and kwargs.get("weight_decay"):
        raise ValueError(f"optimizer.weight_decay of {name} and weight_decay={decay} are two decays; give one of them")
    if needs_closure(cls):
        raise ValueError(f"optimizer._target_={name} needs a closure that computes the loss, which isn't supported")
    arguments: dict[str, Any] = {"weight_decay": 0.0} if "weight_decay" in known else {}
    arguments |= kwargs

    def build(leaves: list[Tensor]) -> torch.optim.Optimizer:
        return cls(leaves, **arguments)

    trial = torch.ones(4, 4, requires_grad=True)
    trial.grad = torch.ones(4, 4)
    try:
        optimizer = build([trial])
    except Exception as error:
        raise ValueError(f"optimizer._target_={name} refuses its arguments: {first_line(error)}") from error
    try:
        optimizer.step()
    except Exception as error:
        raise ValueError(f"optimizer._target_={name} can't take a plain step: {first_line(error)}") from error
    return build


def _leaves(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Its parameters, in order."""
    return [leaf for group in optimizer.param_groups for leaf in group["params"]]


def _name_of(cls: object) -> str:
    """The dotted name of a class, or what stands in its place."""
    return f"{cls.__module__}.{cls.__qualname__}" if isinstance(cls, type) else repr(cls)


def needs_closure(cls: type[torch.optim.Optimizer]) -> bool:
    """Whether `step` has a closure that isn't optional."""
    parameter = inspect.signature(cls.step).parameters.get("closure")
    return parameter is not None and parameter.default is parameter.empty


def _of_lane(value: float | Tensor | Sequence[float], k: int) -> float:
    """Lane k's number."""
    return value if isinstance(value, float) else float(value[k])


def _tensors(value: object) -> list[Tensor]:
    """All tensors in a nest of dictionaries and sequences."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]
