"""What the training loop asks of an optimizer; `update.Update` and `external.ExternalUpdate` are such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from optsweep.optim.rule import Domain, Floats, State


class Updater(Protocol):
    """One update of K rows of parameters `[K, P]`, and what the loop has to know of it."""

    @property
    def floats(self) -> Mapping[str, Domain]:
        """Float hyperparameters beside lr and weight_decay."""

    @property
    def period(self) -> int:
        """Rungs fall on multiples of this many steps."""

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

    def coefficients(self, hyper: Mapping[str, float], multipliers: Floats, first: int) -> dict[str, Floats]:
        """Numbers of every step from `first` on."""

    def step(self, params: Tensor, grads: Tensor, state: State, c: Mapping[str, Any], tick: int) -> None:
        """One update, in place."""

    def weights(self, params: Tensor, state: State, c: Mapping[str, Any]) -> Tensor:
        """The weights to evaluate."""

    def keep(self, lanes: Sequence[int]) -> None:
        """Keep what is held outside `state` of the lanes at these places, in this order; a lane may be kept twice."""

    def state_bytes(self, state: State) -> int:
        """Bytes of optimizer state of one lane."""
