"""Trials that train together, from their first step to the end of the last: what a step does, and what a rung."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from optsweep.optim.rule import Coefficients
from optsweep.optim.update import clip_together
from optsweep.tasks.base import Split
from optsweep.tasks.data import Stretch
from optsweep.tasks.nest import Nest
from optsweep.train.arena import Arena
from optsweep.train.checkpoint import NO_CHECKPOINTS, Checkpointer, Saved
from optsweep.train.device import peak_bytes, reset_peak, synchronize
from optsweep.train.evaluate import block_losses, evaluate, spread
from optsweep.train.forward import Tensors
from optsweep.train.graphs import Graphs
from optsweep.train.lanes import coefficients, last_coefficients, open_lane, tables_of
from optsweep.train.program import Program
from optsweep.train.randomness import step_seeds
from optsweep.train.rare import Rare
from optsweep.train.record import Record
from optsweep.train.resident import Resident, compiled
from optsweep.train.trial import End, Outcome, Rung, Trial

# Gradients of lanes come back contiguous, the row's views are strided: accumulating in place is what is wanted here.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


class Observer(Protocol):
    """Who is told what happens; trials are named by their `key`."""

    def on_rung(self, key: int, rung: Rung) -> None:
        """A trial was evaluated."""

    def on_end(self, key: int, outcome: Outcome) -> None:
        """A trial ended; its last rung was told before."""


class Silent:
    """An observer that listens to nothing."""

    def on_rung(self, key: int, rung: Rung) -> None:
        """Nothing."""

    def on_end(self, key: int, outcome: Outcome) -> None:
        """Nothing."""


@dataclass(frozen=True)
class _Begun:
    """A stretch from one rung to the next in which some steps are done."""

    record: Record
    steps: int = 0
    seconds: float = 0.0


class MissedGradientError(Exception):
    """A step gave no gradient to parameters that every step before had: they are rare, and the trial begins again."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"no gradient for {', '.join(names)}")
        self.names = tuple(names)


