"""What the training loop asks of an optimizer; `update.Update` and `external.ExternalUpdate` are such."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from optsweep.errors import first_line
from optsweep.optim.iterate import BEGINNING, Past
from optsweep.optim.layout import Layout
from optsweep.optim.rule import Domain, Floats, State, Static


class Updater(Protocol):
    """One update of K rows of parameters `[K, P]`, and what the loop has to know of it."""

    @property
    def floats(self) -> Mapping[str, Domain]:
        """Float hyperparameters beside lr and weight_decay."""

    @property
    def relevant(self) -> frozenset[str]:
        """Hyperparameters that have an effect, lr and weight_decay among them."""

    @property
    def identity(self) -> Mapping[str, Static]:
        """What tells its algorithm from another, without hyperparameters."""

    @property
    def layout(self) -> Layout:
        """Of the rows that it updates."""

    @property
    def period(self) -> int:
        """Lanes start at multiples of this many steps."""

    def kind(self, tick: int) -> Hashable | None:
        """What kind of step the loop's `tick` is: all of one kind do the same on the device; None: it stands alone."""

    @property
    def notes(self) -> Sequence[str]:
        """What a user should know about it on this model, a line each."""

    clip_norm: float | None
    """The norm down to which `step` scales the gradients of a row; None: it doesn't."""

    @property
    def host_coefficients(self) -> bool:
        """Whether `step` takes its numbers as lists of floats on the host instead of `[K, 1]` tensors."""

    def init(self, params: Tensor) -> State:
        """State for parameters `[K, P]`."""

    def coefficients(
        self, hyper: Mapping[str, float], multipliers: Floats, past: Past = BEGINNING
    ) -> dict[str, Floats]:
        """Numbers of the steps after `past`, given the schedule's multipliers there."""

    def step(self, params: Tensor, grads: Tensor, state: State, c: Mapping[str, Any], tick: int) -> None:
        """One update, in place."""

    def weights(self, params: Tensor, state: State, c: Mapping[str, Any]) -> Tensor:
        """The weights to evaluate."""

    def keep(self, lanes: Sequence[int]) -> None:
        """Keep what is held outside `state` of the lanes at these places, in this order; a lane may be kept twice."""

    def put(self, lanes: Sequence[int], other: Any) -> None:
        """Take over what another one like this holds outside `state`, as `Arena.put` takes over its rows."""

    def held(self, lane: int) -> Any:
        """What is held outside `state` of a lane, in dictionaries, lists, numbers and tensors; not copied."""

    def take_up(self, held: Sequence[Any]) -> None:
        """Go on with what was held of lanes, after `init`."""

    def state_bytes(self, state: State, lane: int = 0) -> int:
        """Bytes of optimizer state of one lane."""


class Separable(Updater, Protocol):
    """An updater whose state can be told apart by parameter, so that a row of it can be cut."""

    def pieces(self, state: State) -> dict[str, State]:
        """The state of the one lane by parameter: views that don't depend on what else is in the row."""


def try_out(update: Updater, *, dtype: torch.dtype, device: torch.device) -> None:
    """One step on zero gradients of a scratch row, so that what refuses this model does so before any trial.

    The second step of a run, because the first may be a refresh, which costs as much as many steps of a large model.
    Raises ValueError with one line.
    """
    params = torch.full((1, update.layout.size), 0.1, dtype=dtype, device=device)
    hyper = {"lr": 1e-3, "weight_decay": 0.0, **{name: domain.default for name, domain in update.floats.items()}}
    try:
        state = update.init(params)
        c = {
            name: float(values[0])
            for name, values in update.coefficients(hyper, np.ones(1), Past().after(np.ones(1))).items()
        }
        update.step(params, torch.zeros_like(params), state, c, 1)
        update.weights(params, state, c)
    except Exception as error:
        raise ValueError(f"optimizer: {update.identity['rule']} refuses this model: {first_line(error)}") from error
