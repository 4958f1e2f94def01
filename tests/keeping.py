"""A checkpointer for tests: cuts training off at one of its pauses, and gives back what came through a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from optsweep.train.checkpoint import Saved, as_plain


class CutError(Exception):
    """Training ends here."""


class Cutter:
    """Pauses after every step from the moment that it is made, and ends training at pause number `at`; None: never.

    `given` is what trials go on from.
    """

    due = 0.0

    def __init__(self, at: int | None = None, given: Mapping[int, Saved] | None = None) -> None:
        self.at, self.given = at, given or {}
        self.pauses = 0
        self.kept: dict[int, Any] = {}
        self.last: Mapping[int, Any] = {}  # at the last pause at which there was anything
        self.refused: list[str] = []

    def begin(self) -> None: ...

    def saved(self, key: int) -> Saved | None:
        return self.given.get(key)

    def unfit(self, keys: Collection[int], error: Exception) -> None:
        self.refused.append(f"{sorted(keys)}: {error!r}")

    def pause(self, states: Callable[[], Mapping[int, Saved]]) -> None:
        self.pauses += 1
        self.last = states() or self.last
        if self.pauses == self.at:
            self.kept = {key: through_a_file(state) for key, state in self.last.items()}
            raise CutError


def through_a_file(state: Saved) -> Any:
    """The state as another process reads it."""
    file = io.BytesIO()
    torch.save(as_plain(state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def alike(one: Any, other: Any) -> bool:
    """Whether two states are bitwise the same, but for seconds."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one if "seconds" not in str(k))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return repr(one) == repr(other)
