"""Trials that train together: from rung to rung, in lanes that are filled again as they get free."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from math import inf, lcm
from typing import Any, Protocol

from optsweep.optim.updater import Updater
from optsweep.tasks.base import Split
from optsweep.tasks.data import Stretch
from optsweep.train.arena import Arena
from optsweep.train.checkpoint import NO_CHECKPOINTS, Checkpointer, Saved
from optsweep.train.device import peak_bytes, reset_peak, synchronize
from optsweep.train.evaluate import Shown, block_losses, evaluate, spread
from optsweep.train.graphs import Graphs
from optsweep.train.lanes import Lane, StepNumbers, coefficients, logged, numbers
from optsweep.train.points import note
from optsweep.train.program import Program
from optsweep.train.randomness import step_seeds
from optsweep.train.ranks import group_of
from optsweep.train.rare import Rare
from optsweep.train.record import Record
from optsweep.train.recordings import Recordings
from optsweep.train.resident import Resident
from optsweep.train.source import Listed, Source
from optsweep.train.stack import Arrival, Stack
from optsweep.train.steps import Take, backward_of, miss, step_of
from optsweep.train.team import Team
from optsweep.train.trial import End, Outcome, Rung, Trial

WAITING_SHARE = 8
"""Lanes begin where all have their rungs and log their points, unless that is rarer than eight times a run."""


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


class Run:
    """One arena and the trials in its lanes; `source` gives more for the free ones, up to `capacity` in all.

    A trial enters at a tick that is a multiple of `grid` away from its own step; it goes on from what is `saved` of it.
    Of a trial that trains alone, `rare` are the parameters that not every step uses, `told` the last step of which the
    observer has heard already, and `restarts` says how often it began again for a rare parameter.
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
        saved: Mapping[int, Saved] | None = None,
        source: Source | None = None,
        capacity: int | None = None,
    ) -> None:
        self.program, self.observer, self.told, self.checkpointer = program, observer, told, checkpointer
        self.restarts, self.source = restarts, source or Listed(())
        self.capacity = len(trials) if capacity is None else capacity
        self.data = program.task.data(Split.TRAIN)
        self._layout = program.layout if program.stacked else program.layout_without(rare)
        self.grid = _grid(program, program.build_update(program.layout).period) if program.stacked else 1
        self.tick = 0
        self._waiting = [Arrival(trial, (saved or {}).get(trial.key)) for trial in trials]
        while (stack := self._arrived()) is None:
            self._skip()
        self.held = stack
        self.held.compact()
        self.arena.module.train()
        self.scratch = program.model(self.lanes[0].trial.seed).to(program.device)
        self.rare = [] if program.stacked else self._rare(rare)
        self.team = Team(self, group) if (group := group_of(program.ranks)) else None
        self._resident: Resident | None = None
        self.recordings = Recordings(Graphs(program.device)) if program.resident and not program.large else None
        self.clip_norm = self.update.clip_norm
        if self.rare:  # clipping is by the norm of all gradients, so none of the updates does it
            for update in (self.update, *(one.update for one in self.rare)):
                update.clip_norm = None

    @property
    def lanes(self) -> list[Lane]:
        """Those in training; padding has none."""
        return self.held.lanes

    @property
    def arena(self) -> Arena:
        """Their rows."""
        return self.held.arena

    @property
    def update(self) -> Updater:
        """What moves these."""
        return self.held.update

    def _rare(self, names: Collection[str]) -> list[Rare]:
        """Rows and updates of the rare parameters."""
        parameters = dict(self.arena.module.named_parameters())
        layouts = {name: self.program.layout_of_one(name) for name in parameters if name in names}
        return [Rare(n, parameters[n], layout, self.program.build_update(layout)) for n, layout in layouts.items()]

    def run(self) -> None:
        """Train until no lane is left and the source has nothing. Raises MissedGradientError."""
        reset_peak(self.program.device)
        self.checkpointer.begin()
        begins = self.lanes[0].step == 0
        self._stop()
        if begins:
            self.checkpointer.pause(self.states)
        while self.lanes:
            self.advance(min([*(lane.next_tick for lane in self.lanes), *map(self._entry, self._waiting)]))
            self._stop()
            self.checkpointer.pause(self.states)

    # -- training ------------------------------------------------------------------------------------------------

    def advance(self, end: int) -> float:
        """Train all lanes up to tick `end`, or to where a pause is due; returns seconds."""
        if self.team is None:
            return self._advance(end, self.checkpointer.due)
        with self.team.stretch(end) as planned:
            return self._advance(planned, inf)

    def _advance(self, end: int, due: float) -> float:
        program, lanes, arena, first = self.program, self.lanes, self.arena, self.tick
        plan = numbers(lanes, self.update, first, end)
        record = Record(first, logged(lanes, program.log_every, first, end), arena.lanes)
        spans = [Stretch(lane.trial.seed, lane.step, end - lane.start) for lane in lanes]
        spans = spans if len(spans) == arena.lanes else spans * arena.lanes
        resident = self._residing()
        take = resident.taking(spans, plan, record) if resident else self._taking(spans, plan, record)
        # In lanes nothing is drawn, as far as the model was seen; if it is, it doesn't depend on company.
        seeds = step_seeds(0 if program.stacked else lanes[0].trial.seed, first, end)
        program.traits.generators.everything().seeder()(seeds[0])
        seed = program.traits.generators.seeder()
        synchronize(program.device)
        clock = time.perf_counter
        begin = clock()
        with resident.running() if resident else nullcontext():
            for tick in range(first, end):
                seed(seeds[tick - first])
                if missing := take(tick):
                    miss(program, missing, tick)
                if clock() >= due:
                    break
            self.tick = tick + 1
            for place, lane in enumerate(lanes):
                lane.advance(self.tick, plan.of_lane(place, tick))
            if resident is not None:  # the device is at work meanwhile
                resident.look_ahead(self._following(self.tick - first))
        synchronize(program.device)
        seconds = clock() - begin
        arena.check()
        fetched = record.fetched() if self.team is None else self.team.averaged(record.fetched())
        note(lanes, fetched, program.log_every)
        for lane in lanes:
            lane.train_seconds += seconds / len(lanes)
            lane.rung_seconds += seconds
        return seconds

    def _following(self, most: int) -> list[Stretch]:
        """The steps that lanes take next, `most` at most, if all that have further rungs go on."""
        ticks = {lane.start + rung for lane in self.lanes for rung in lane.rungs[:2]}
        end = min([self.tick + most, *(tick for tick in ticks if tick > self.tick)])
        on = [lane for lane in self.lanes if lane.rungs[-1] > lane.step]
        return [Stretch(lane.trial.seed, lane.step, end - lane.start) for lane in on]

    def _taking(self, spans: Sequence[Stretch], plan: StepNumbers, record: Record) -> Take:
        """What takes the step of a tick, of ticks in their order."""
        program, arena, update = self.program, self.arena, self.update
        batches = self.data.training(spans, program.batch_size, program.accumulate, program.device)
        tabled = coefficients(program, update, plan)
        if self.team is not None:
            return self.team.taking(batches, tabled, plan, record)
        backward = backward_of(program, arena, self.rare)
        step = step_of(arena, update, self.rare, self.lanes[0], self.clip_norm)

        def take(tick: int) -> Sequence[str]:
            record.loss(backward(batches))
            missing = arena.gather(program.accumulate)
            if not missing:
                step(tabled[tick - plan.first], tick, record)
            return missing

        return take

    def _residing(self) -> Resident | None:
        """What takes steps whose numbers lie on the device, where that can be."""
        program, arena, update, indexed = self.program, self.arena, self.update, self.data.indexed
        if indexed is None or self.rare or not program.resident or update.host_coefficients:
            return None
        if self._resident is None or self._resident.placed is not arena.placed:
            arena.apart = True
            self._resident = Resident(program, arena, update, indexed, backward_of(program, arena, ()))
        return self._resident

    # -- rungs ---------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Evaluate the lanes whose rung it is, and let trials enter free ones, now or at the first tick that suits."""
        self._rung()
        while True:
            if (free := self.capacity - len(self.held.training) - len(self._waiting)) > 0:
                taken = self.source.take(free)
                self._waiting += [Arrival(trial, self.checkpointer.saved(trial.key)) for trial in taken]
            if (stack := self._arrived()) is not None:
                self.held.put(stack)
                self._rung()
            elif not self._waiting or (self.held.training and self.tick not in map(self._entry, self._waiting)):
                break
            else:  # one that begins anew, as what was kept of it didn't fit, may enter at this very tick
                self._skip()
        self.held.compact()

    def _entry(self, arrival: Arrival) -> int:
        """The first tick from now on at which a trial may enter."""
        return self.tick + (arrival.step - self.tick) % self.grid

    def _skip(self) -> None:
        """Nobody trains, so ticks are free: on to the one at which somebody enters."""
        self.tick = min(map(self._entry, self._waiting))

    def _arrived(self) -> Stack | None:
        """Those that enter now; what was kept of one that doesn't fit is set aside, and it begins anew."""
        ready = [arrival for arrival in self._waiting if self._entry(arrival) == self.tick]
        self._waiting = [arrival for arrival in self._waiting if self._entry(arrival) != self.tick]
        fresh = [arrival.trial for arrival in ready if arrival.saved is None]
        stacks = [Stack(self.program, self._layout, fresh, self.tick)] if fresh else []
        for arrival in ready:
            if arrival.saved is not None:
                try:
                    one = Stack(self.program, self._layout, [arrival.trial])
                    one.restore(arrival.saved, self.tick)
                    stacks.append(one)
                except Exception as error:
                    self.checkpointer.unfit([arrival.trial.key], error)
                    self._waiting.append(Arrival(arrival.trial))
        for other in stacks[1:]:
            stacks[0].put(other)
        return stacks[0] if stacks else None

    def shown(self, places: Sequence[int]) -> Shown:
        """These lanes, with the weights one would ship of them, the rare ones too."""
        part, weights = self.held.shown(places)
        weights |= {one.name: one.shipped().clone() for one in self.rare}
        if self.team is None:
            return Shown(self.program, part, self.scratch, weights, self.recordings)
        self.team.begin()
        return Shown(self.program, part, self.scratch, weights, group=self.team.group)

    def _rung(self) -> None:
        """Evaluate the lanes whose rung it is, and tell the observer."""
        due = [k for k, lane in enumerate(self.lanes) if not lane.ended and lane.next_tick == self.tick]
        if not due:
            return
        shown = self.shown(due)
        val = evaluate(shown, Split.VAL).tolist()
        spreads, peak = [0.0] * len(due), peak_bytes(self.program.device)
        if self.program.task.loss_floor is None and any(self.lanes[k].step == 0 for k in due):
            spreads = spread(shown).tolist()
        ended: dict[int, tuple[End, str]] = {}
        for place, k in enumerate(due):
            lane, (decides, score, aside) = self.lanes[k], [values[place] for values in val]
            lane.rungs.pop(0)
            if lane.step == 0:
                lane.initial_loss, lane.spread = decides, spreads[place]
            lane.best_loss = min(lane.best_loss, decides)
            lane.multipliers.observe(decides)
            rung = self._told(lane, decides, score, aside, peak)
            if (end := lane.verdict(self.program, decides, rung.points)) is not None:
                ended[place] = end
        if ended:
            found = {due[place]: [values[place] for values in val] for place in ended}
            self._finish({due[place]: end for place, end in ended.items()}, found)

    def _told(self, lane: Lane, decides: float, score: float, aside: float, peak: int) -> Rung:
        """The rung of a lane, which the observer has heard of."""
        steps = lane.step - lane.last_rung
        rung = Rung(
            lane.step,
            decides,
            score,
            tuple(lane.points),
            1000 * lane.rung_seconds / steps if steps else None,
            peak,
            lane.train_seconds,
            aside if self.program.task.decides else None,
        )
        lane.points, lane.last_rung, lane.rung_seconds = [], lane.step, 0.0
        if lane.step > self.told:
            self.observer.on_rung(lane.trial.key, rung)
            self.told = self.told if self.program.stacked else lane.step
        return rung

    def _finish(self, ended: Mapping[int, tuple[End, str]], val: Mapping[int, Sequence[float]]) -> None:
        """Tell the outcomes of lanes, which are free then; `val` is what was found at their last rung."""
        tested = [k for k, (end, _) in ended.items() if self.lanes[k].trial.test and end is End.FINISHED]
        test: dict[int, tuple[list[float], list[float]]] = {}
        if tested:
            shown = self.shown(tested)
            found, blocks = evaluate(shown, Split.TEST).T.tolist(), block_losses(shown).T.tolist()
            test = dict(zip(tested, zip(found, blocks, strict=True), strict=False))  # a lane may be there twice
        for k, (end, reason) in ended.items():
            lane, ((loss, score, aside), parts) = self.lanes[k], test.get(k, ([None] * 3, []))
            buffers = {name: buffer.detach().cpu() for name, buffer in self.arena.buffers_of(k).items()}
            outcome = Outcome(
                end=end,
                step=lane.step,
                val_loss=val[k][0],
                val_score=val[k][1],
                test_loss=loss,
                test_score=score,
                train_seconds=lane.train_seconds,
                state_bytes=self.state_bytes(k),
                reason=reason,
                test_blocks=tuple(parts),
                artifacts=self.program.task.artifacts(buffers),
                test_aside=aside if self.program.task.decides else None,
            )
            lane.ended = True
            self.observer.on_end(lane.trial.key, outcome)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def states(self) -> dict[int, dict[str, Any]]:
        """What every trial has come to, by key."""
        own = {"told": self.told, "restarts": self.restarts, "rare": {one.name: one.saved() for one in self.rare}}
        held = ((k, lane, {"step": lane.step, **own}) for k, lane in enumerate(self.lanes))
        return {lane.trial.key: {**self.held.state_of(k), **more} for k, lane, more in held}

    def restore(self, saved: Saved) -> None:
        """Let the only trial go on from what it had come to."""
        self.tick = int(saved["lane"]["step"])
        self.held.restore(saved, self.tick)
        if self.team is not None:
            self.team.saved = saved
        for one in self.rare:
            one.restore(saved["rare"][one.name])

    def state_bytes(self, place: int = 0) -> int:
        """Bytes of optimizer state of one lane."""
        own = self.update.state_bytes(self.arena.state, place) if self.arena.layout.slots else 0
        return own + sum(one.state_bytes() for one in self.rare)


def _grid(program: Program, period: int) -> int:
    """How far apart the ticks are at which lanes begin: a multiple of the update's period."""
    rungs = lcm(period, program.rung_steps()[0])
    together = (lcm(rungs, program.log_every), rungs)
    return next((grid for grid in together if grid * WAITING_SHARE <= program.num_steps), period)
