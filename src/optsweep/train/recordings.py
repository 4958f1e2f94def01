"""Evaluations as replays of recorded ones (CUDA graphs): the same batches, other weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optsweep.tasks.nest import Nest
from optsweep.train.forward import Tensors
from optsweep.train.graphs import Recorder, Replay

Inputs = tuple[Tensors, Tensors, Tensors]
"""Weights, frozen parameters and buffers."""

Scored = tuple[Tensor, Nest, Nest, int]
"""The loss of a batch, what the meter is to know, the batch, and its number of samples."""


@dataclass(frozen=True)
class _Recorded:
    """What repeats an evaluation, where it reads its inputs, and where it leaves what it found."""

    replay: Replay
    inputs: Inputs
    scored: Sequence[Scored]


class Recordings:
    """Evaluations by key: one that comes a second time is recorded then, if that can be, and repeated from then on."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._known: dict[Hashable, _Recorded | None] = {}
        self._once: set[Hashable] = set()

    def scored(
        self,
        key: Hashable,
        inputs: Inputs,
        batches: Callable[[], Iterable[tuple[Nest, int]]],
        scores_of: Callable[[Inputs], Callable[[Nest], tuple[Tensor, Nest]]],
    ) -> Iterator[Scored] | None:
        """What an evaluation of `inputs` finds, valid until the next one; None: it has to be made.

        Every key has its own number of lanes and its own batches. `scores_of` gives what scores a batch.
        """
        if key not in self._known:
            if key not in self._once:
                self._once.add(key)
                return None
            self._known[key] = self._record(inputs, list(batches()), scores_of)
        known = self._known[key]
        if known is None:
            return None
        for places, tensors in zip(known.inputs, inputs, strict=True):
            for name, place in places.items():
                place.copy_(tensors[name])
        with self._recorder.running():
            known.replay()
        return iter(known.scored)

    def _record(
        self,
        inputs: Inputs,
        batches: Sequence[tuple[Nest, int]],
        scores_of: Callable[[Inputs], Callable[[Nest], tuple[Tensor, Nest]]],
    ) -> _Recorded | None:
        weights, frozen, buffers = ({name: t.detach().clone() for name, t in group.items()} for group in inputs)
        scored: list[Scored] = []

        @torch.no_grad()
        def call() -> None:
            scores = scores_of((weights, frozen, buffers))
            scored[:] = [(*scores(batch), batch, count) for batch, count in batches]

        replay = self._recorder.record(call)
        return None if replay is None else _Recorded(replay, (weights, frozen, buffers), scored)
