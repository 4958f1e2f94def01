"""What a loop of the user's goes on from, if it asks for it: all that a trial holds at a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from optsweep.train.checkpoint import NotPlainError, Saved, as_plain, module_state, restore_module
from optsweep.train.own.faults import LoopError
from optsweep.train.own.optimizer import TrialOptimizer
from optsweep.train.randomness import generator_states, restore_generators


@runtime_checkable
class Stateful(Protocol):
    """What can be kept: a model, an optimizer, a scheduler, a scaler, or an object of the user's with these two."""

    def state_dict(self) -> Mapping[str, Any]:
        """Numbers, texts and tensors, in dictionaries, lists and tuples."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Go on from those."""


class Keeping(Protocol):
    """Who keeps what a loop holds."""

    @property
    def saved(self) -> Saved | None:
        """What the trial is to go on from."""

    def went_on(self) -> None:
        """It does."""

    def pause(self, state: Callable[[], Saved] | None) -> None:
        """A report was heard; `state` is what the loop holds, if it asked for that. May raise."""


class NotKept:
    """Nobody does."""

    saved = None

    def went_on(self) -> None:
        """Never."""

    def pause(self, state: Callable[[], Saved] | None) -> None:
        """Nothing."""


NOT_KEPT = NotKept()


@dataclass(frozen=True)
class Held:
    """The parts of a loop that go on."""

    models: Sequence[nn.Module]
    optimizers: Sequence[TrialOptimizer]
    others: Sequence[Stateful]
    device: torch.device

    def state(self) -> dict[str, Any]:
        """What they have come to, and the generators."""
        return {
            "models": [module_state(model) for model in self.models],
            "optimizers": [optimizer.saved() for optimizer in self.optimizers],
            "others": [_state_of(other) for other in self.others],
            "generators": generator_states(self.device),
        }

    def restore(self, saved: Saved) -> None:
        """Go on from there. An optimizer's rows are made of the parameters as they are, so models come first."""
        for model, state in zip(self.models, saved["models"], strict=True):
            restore_module(model, state)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.restore(state)
        for other, state in zip(self.others, saved["others"], strict=True):
            if isinstance(other, nn.Module):
                restore_module(other, state)
            else:
                other.load_state_dict(state)
        restore_generators(self.device, saved["generators"])

    def check(self) -> None:
        """Raise LoopError for something that can't be kept."""
        for number, other in enumerate(self.others, 1):
            if not isinstance(other, Stateful):
                raise LoopError(
                    f"trial.resume(): argument {number} is {type(other).__name__}; give what has state_dict and "
                    f"load_state_dict"
                )
            try:
                as_plain(_state_of(other), "state_dict()")
            except NotPlainError as error:
                raise LoopError(
                    f"trial.resume(): argument {number}: {error}, which can't be kept; give tensors, numbers and texts"
                ) from None


def _state_of(other: Stateful) -> Mapping[str, Any]:
    """Of a module all that it holds, beside its `state_dict` buffers that aren't persistent."""
    return module_state(other) if isinstance(other, nn.Module) else other.state_dict()
