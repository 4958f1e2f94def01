"""Two processes race for the same trials and seats, from a barrier each time: does one of them win, is anything lost?

`python tests/races.py 1000` runs a thousand races of each kind and counts.
"""

from __future__ import annotations

import multiprocessing as mp
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from optsweep.errors import UserError
from optsweep.search.ownership import Claim, LeaseLostError
from optsweep.search.process import process_name
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.train.trial import End, Phase
from patience import PATIENCE_SECONDS

SWEEP = "races"
STORES = 8
"""New stores that both sides open, at most: making one takes a quarter of a second."""


@dataclass(frozen=True)
class Course:
    """What the two sides race for."""

    url: str
    count: int
    stores: Sequence[str]
    tell: Sequence[Claim]
    renew: Sequence[Claim]
    report: Sequence[Claim]


@dataclass(frozen=True)
class Results:
    """What one side got: whether it won a race, or the trials that it popped."""

    opened: Sequence[bool]
    popped: Sequence[int]
    told: Sequence[bool]
    renewed: Sequence[bool]
    reported: Sequence[bool]
    seated: Sequence[bool]
    planned: Sequence[bool]


@dataclass(frozen=True)
class Count:
    """What came of the races of one kind. `won`: by the first of the two sides."""

    kind: str
    races: int
    won: int
    double: int  # both sides won: a trial or a seat with two owners
    lost: int  # no side won, or the store does not have what the winner was promised


def race(folder: Path, count: int) -> list[Count]:
    """Run `count` races of each kind on one SQLite file."""
    url = f"sqlite:///{folder}/optuna.db"
    studies = Studies.open(url, SWEEP)
    seat = studies.take_seat(["pop", "tell", "renew", "report"], whole=False)
    for arm in seat.arms:
        for number in range(count):
            studies.enqueue(seat, arm, Phase.SEARCH, Slot(number, {"lr": 1e-3}, 0, "model"))
    claims = {
        arm: [work.claim for work in studies.pop(arm, Phase.SEARCH, process_name(), 60.0, count)]
        for arm in ("tell", "renew", "report")
    }
    for claim in claims["renew"]:
        studies.renew(claim, -1.0)
    for number in range(count):
        studies.ensure(_plan(number), Phase.SEARCH)
    stores = [f"sqlite:///{folder}/new{number}/optuna.db" for number in range(min(count, STORES))]
    first, second = _two_sides(Course(url, count, stores, claims["tell"], claims["renew"], claims["report"]))
    return _counts(studies, count, first, second)


def _plan(number: int) -> str:
    return f"plan {number}"


def _two_sides(course: Course) -> tuple[Results, Results]:
    context = mp.get_context("spawn")
    barrier = context.Barrier(2)
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    sides = [
        context.Process(target=side, args=(course, barrier, pipe[1]))
        for side, pipe in zip((_first, _second), pipes, strict=True)
    ]
    for process in sides:
        process.start()
    for _, sender in pipes:
        sender.close()
    try:
        first, second = (receiver.recv() for receiver, _ in pipes)
    finally:
        for process in sides:
            process.join()
    return first, second


def _first(course: Course, barrier: Barrier, sender: Connection) -> None:
    """The worker, who holds the claims, and the planner, who holds the seats that ran out."""
    studies = Studies.open(course.url, SWEEP)
    seats = [studies.take_seat([_plan(number)], whole=False) for number in range(course.count)]
    for seat in seats:
        seat.renew(-1.0)

    def tell(number: int) -> None:
        studies.tell(course.tell[number], End.FINISHED, float(number), 1.0, float(number))

    def plan(number: int) -> None:
        studies.enqueue(seats[number], _plan(number), Phase.SEARCH, Slot(0, {"lr": 1e-3}, 0, "model"))

    run = _Run(barrier, course.count)
    sender.send(
        Results(
            opened=_opened(barrier, course.stores),
            popped=_popped(run, studies),
            told=run.each(tell),
            renewed=run.each(lambda number: studies.renew(course.renew[number], 60.0)),
            reported=run.each(lambda number: studies.report(course.report[number], 10, 0.5, 60.0)),
            seated=run.each(lambda number: studies.take_seat([f"seat {number}"], whole=False)),
            planned=run.each(plan),
        )
    )


