"""What a sweep on many workers is bounded by: a closed form, and a simulation that queues, of the same constants.

Times are seconds. A trial takes of a worker its training, of the planner its suggestion and its place in the queue, of
the database a pop, a tell and the renewals of its lease, of the tracking server its calls. An arm's search lets no more
than so many trials run at once (`search.lag`, docs/searching.md), whatever the number of workers.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

QUARTER = 0.25
"""Share of a search whose trials wait for nothing, and of those that repeat its best settings."""


@dataclass(frozen=True)
class Station:
    """What serves so many at once."""

    name: str
    servers: int = 1


@dataclass(frozen=True)
class Costs:
    """Seconds that a trial takes of whom, beside its training."""

    suggest: float  # of the planner, where the model suggests
    enqueue: float  # of the planner, for any
    pop: Mapping[str, float]  # of stations, by name
    tell: Mapping[str, float]
    renew: Mapping[str, float] = field(default_factory=dict)
    track: Mapping[str, float] = field(default_factory=dict)  # before it is told
    deliver: float = 0.0  # of the planner's process, which nobody waits for
    look: float = 0.0  # of the planner, each time that it looks
    look_every: float = 1.0
    woken: bool = False  # by a worker's result; else it looks so often
    beat: float = 10.0  # between renewals
    idle: float = 0.2  # so often a worker without a trial looks for one


@dataclass(frozen=True)
class Engine:
    """Where a sweep runs."""

    name: str
    costs: Costs
    stations: tuple[Station, ...]

    def demand(self, seconds: float) -> dict[str, float]:
        """What a trial of so many seconds takes of each station, and of the planner, on average over a search."""
        c = self.costs
        found = {station.name: 0.0 for station in self.stations}
        for part, times in ((c.pop, 1.0), (c.tell, 1.0), (c.track, 1.0), (c.renew, seconds / c.beat)):
            for name, one in part.items():
                found[name] += times * one
        found["planner"] = c.enqueue + QUARTER * c.suggest + c.deliver
        return found

    def servers(self, name: str) -> int:
        """Of a station; the planner is one."""
        return next((station.servers for station in self.stations if station.name == name), 1)


@dataclass(frozen=True)
class Sweep:
    """So many searches at once (arms × repeats), each of so many trials of so many seconds, then its seeds."""

    searches: int
    trials: int
    seconds: float
    seeds: int = 8
    lag: int | None = None  # None: as `search.lag=auto` has it

    @property
    def window(self) -> int:
        """Trials of a search that may run at once in its model's part."""
        return self.lag or max(2, self.trials // 16, self.trials // 4 - 24)

    @property
    def first_rerun(self) -> int:
        """As the search has it."""
        return self.trials - int(self.trials * QUARTER) // 2 * 2

    @property
    def free(self) -> int:
        """Trials of a search that wait for nothing."""
        return math.ceil(min(math.ceil(self.trials / 2), self.first_rerun) / 2)

    @property
    def model(self) -> int:
        """The first that a model suggests."""
        return min(math.ceil(self.trials / 2), self.first_rerun)

    def horizon(self, number: int) -> int:
        """How many results of its search a trial waits for; those after the search are its seeds."""
        if number >= self.trials:
            return self.trials
        if number >= self.first_rerun:
            return self.first_rerun
        return 0 if number < self.free else max(0, number - self.window + 1)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Parts of a search: trials, and how many of them may run at once."""
        reruns = self.trials - self.first_rerun
        found = [(self.free, self.free), (self.first_rerun - self.free, self.window), (reruns, reruns)]
        return [part for part in (*found, (self.seeds, self.seeds)) if part[0]]

    @property
    def total(self) -> int:
        """Trials of all searches."""
        return self.searches * (self.trials + self.seeds)


# -- closed form ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """What the closed form says of a sweep on so many workers."""

    rate: float  # trials a second, on average
    limit: str  # what bounds it: workers, a station, or the searches' own order
    used: Mapping[str, float]  # share of each station
    efficiency: float  # training ÷ (workers × time)


def closed_form(engine: Engine, sweep: Sweep, workers: int) -> Bound:
    """Each part of the search runs at the least of three rates: of its workers, of a station, of what it lets run.

    Nobody waits in a queue as long as no station is full, and a part begins when the one before it has ended.
    """
    demand = engine.demand(sweep.seconds)
    held = sweep.seconds + sum(demand[name] for name in demand if name != "planner")  # of a worker, by a trial
    full = {name: engine.servers(name) / of for name, of in demand.items() if of > 0}
    station = min(full, key=lambda name: full[name])
    waits = held + engine.costs.enqueue + (0.0 if engine.costs.woken else engine.costs.look_every / 2)
    time, lost = 0.0, dict[str, float]()
    for trials, width in sweep.parts:
        rates = {"workers": workers / held, station: full[station], "search.lag": sweep.searches * width / waits}
        limit = min(rates, key=lambda name: rates[name])
        took = max(sweep.searches * trials / rates[limit], held)
        time += took
        lost[limit] = lost.get(limit, 0.0) + took
    rate = sweep.total / time
    used = {name: rate * of / engine.servers(name) for name, of in demand.items()}
    return Bound(rate, max(lost, key=lambda name: lost[name]), used, rate * sweep.seconds / workers)


# -- simulation ----------------------------------------------------------------------------------------------------


@dataclass
class _Search:
    """A search while it runs."""

    sweep: Sweep
    made: int = 0
    over: set[int] = field(default_factory=set)
    done: int = 0  # before the first without a result

    def decidable(self) -> Iterator[int]:
        """Numbers of trials that can be decided by now."""
        while self.made < self.sweep.trials + self.sweep.seeds and self.done >= self.sweep.horizon(self.made):
            self.made += 1
            yield self.made - 1

    def end(self, number: int) -> None:
        """Take in a result."""
        self.over.add(number)
        while self.done in self.over:
            self.over.discard(self.done)
            self.done += 1


@dataclass(frozen=True)
class Simulated:
    """What came of a simulated sweep."""

    seconds: float
    rate: float
    efficiency: float
    used: Mapping[str, float]


_LOOK = -1


class Simulation:
    """Events in their order: stations serve who came first, the planner looks, workers take the oldest trial."""

    def __init__(self, engine: Engine, sweep: Sweep, workers: int) -> None:
        self.engine, self.sweep, self.workers = engine, sweep, workers
        c, beats = engine.costs, sweep.seconds / engine.costs.beat
        renewed = {name: beats * one for name, one in c.renew.items()}
        self._steps: list[tuple[str | None, float]] = [*c.pop.items(), (None, sweep.seconds)]
        self._steps += [*renewed.items(), *c.track.items(), *c.tell.items()]
        self._free = {station.name: [0.0] * station.servers for station in engine.stations}
        self._busy = dict.fromkeys([*self._free, "planner"], 0.0)
        self._events: list[tuple[float, int, int, int]] = []  # time, order, search (or a look), step
        self._numbers: dict[int, int] = {}  # of trials in training, by the order of their events
        self._order = count()
        self._searches = [_Search(sweep) for _ in range(sweep.searches)]
        self._waiting: deque[tuple[int, int]] = deque()
        self._idle, self._told, self._end = workers, 0, 0.0
        self._planner, self._look = 0.0, math.inf  # when it is free; when it looks next
        self._changed = set(range(sweep.searches))

    def run(self) -> Simulated:
        """All of it."""
        self._look_at(0.0)
        while self._events:
            now, order, search, step = heapq.heappop(self._events)
            if search == _LOOK:
                self._plan(now)
            elif step < 0:
                self._offer(now, search, self._numbers.pop(order))
            else:
                self._go_on(now, search, self._numbers.pop(order), step)
        assert self._told == self.sweep.total, "every trial has a result"
        used = {name: busy / self._end / self.engine.servers(name) for name, busy in self._busy.items()}
        rate = self._told / self._end
        return Simulated(self._end, rate, rate * self.sweep.seconds / self.workers, used)

    def _at(self, time: float, search: int, number: int = 0, step: int = 0) -> None:
        order = next(self._order)
        if search != _LOOK:
            self._numbers[order] = number
        heapq.heappush(self._events, (time, order, search, step))

    def _look_at(self, time: float) -> None:
        if time < self._look:
            self._look = time
            self._at(time, _LOOK)

    def _plan(self, now: float) -> None:
        """Decide what can be, one trial after the other; workers may take each at once."""
        if now != self._look:
            return  # it has looked since
        costs, begin = self.engine.costs, max(now, self._planner)
        time, self._look = begin, math.inf
        for search in sorted(self._changed):
            time += costs.look
            for number in self._searches[search].decidable():
                modelled = self.sweep.model <= number < self.sweep.first_rerun
                time += costs.enqueue + (costs.suggest if modelled else 0.0)
                self._at(time, search, number, -1)
        self._changed.clear()
        self._busy["planner"] += time - begin
        self._planner = time

    def _offer(self, now: float, search: int, number: int) -> None:
        """The first of the idle workers to look takes it."""
        self._waiting.append((search, number))
        self._take(now + self.engine.costs.idle / (self._idle + 1))

    def _take(self, now: float) -> None:
        if self._idle and self._waiting:
            self._idle -= 1
            self._go_on(now, *self._waiting.popleft(), 0)

    def _go_on(self, now: float, search: int, number: int, step: int) -> None:
        if step == len(self._steps):
            self._tell(now, search, number)
            return
        name, seconds = self._steps[step]
        if name is not None:
            now = max(now, heapq.heappop(self._free[name]))
            heapq.heappush(self._free[name], now + seconds)
            self._busy[name] += seconds
        self._at(now + seconds, search, number, step + 1)

    def _tell(self, now: float, search: int, number: int) -> None:
        self._told += 1
        self._end = now
        self._searches[search].end(number)
        self._changed.add(search)
        self._planner = max(now, self._planner) + self.engine.costs.deliver
        self._busy["planner"] += self.engine.costs.deliver
        if self.engine.costs.woken:
            self._look_at(max(now, self._planner))
        else:  # it has looked in vain since
            every = self.engine.costs.look_every
            self._look_at(self._planner + every * max(1, math.ceil((now - self._planner) / every)))
        self._idle += 1
        self._take(now)
