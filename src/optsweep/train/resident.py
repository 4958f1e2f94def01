"""Steps whose numbers lie on the device, so that one can be recorded and repeated (CUDA graphs).

A step of a small model is fifty kernels of two microseconds each, which Python takes a millisecond or two to launch.
Whatever differs from step to step lies on the device before a stretch begins: the samples' indices, the numbers of the
update, and a counter, by which a recorded step finds its own and the places of its loss and its norms.

A step that isn't recorded is taken by the same calls: the first ones, in which libraries prepare themselves, those of
which no two are alike, and all of a kind whose recording has failed. So the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from optsweep.optim.rule import Coefficients, State
from optsweep.optim.update import norm_of
from optsweep.optim.updater import Updater
from optsweep.tasks.data import Indexed, Stretch
from optsweep.tasks.nest import Nest
from optsweep.train.arena import Arena
from optsweep.train.graphs import Graphs, Recorder, Replay
from optsweep.train.lanes import StepNumbers
from optsweep.train.program import Program
from optsweep.train.record import Record
from optsweep.train.steps import Take

WARM = 2
"""Steps that are taken before one is recorded; in the last of them nothing may wait for the device."""

Backward = Callable[[Iterator[Nest]], Tensor]


class Resident:
    """Steps of one arena, as long as it is `placed` as it was: whoever moves its tensors makes a new one of this."""

    def __init__(self, program: Program, arena: Arena, update: Updater, data: Indexed, backward: Backward) -> None:
        self.arena, self.update, self.data, self.backward = arena, update, data, backward
        self.parts, self.batch_size = program.accumulate, program.batch_size
        self.placed = arena.placed
        self._recorder: Recorder | None = Graphs(program.device)
        self._update_step = _compiled(update) if program.compiled else update.step
        self._ratio = torch.compile(_ratio, dynamic=False) if program.compiled else _ratio
        self._at = torch.zeros(1, dtype=torch.int64, device=arena.device)
        self._room = self._taken = 0
        self._ahead: list[Stretch] = []
        self._names: tuple[str, ...] = ()
        self._recorded: dict[tuple[Hashable, bool], Replay | None] = {}

    def running(self) -> AbstractContextManager[object]:
        """Inside, steps may be taken."""
        return self._recorder.running() if self._recorder else nullcontext()

    def taking(self, spans: Sequence[Stretch], plan: StepNumbers, record: Record) -> Take:
        """Upload what the steps of a stretch need; returns what takes them, in their order."""
        steps = spans[0].end - spans[0].first
        if steps > self._room or plan.names != self._names:
            self._make_room(steps, plan.names)
        # Rounded on the host, as elsewhere.
        values = torch.from_numpy(plan.stacked(self.arena.lanes)).to(self._numbers.dtype)
        self._numbers[:steps].copy_(values)
        self._draw(spans)
        self._indices[:steps].copy_(self._drawn[:steps], non_blocking=True)
        self._at.zero_()

        def take(tick: int) -> Sequence[str]:
            logged, missing = tick in record.logged, []
            if (replay := self._replay(tick, logged=logged)) is not None:
                replay()
            else:
                missing = self._take(tick, logged=logged)
            self._taken += 1
            offset = tick - plan.first
            record.loss(self._loss_of[offset])
            if logged:
                record.norms(self._norms[offset], self._ratios[offset])
            return missing

        return take

    def look_ahead(self, spans: Sequence[Stretch]) -> None:
        """Draw the samples of the steps that are expected next, while the device is at work.

        What was drawn before has been uploaded.
        """
        if spans:
            self._draw(spans)

    def _draw(self, spans: Sequence[Stretch]) -> None:
        """Indices of the samples of these steps, on the host; those that are there already are left."""
        there = self._ahead
        for place, span in enumerate(spans):
            if place >= len(there) or there[place] != span:
                drawn = self.data.order(span.seed, span.first, span.end - span.first, self.batch_size)
                self._host[: len(drawn), place] = drawn
        self._ahead = list(spans)

    def _make_room(self, steps: int, names: tuple[str, ...]) -> None:
        """Tensors for stretches as long as this; what was recorded with others is forgotten."""
        like, lanes = self.arena.params, self.arena.lanes
        self._recorded.clear()
        self._recorder = Graphs(like.device) if self._recorder else None
        self._room, self._names, self._ahead = steps, names, []
        shape, pinned = (steps, lanes, self.batch_size), like.is_cuda
        drawn, indices = (
            torch.empty(shape, dtype=torch.int64, pin_memory=pinned),
            like.new_empty(shape, dtype=torch.int64),
        )
        self._host = drawn.numpy()
        self._drawn, self._indices = (drawn, indices) if self.arena.stacked else (drawn[:, 0], indices[:, 0])
        self._numbers = like.new_empty(steps, len(names), lanes)
        self._losses, self._norms, self._ratios = (like.new_empty(steps, lanes) for _ in range(3))
        self._loss_of = (self._losses if self.arena.stacked else self._losses[:, 0]).unbind()

    def _replay(self, tick: int, *, logged: bool) -> Replay | None:
        """What repeats a step like this; None: it has to be taken."""
        kind = self.update.kind(tick)
        if self._recorder is None or self._taken < WARM or kind is None:
            return None
        key = kind, logged
        if key not in self._recorded:
            self._recorded[key] = self._record(self._recorder, tick, logged=logged)
        return self._recorded[key]

    def _record(self, recorder: Recorder, tick: int, *, logged: bool) -> Replay | None:
        """Record a step; None if it gives something anew instead of changing it in place, or can't be recorded."""
        state, missing = dict(self.arena.state), []
        replay = recorder.record(lambda: missing.extend(self._step(tick, logged=logged)))
        anew = self._anew(state)
        self.arena.state.clear()
        self.arena.state.update(state)
        return None if anew or missing else replay

    def _anew(self, state: State) -> bool:
        """Whether some of the arena's state are no longer these tensors."""
        return any(tensor is not state.get(name) for name, tensor in self.arena.state.items())

    def _take(self, tick: int, *, logged: bool) -> list[str]:
        """Take a step; what waits for the device in the last one before recordings is never recorded.

        Nor goes a recording on that reads state which another kind of step gives anew.
        """
        if self._recorder is None:
            return self._step(tick, logged=logged)
        state = dict(self.arena.state)
        with self._recorder.watched() if self._taken == WARM - 1 else nullcontext(()) as waits:
            missing = self._step(tick, logged=logged)
        if waits or (self._anew(state) and any(self._recorded.values())):
            self._recorder = None
        return missing

    def _step(self, tick: int, *, logged: bool) -> list[str]:
        """What a step does, the same calls for all of its kind."""
        arena, at, parts = self.arena, self._at, self.parts
        index = self._indices.index_select(0, at)[0]
        loss = self.backward(self.data.gather(part) for part in (index.chunk(parts, -1) if parts > 1 else (index,)))
        missing = arena.gather(parts)
        numbers = self._numbers.index_select(0, at)[0].unsqueeze(-1).unbind()
        c = dict(zip(self._names, numbers, strict=True))
        if logged:
            before = arena.params.clone()
            self._norms.index_copy_(0, at, norm_of([arena.grads]).unsqueeze(0))
        self._update_step(arena.params, arena.grads, arena.state, c, tick)
        if logged:
            self._ratios.index_copy_(0, at, self._ratio(arena.params, before).unsqueeze(0))
        self._losses.index_copy_(0, at, loss.reshape(1, -1).to(self._losses.dtype))
        at.add_(1)
        return missing


def _ratio(after: Tensor, before: Tensor) -> Tensor:
    """‖Δθ‖/‖θ‖ of every lane."""
    return norm_of([after - before]) / norm_of([before])


def _compiled(update: Updater) -> Callable[..., None]:
    """`update.step` by torch.compile, once for each kind of step."""
    like: dict[Hashable, int] = {}
    compiled_step: Callable[..., None] = torch.compile(update.step, dynamic=False)

    def step(params: Tensor, grads: Tensor, state: State, c: Coefficients, tick: int) -> None:
        kind = update.kind(tick)
        if kind is None:
            update.step(params, grads, state, c, tick)
        else:
            compiled_step(params, grads, state, c, like.setdefault(kind, tick))

    return step