def _second(course: Course, barrier: Barrier, sender: Connection) -> None:
    """The planner that gives the first side up."""
    studies = Studies.open(course.url, SWEEP)

    def fail(claim: Claim, if_left: float | None = None) -> None:
        if not studies.fail(claim, "given up", if_left=if_left):
            raise LeaseLostError

    def take_over(number: int) -> None:
        seat = studies.take_seat([_plan(number)], whole=False)
        studies.enqueue(seat, _plan(number), Phase.SEARCH, Slot(0, {"lr": 1e-3}, 0, "model"))

    run = _Run(barrier, course.count)
    sender.send(
        Results(
            opened=_opened(barrier, course.stores),
            popped=_popped(run, studies),
            told=run.each(lambda number: fail(course.tell[number])),
            renewed=run.each(lambda number: fail(course.renew[number], if_left=0.0)),
            reported=run.each(lambda number: fail(course.report[number])),
            seated=run.each(lambda number: studies.take_seat([f"seat {number}"], whole=False)),
            planned=run.each(take_over),
        )
    )


@dataclass(frozen=True)
class _Run:
    """One side's races: both sides do their part at once, and each is told whether it was in time."""

    barrier: Barrier
    count: int

    def each(self, act: Callable[[int], object]) -> list[bool]:
        won = []
        for number in range(self.count):
            self.barrier.wait(PATIENCE_SECONDS)
            try:
                act(number)
            except (LeaseLostError, UserError):
                won.append(False)
            else:
                won.append(True)
        return won


def _popped(run: _Run, studies: Studies) -> list[int]:
    """Slots that this side popped, the first that waits each time, as the other side does."""
    popped: list[int] = []

    def pop(number: int) -> None:
        popped.extend(work.slot.number for work in studies.pop("pop", Phase.SEARCH, process_name(), 60.0, 1))

    run.each(pop)
    return popped


def _opened(barrier: Barrier, stores: Sequence[str]) -> list[bool]:
    """Whether new stores can be opened by both at once."""
    opened = []
    for url in stores:
        barrier.wait(PATIENCE_SECONDS)
        with suppress(UserError):
            opened.append(Studies.open(url, SWEEP).states([]) == {})
    return opened


def _counts(studies: Studies, count: int, first: Results, second: Results) -> list[Count]:
    def trials(arm: str) -> list[FrozenTrial]:
        return studies.trials(arm, Phase.SEARCH)

    def duel(kind: str, one: Sequence[bool], other: Sequence[bool], kept: Sequence[bool]) -> Count:
        """`kept`: whether the store says the same as the first side was told."""
        pairs = list(zip(one, other, kept, strict=True))
        double = sum(a and b for a, b, _ in pairs)
        return Count(kind, len(pairs), sum(one), double, sum(not (a or b) or not same for a, b, same in pairs))

    popped = [*first.popped, *second.popped]
    results = [
        trial.state is TrialState.COMPLETE
        and trial.value == trial.user_attrs["test_loss"] == trial.user_attrs["slot"]
        and "error" not in trial.user_attrs
        for trial in trials("tell")
    ]
    running = [trial.state is TrialState.RUNNING for trial in trials("renew")]
    rungs = [trial.intermediate_values == {10: 0.5} for trial in trials("report")]
    planned = [len(trials(_plan(number))) == 1 for number in range(count)]
    both_opened = len(first.opened) + len(second.opened)
    stores = min(count, STORES)
    return [
        Count("open and open", stores, len(first.opened), 0, 2 * stores - both_opened),
        Count("pop and pop", count, len(first.popped), len(popped) - len(set(popped)), count - len(set(popped))),
        duel("tell and fail", first.told, second.told, _same(first.told, results)),
        duel("renew and fail", first.renewed, second.renewed, _same(first.renewed, running)),
        # Giving up succeeds either way: a rung may be written before it, and must not be after it.
        Count(
            "report and fail",
            count,
            sum(first.reported),
            sum(written and not told for told, written in zip(first.reported, rungs, strict=True)),
            sum(told and not written for told, written in zip(first.reported, rungs, strict=True))
            + second.reported.count(False),
        ),
        duel("seat and seat", first.seated, second.seated, [True] * count),
        duel("plan and take over", first.planned, second.planned, planned),
    ]


def _same(one: Sequence[bool], other: Sequence[bool]) -> list[bool]:
    return [a == b for a, b in zip(one, other, strict=True)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for line in race(Path(name), int(sys.argv[1])):
            print(f"{line.kind}: {line.races} races, {line.double} double, {line.lost} lost; first won {line.won}")