class Run:
    """One arena and the trials in its lanes.

    `rare` are the parameters that not every step uses; `told` is the last step of which the observer has heard already.
    `restarts` says how often the trial began again for a rare one. With one trial in lanes there is a second that pads,
    so that its numbers don't depend on company.
    """

    def __init__(
        self,
        program: Program,
        trials: Sequence[Trial],
        observer: Observer,
        *,
        rare: Collection[str] = (),
        told: int = -1,
        restarts: int = 0,
        checkpointer: Checkpointer = NO_CHECKPOINTS,
    ) -> None:
        self.program, self.observer, self.told, self.checkpointer = program, observer, told, checkpointer
        self.restarts = restarts
        self.data = program.task.data(Split.TRAIN)
        layout = program.layout if program.stacked else program.layout_without(rare)
        # Where every parameter is rare, the row is empty: then this update lends only its numbers.
        self.update = program.build_update(layout if layout.slots else program.layout_without(()))
        self.lanes = [open_lane(program, trial) for trial in trials]
        if program.stacked and len(self.lanes) == 1:
            self.lanes.append(self.lanes[0].shadow())
        self.arena = Arena(
            [program.model(lane.trial.seed) for lane in self.lanes],
            layout,
            stacked=program.stacked,
            device=program.device,
            dtype=program.dtype,
            low=program.forward.low,
        )
        self.arena.state = self.update.init(self.arena.params) if layout.slots else {}
        self.arena.module.train()
        self.scratch = program.model(self.lanes[0].trial.seed).to(program.device)
        self.rare = [] if program.stacked else self._rare(rare)
        self.clip_norm = self.update.clip_norm
        if self.rare:  # clipping is by the norm of all gradients, so none of the updates does it
            for update in (self.update, *(one.update for one in self.rare)):
                update.clip_norm = None
        self.tick = 0
        self._begun: _Begun | None = None  # a stretch that was cut off
        self._goes_on = False
        self._resident: Resident | None = None

    def _rare(self, names: Collection[str]) -> list[Rare]:
        """Rows and updates of the rare parameters."""
        parameters = dict(self.arena.module.named_parameters())
        layouts = {name: self.program.layout_of_one(name) for name in parameters if name in names}
        return [Rare(n, parameters[n], layout, self.program.build_update(layout)) for n, layout in layouts.items()]

    def run(self) -> None:
        """Train to the end of the last trial. Raises MissedGradientError."""
        reset_peak(self.program.device)
        self.checkpointer.begin()
        if not self._goes_on:
            self._rung(None, 0.0)
            self.checkpointer.pause(self.states)
        while self.lanes:
            first = self.tick
            seconds = self.advance(min(lane.next_tick for lane in self.lanes))
            self._rung(1000 * seconds / (self.tick - first), seconds)
            self.checkpointer.pause(self.states)

    # -- training ------------------------------------------------------------------------------------------------

    def advance(self, end: int) -> float:
        """Train all lanes up to tick `end`; returns seconds."""
        program, arena, first = self.program, self.arena, self.tick
        begun, self._begun = self._begun or _Begun(Record(first, end, program.log_every, arena.lanes)), None
        record, done = begun.record, begun.steps
        spans = [Stretch(lane.trial.seed, first + done - lane.start, end - lane.start) for lane in self.lanes]
        take = self._residing(spans, first, end, record) or self._taking(spans, first, end, record)
        # In lanes nothing is drawn, as far as the model was seen; if it is, it doesn't depend on company.
        seeds = step_seeds(0 if program.stacked else self.lanes[0].trial.seed, first, end)
        program.traits.generators.everything().seeder()(seeds[done])
        seed = program.traits.generators.seeder()
        synchronize(program.device)
        clock, due, last = time.perf_counter, self.checkpointer.due, end - first - 1
        begin = clock() - begun.seconds
        with self._resident.running() if self._resident else nullcontext():
            for offset in range(done, end - first):
                seed(seeds[offset])
                take(first + offset)
                if clock() >= due and offset < last:  # the rung that follows the last step is a pause itself
                    begin, due = self._pause(record, offset + 1, begin)
        synchronize(program.device)
        seconds = clock() - begin
        arena.check()
        self.tick = end
        lrs = [
            lane.trial.hyper["lr"] * lane.multipliers.values[first - lane.start : end - lane.start]
            for lane in self.lanes
        ]
        for lane, points in zip(self.lanes, record.points(lrs, [lane.start for lane in self.lanes]), strict=True):
            lane.points += points
        return seconds

    def _taking(self, spans: Sequence[Stretch], first: int, end: int, record: Record) -> Callable[[int], None]:
        """A function that takes the step of a tick, of ticks in their order."""
        program, arena = self.program, self.arena
        numbers = coefficients(program, self.lanes, self.update, first, end)
        batches = self.data.training(spans, program.batch_size, program.accumulate, program.device)
        backward, step = self._backward(), self._rarely if self.rare else self._step

        def take(tick: int) -> None:
            record.loss(backward(batches))
            if missing := arena.gather(program.accumulate):
                self._miss(missing, tick)
            step(numbers[tick - first], tick, record)

        return take

    def _residing(self, spans: Sequence[Stretch], first: int, end: int, record: Record) -> Callable[[int], None] | None:
        """As `_taking`, of steps whose numbers lie on the device; None where they can't."""
        program, indexed = self.program, self.data.indexed
        if indexed is None or self.rare or not program.resident or self.update.host_coefficients:
            return None
        if (resident := self._resident) is None or resident.rows != self.arena.rows:
            recorder = Graphs(program.device) if program.recorded else None
            step = compiled(self.update) if program.compiled else None
            self.arena.apart = True
            resident = Resident(
                self.arena, self.update, indexed, self._backward(), program.accumulate, recorder, step
            )
            self._resident = resident
        done = spans[0].first - (first - self.lanes[0].start)
        tables = tables_of(self.lanes, self.update, first, end)
        resident.open(indexed.indices(spans, program.batch_size), tables, first, done)

        def take(tick: int) -> None:
            if missing := resident.step(tick, record):
                self._miss(missing, tick)

        return take

    def _pause(self, record: Record, steps: int, begin: float) -> tuple[float, float]:
        """Pause within a stretch; returns its beginning, put off by as long as that takes, and when the next is due."""
        synchronize(self.program.device)
        since = time.perf_counter()
        begun = _Begun(record, steps, since - begin)
        self.checkpointer.pause(lambda: self.states(begun))
        return begin + time.perf_counter() - since, self.checkpointer.due

    def _backward(self) -> Callable[[Iterator[Nest]], Tensor]:
        """A function of the step's batches that leaves gradients at the leaves and returns the mean loss, `[K]`."""
        program, arena, forward, parts = self.program, self.arena, self.program.forward, self.program.accumulate
        module, leaves, frozen, buffers = arena.module, arena.leaves, arena.frozen, arena.buffers
        stacked = program.stacked
        lanes_loss = forward.lanes_loss(module) if stacked else None
        plain_loss = torch.compile(forward.loss, dynamic=False) if program.compiled else forward.loss

        def autocast_loss(batch: Nest) -> Tensor:
            with forward.autocast():
                return plain_loss(module, batch)

        def loss_of(batch: Nest) -> Tensor:
            if lanes_loss is not None:
                return lanes_loss(leaves, frozen, buffers, batch)
            return plain_loss(module, batch) if program.precision == "fp32" else autocast_loss(batch)

        def backward(batches: Iterator[Nest]) -> Tensor:
            arena.open_step()
            for one in self.rare:
                one.open_step()
            total: Tensor | None = None
            for _ in range(parts):
                loss = loss_of(forward.cast(next(batches)))
                if parts > 1:
                    loss = loss / parts
                (loss.sum() if stacked else loss).backward()  # type: ignore[no-untyped-call]
                total = loss.detach() if total is None else total + loss.detach()
            assert total is not None
            return total

        return backward

    def _step(self, c: Coefficients, tick: int, record: Record) -> None:
        """One update of the row."""
        arena, logged = self.arena, tick in record.logged
        if logged:
            before = arena.params.clone()
            record.grad_norm([arena.grads])
        self.update.step(arena.params, arena.grads, arena.state, c, tick)
        if logged:
            record.update_ratio([before], [arena.params])

    def _rarely(self, c: Coefficients, tick: int, record: Record) -> None:
        """One update of the row, and of the rare parameters that have a gradient."""
        arena, lane = self.arena, self.lanes[0]
        for one in self.rare:
            one.gather()
        present = [one for one in self.rare if one.present]
        rows = [arena.params, *(one.row for one in self.rare)]
        grads = [arena.grads, *(one.grad for one in present)]
        logged = tick in record.logged
        if logged:
            before = [row.clone() for row in rows]
            record.grad_norm(grads)
        if self.clip_norm is not None:
            clip_together(grads, self.clip_norm)
        if arena.layout.slots:
            self.update.step(arena.params, arena.grads, arena.state, c, tick)
        for one in present:
            one.step(lane.trial.hyper, float(lane.multipliers.values[tick - lane.start]))
        if logged:
            record.update_ratio(before, rows)

    def _miss(self, names: Sequence[str], tick: int) -> None:
        """Raise what a missing gradient means."""
        if self.program.stacked:
            raise RuntimeError(
                f"parameter {names[0]} gets no gradient at step {tick}: what the model uses changes from step to step, "
                f"which lanes can't follow; give trainer.lanes=1"
            )
        raise MissedGradientError(names)

    # -- rungs ---------------------------------------------------------------------------------------------------

    def _rung(self, ms_per_step: float | None, seconds: float) -> None:
        """Evaluate all lanes, tell the observer of those whose rung it is, and drop those that ended."""
        weights = self._weights()
        val = evaluate(self.program, self.arena, self.scratch, weights, Split.VAL).tolist()
        trials = sum(not lane.padding for lane in self.lanes)
        spreads = [0.0] * len(self.lanes)
        if self.program.task.loss_floor is None and any(lane.start == self.tick for lane in self.lanes):
            spreads = spread(self.program, self.arena, self.scratch, weights).tolist()
        ended: dict[int, tuple[End, str]] = {}
        for k, lane in enumerate(self.lanes):
            lane.step = self.tick - lane.start
            lane.train_seconds += seconds / trials
            if lane.next_tick != self.tick:
                continue
            lane.rungs.pop(0)
            if lane.step == 0:
                lane.initial_loss = val[0][k]
                lane.spread = spreads[k]
            lane.best_loss = min(lane.best_loss, val[0][k])
            lane.multipliers.observe(val[0][k])
            points, lane.points = lane.points, []
            if not lane.padding and lane.step > self.told:
                peak = peak_bytes(self.program.device)
                aside = val[2][k] if self.program.task.decides else None
                found = val[0][k], val[1][k], tuple(points)
                rung = Rung(lane.step, *found, ms_per_step, peak, lane.train_seconds, aside)
                self.observer.on_rung(lane.trial.key, rung)
                self.told = lane.step if len(self.lanes) == 1 else self.told
            if (end := lane.verdict(self.program, val[0][k], points)) is not None:
                ended[k] = end
        if ended:
            self._finish(ended, val, weights)

    def _finish(self, ended: dict[int, tuple[End, str]], val: list[list[float]], weights: Tensors) -> None:
        """Tell the outcomes of ended lanes and compact the arena to the others."""
        tested = {k for k, (end, _) in ended.items() if self.lanes[k].trial.test and end is End.FINISHED}
        test: list[list[float]] = []
        if tested:
            test = evaluate(self.program, self.arena, self.scratch, weights, Split.TEST).tolist()
            blocks = block_losses(self.program, self.arena, self.scratch, weights).T.tolist()
        state_bytes = self.state_bytes()
        for k, (end, reason) in ended.items():
            lane = self.lanes[k]
            if lane.padding:
                continue
            buffers = {name: buffer.detach().cpu() for name, buffer in self.arena.buffers_of(k).items()}
            outcome = Outcome(
                end=end,
                step=lane.step,
                val_loss=val[0][k],
                val_score=val[1][k],
                test_loss=test[0][k] if k in tested else None,
                test_score=test[1][k] if k in tested else None,
                train_seconds=lane.train_seconds,
                state_bytes=state_bytes,
                reason=reason,
                test_blocks=tuple(blocks[k]) if k in tested else (),
                artifacts=self.program.task.artifacts(buffers),
                test_aside=test[2][k] if k in tested and self.program.task.decides else None,
            )
            self.observer.on_end(lane.trial.key, outcome)
        self._compact([k for k in range(len(self.lanes)) if k not in ended])

    def _compact(self, kept: list[int]) -> None:
        """Drop lanes; the vmapped path keeps two, because one alone would be other arithmetic."""
        if all(self.lanes[k].padding for k in kept):
            self.lanes = []
            return
        lanes = [self.lanes[k] for k in kept]
        if self.program.stacked and len(kept) == 1:
            kept, lanes = kept * 2, [lanes[0], lanes[0].shadow()]
        self.lanes = lanes
        self.arena.keep(kept)
        self.update.keep(kept)

    def _weights(self) -> Tensors:
        """The weights one would ship, of all lanes, apart from those that train."""
        arena, row = self.arena, self.arena.params
        if self.lanes[0].last and arena.layout.slots:
            row = self.update.weights(row, arena.state, last_coefficients(self.program, self.lanes))
        views = arena.views(row.clone() if arena.low is None else row.to(arena.low))
        return views | {one.name: one.shipped().clone() for one in self.rare}

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def states(self, begun: _Begun | None = None) -> dict[int, dict[str, Any]]:
        """What every trial has come to, by key: at a rung, or within a stretch that has begun."""
        found: dict[int, dict[str, Any]] = {}
        for k, lane in enumerate(self.lanes):
            if lane.padding:
                continue
            found[lane.trial.key] = {
                "at": [self.tick, begun.steps if begun else 0],
                "told": self.told,
                "restarts": self.restarts,
                "lane": lane.state(past=lane.before if begun else lane.past),
                "arena": self.arena.state_of(k),
                "held": self.update.held(k) if self.arena.layout.slots else None,
                "rare": {one.name: one.saved() for one in self.rare},
                "begun": {"seconds": begun.seconds, **begun.record.state(k)} if begun else None,
            }
        return found

    def restore(self, saved: Sequence[Saved]) -> None:
        """Go on from what the trials had come to, all at one step."""
        saved = saved if len(saved) == len(self.lanes) else [*saved, saved[0]]  # the last one is padding
        for lane, state in zip(self.lanes, saved, strict=True):
            lane.restore(state["lane"])
        self._goes_on = True
        self.arena.restore([state["arena"] for state in saved])
        if self.arena.layout.slots:
            self.update.take_up([state["held"] for state in saved])
        for one in self.rare:
            one.restore(saved[0]["rare"][one.name])
        self.tick, steps = saved[0]["at"]
        if steps:
            end = min(lane.next_tick for lane in self.lanes)
            record = Record(self.tick, end, self.program.log_every, self.arena.lanes)
            record.restore([state["begun"] for state in saved], self.program.device)
            self._begun = _Begun(record, steps, max(state["begun"]["seconds"] for state in saved))

    def state_bytes(self) -> int:
        """Bytes of optimizer state of one lane."""
        own = self.update.state_bytes(self.arena.state) if self.arena.layout.slots else 0
        return own + sum(one.state_bytes() for one in self.rare)
